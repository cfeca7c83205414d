//! A path to a node that does wrong, once, to a `message.created` on its way to a client.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};

/// Which one it is, of all that pass.
const UNLUCKY: u32 = 10;

/// What becomes of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Fault {
    /// It never comes.
    Drop,
    /// It comes twice.
    Double,
    /// It comes behind the next one of its connection.
    Swap,
    /// The connection ends before it.
    Cut,
}

/// Where the path begins.
pub(crate) async fn path(node: SocketAddr, fault: Fault) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let passed = Arc::new(AtomicU32::new(0));
    tokio::spawn(async move {
        loop {
            let (client, _) = listener.accept().await.unwrap();
            let node = TcpStream::connect(node).await.unwrap();
            let passed = passed.clone();
            tokio::spawn(async move {
                let (mut from_client, to_client) = client.into_split();
                let (from_node, mut to_node) = node.into_split();
                // Either end may be gone before the other.
                tokio::select! {
                    _ = copy(&mut from_client, &mut to_node) => {}
                    _ = carry(from_node, to_client, fault, &passed) => {}
                }
            });
        }
    });
    address
}

/// Carries what the node sends: HTTP as it is, frames one by one after an upgrade.
async fn carry(mut node: OwnedReadHalf, mut client: OwnedWriteHalf, fault: Fault, passed: &AtomicU32) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(node.read_u8().await?);
    }
    client.write_all(&head).await?;
    if !head.starts_with(b"HTTP/1.1 101") {
        return copy(&mut node, &mut client).await.map(drop);
    }
    let mut kept: Option<Vec<u8>> = None;
    loop {
        let frame = read_frame(&mut node).await?;
        let is_message = frame.windows(15).any(|window| window == b"message.created");
        let is_unlucky = is_message && passed.fetch_add(1, Ordering::SeqCst) + 1 == UNLUCKY;
        match fault {
            Fault::Drop if is_unlucky => continue,
            Fault::Cut if is_unlucky => return Ok(()),
            Fault::Double if is_unlucky => client.write_all(&frame).await?,
            Fault::Swap if is_unlucky => {
                kept = Some(frame);
                continue;
            }
            _ => {}
        }
        client.write_all(&frame).await?;
        if let Some(kept) = kept.take_if(|_| is_message) {
            client.write_all(&kept).await?;
        }
    }
}

/// A server's frame, which has no mask.
async fn read_frame(node: &mut OwnedReadHalf) -> std::io::Result<Vec<u8>> {
    let mut frame = vec![0; 2];
    node.read_exact(&mut frame).await?;
    let length = match frame[1] {
        126 => {
            let length = node.read_u16().await?;
            frame.extend(length.to_be_bytes());
            usize::from(length)
        }
        127 => panic!("frames of a test are small"),
        short => usize::from(short),
    };
    let start = frame.len();
    frame.resize(start + length, 0);
    node.read_exact(&mut frame[start..]).await?;
    Ok(frame)
}
