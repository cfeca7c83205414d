//! A proxy that counts the commands that clients send, those inside scripts excluded.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};

/// A proxy that counts commands.
#[derive(Debug)]
pub struct CountingProxy {
    port: u16,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    commands: AtomicU64,
    /// Those that contain `digests:`.
    digests: AtomicU64,
}

impl CountingProxy {
    /// Starts a proxy for the server on this port.
    pub async fn before(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let counts = Arc::<Counts>::default();
        let proxy = Self {
            port,
            counts: Arc::clone(&counts),
        };
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(("127.0.0.1", server)).await else {
                    continue;
                };
                let ((requests, mut to_client), (mut replies, to_server)) =
                    (client.into_split(), server.into_split());
                tokio::spawn(async move { copy(&mut replies, &mut to_client).await });
                tokio::spawn(pass(requests, to_server, Arc::clone(&counts)));
            }
        });
        proxy
    }

    /// Returns the URL of the proxy.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Returns the number of commands so far.
    pub fn commands(&self) -> u64 {
        self.counts.commands.load(Ordering::Relaxed)
    }

    /// Returns the number of commands on channels of digests so far.
    pub fn digests(&self) -> u64 {
        self.counts.digests.load(Ordering::Relaxed)
    }
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, counts: Arc<Counts>) {
    let mut buffer = Vec::new();
    while let Ok(read @ 1..) = from.read_buf(&mut buffer).await {
        let new = buffer.len() - read;
        if to.write_all(&buffer[new..]).await.is_err() {
            return;
        }
        while let Some(length) = command_length(&buffer) {
            counts.commands.fetch_add(1, Ordering::Relaxed);
            let is_digest = buffer[..length].windows(8).any(|part| part == b"digests:");
            counts
                .digests
                .fetch_add(u64::from(is_digest), Ordering::Relaxed);
            buffer.drain(..length);
        }
    }
}

/// Returns the length of the command at the start; `None` if it is incomplete.
fn command_length(bytes: &[u8]) -> Option<usize> {
    let (mut length, parts) = number(bytes, 0)?;
    for _ in 0..parts {
        let (after, size) = number(bytes, length)?;
        length = after + size + 2;
    }
    (bytes.len() >= length).then_some(length)
}

/// Reads the number of a line such as `*3` or `$12`. Returns where the next line begins.
fn number(bytes: &[u8], from: usize) -> Option<(usize, usize)> {
    let line = bytes.get(from..)?;
    let end = line.windows(2).position(|two| two == b"\r\n")?;
    let digits = std::str::from_utf8(line.get(1..end)?).ok()?;
    Some((from + end + 2, digits.parse().ok()?))
}
