//! A proxy that can delay large replies of a server.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
};

/// Bytes that pass on a connection while large replies are held.
const HELD_AFTER: usize = 100_000;

/// A proxy that, while its gate is shut, stops forwarding in the middle of a large reply.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    is_shut: watch::Sender<bool>,
    is_holding: watch::Receiver<bool>,
}

impl Proxy {
    /// Starts a proxy for the server on this port, with an open gate.
    pub async fn before(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let (is_shut, gate) = watch::channel(false);
        let (holds, is_holding) = watch::channel(false);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(("127.0.0.1", server)).await else {
                    continue;
                };
                let ((mut requests, to_client), (replies, mut to_server)) =
                    (client.into_split(), server.into_split());
                tokio::spawn(async move { copy(&mut requests, &mut to_server).await });
                tokio::spawn(pass_replies(
                    replies,
                    to_client,
                    gate.clone(),
                    holds.clone(),
                ));
            }
        });
        Self {
            port,
            is_shut,
            is_holding,
        }
    }

    /// Returns the URL of the proxy.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Shuts the gate: large replies are held.
    pub fn shut(&self) {
        self.is_shut.send_replace(true);
    }

    /// Waits until a large reply is held.
    pub async fn holds(&self) {
        self.is_holding
            .clone()
            .wait_for(|is_holding| *is_holding)
            .await
            .expect("the proxy runs");
    }

    /// Opens the gate.
    pub fn open(&self) {
        self.is_shut.send_replace(false);
    }
}

async fn pass_replies(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut is_shut: watch::Receiver<bool>,
    holds: watch::Sender<bool>,
) {
    let (mut buffer, mut passed) = (vec![0; 16 * 1024], 0);
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        passed = if *is_shut.borrow() { passed + read } else { 0 };
        if passed > HELD_AFTER {
            holds.send_replace(true);
            if is_shut.wait_for(|is_shut| !is_shut).await.is_err() {
                return;
            }
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}
