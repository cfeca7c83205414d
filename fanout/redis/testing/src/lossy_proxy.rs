//! A proxy that drops messages of pub/sub without a sign.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};

/// How a message of pub/sub begins: an array of three strings.
const START: &[u8] = b"*3\r\n$7\r\nmessage\r\n";

/// Messages to drop: the bytes that they contain, and how many.
type Drops = Arc<Mutex<Vec<(Vec<u8>, usize)>>>;

/// A proxy that drops selected messages between a server and its subscribers. Replies to commands
/// pass.
#[derive(Debug)]
pub struct LossyProxy {
    port: u16,
    drops: Drops,
}

impl LossyProxy {
    /// Starts a proxy for the server on this port, which drops nothing yet.
    pub async fn before(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let drops = Drops::default();
        let proxy = Self {
            port,
            drops: Arc::clone(&drops),
        };
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(("127.0.0.1", server)).await else {
                    continue;
                };
                let ((mut requests, to_client), (replies, mut to_server)) =
                    (client.into_split(), server.into_split());
                tokio::spawn(async move { copy(&mut requests, &mut to_server).await });
                tokio::spawn(pass(replies, to_client, Arc::clone(&drops)));
            }
        });
        proxy
    }

    /// Returns the URL of the proxy.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Drops the next `count` messages whose channel or payload contains this text.
    pub fn drop_next(&self, text: &str, count: usize) {
        self.drops.lock().push((text.into(), count));
    }

    /// Returns whether all of them were dropped.
    pub fn has_dropped_all(&self) -> bool {
        self.drops.lock().iter().all(|(_, count)| *count == 0)
    }
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, drops: Drops) {
    let mut buffer = Vec::new();
    while let Ok(1..) = from.read_buf(&mut buffer).await {
        let mut passed = Vec::with_capacity(buffer.len());
        let mut rest = &buffer[..];
        while let Some(start) = find(rest, START) {
            let Some(length) = message_length(&rest[start..]) else {
                break;
            };
            let message = &rest[start..start + length];
            passed.extend_from_slice(&rest[..start]);
            if !is_dropped(message, &drops) {
                passed.extend_from_slice(message);
            }
            rest = &rest[start + length..];
        }
        // A message that has not arrived completely waits.
        let waiting = find(rest, START);
        let (complete, waiting) = rest.split_at(waiting.unwrap_or(rest.len()));
        passed.extend_from_slice(complete);
        if to.write_all(&passed).await.is_err() {
            return;
        }
        buffer = waiting.to_vec();
    }
}

fn is_dropped(message: &[u8], drops: &Drops) -> bool {
    let mut drops = drops.lock();
    let selected = drops
        .iter_mut()
        .find(|(text, count)| *count > 0 && find(message, text).is_some());
    selected.is_some_and(|(_, count)| {
        *count -= 1;
        true
    })
}

/// Returns the length of the message at the start; `None` if it is incomplete.
fn message_length(bytes: &[u8]) -> Option<usize> {
    let mut length = START.len();
    for _ in ["channel", "payload"] {
        let header = find(&bytes[length..], b"\r\n")?;
        let digits = std::str::from_utf8(&bytes[length + 1..length + header]).ok()?;
        length += header + 2 + digits.parse::<usize>().ok()? + 2;
        if bytes.len() < length {
            return None;
        }
    }
    Some(length)
}

fn find(bytes: &[u8], text: &[u8]) -> Option<usize> {
    bytes.windows(text.len()).position(|window| window == text)
}
