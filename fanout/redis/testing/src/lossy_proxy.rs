//! A proxy that drops messages of pub/sub without a sign.

use std::sync::{
    Arc, Weak,
    atomic::{AtomicBool, AtomicU16, Ordering},
};

use parking_lot::Mutex;
use rand::RngExt;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};

/// How a message of pub/sub begins: an array of three strings.
const STARTS: [&[u8]; 2] = [b"*3\r\n$7\r\nmessage\r\n", b"*3\r\n$8\r\nsmessage\r\n"];

/// The command that begins a subscription, alone or as a part of `SSUBSCRIBE`.
const SUBSCRIBE: &[u8] = b"SUBSCRIBE";

/// The channel on which Sentinels find each other, whose messages always pass.
const SENTINEL_CHANNEL: &[u8] = b"__sentinel__:hello";

const BUFFER_BYTES: usize = 16 * 1024;

/// A proxy that drops messages between a server and its subscribers. Replies to commands pass, and
/// so does everything on connections without subscriptions.
#[derive(Debug, Clone)]
pub struct LossyProxy {
    port: u16,
    server: Arc<AtomicU16>,
    drops: Arc<Mutex<Drops>>,
}

/// What to drop.
#[derive(Debug, Default)]
struct Drops {
    /// Bytes that a message contains, and the number of messages to drop.
    selected: Vec<(Vec<u8>, usize)>,
    /// Shares of all messages.
    shares: Vec<Weak<f64>>,
}

/// A share of all messages is dropped while this value lives.
#[derive(Debug)]
#[must_use]
pub struct MessageLoss {
    _share: Arc<f64>,
}

impl LossyProxy {
    /// Starts a proxy for the server on this port, which drops nothing yet.
    pub async fn before(server: u16) -> Self {
        let proxy = Self::start().await;
        proxy.set_server(server);
        proxy
    }

    /// Starts a proxy for a server whose port is not known yet.
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let proxy = Self {
            port: listener.local_addr().expect("it is bound").port(),
            server: Arc::default(),
            drops: Arc::default(),
        };
        tokio::spawn(proxy.clone().accept(listener));
        proxy
    }

    /// Sets the port of the server.
    pub(crate) fn set_server(&self, port: u16) {
        self.server.store(port, Ordering::Relaxed);
    }

    /// Returns the port of the proxy.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the URL of the proxy.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Drops the next `count` messages whose channel or payload contains this text.
    pub fn drop_next(&self, text: &str, count: usize) {
        self.drops.lock().selected.push((text.into(), count));
    }

    /// Returns whether all of them were dropped.
    pub fn has_dropped_all(&self) -> bool {
        let drops = self.drops.lock();
        drops.selected.iter().all(|(_, count)| *count == 0)
    }

    /// Drops each message with this probability, as long as the returned value lives.
    pub fn drop_share(&self, share: f64) -> MessageLoss {
        let share = Arc::new(share);
        self.drops.lock().shares.push(Arc::downgrade(&share));
        MessageLoss { _share: share }
    }

    async fn accept(self, listener: TcpListener) {
        while let Ok((client, _)) = listener.accept().await {
            let server = self.server.load(Ordering::Relaxed);
            // A client whose server is down is disconnected.
            let Ok(server) = TcpStream::connect(("127.0.0.1", server)).await else {
                continue;
            };
            for stream in [&client, &server] {
                stream.set_nodelay(true).expect("an open socket");
            }
            let ((requests, to_client), (replies, to_server)) =
                (client.into_split(), server.into_split());
            let is_subscriber = Arc::new(AtomicBool::default());
            tokio::spawn(pass_requests(requests, to_server, is_subscriber.clone()));
            tokio::spawn(pass_replies(
                replies,
                to_client,
                is_subscriber,
                self.drops.clone(),
            ));
        }
    }
}

impl Drops {
    fn are_for(&mut self, message: &[u8]) -> bool {
        if contains(message, SENTINEL_CHANNEL) {
            return false;
        }
        self.shares.retain(|share| share.strong_count() > 0);
        let selected = self
            .selected
            .iter_mut()
            .find(|(text, count)| *count > 0 && contains(message, text));
        if let Some((_, count)) = selected {
            *count -= 1;
            return true;
        }
        let mut shares = self.shares.iter().filter_map(Weak::upgrade);
        shares.any(|share| rand::rng().random_bool(*share))
    }
}

async fn pass_requests(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    is_subscriber: Arc<AtomicBool>,
) {
    let mut buffer = Vec::with_capacity(BUFFER_BYTES);
    while let Ok(1..) = from.read_buf(&mut buffer).await {
        if !is_subscriber.load(Ordering::Relaxed) && contains(&buffer, SUBSCRIBE) {
            is_subscriber.store(true, Ordering::Relaxed);
        }
        if to.write_all(&buffer).await.is_err() {
            return;
        }
        buffer.clear();
    }
}

async fn pass_replies(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    is_subscriber: Arc<AtomicBool>,
    drops: Arc<Mutex<Drops>>,
) {
    let mut buffer = Vec::with_capacity(BUFFER_BYTES);
    while let Ok(1..) = from.read_buf(&mut buffer).await {
        let mut passed = Vec::with_capacity(buffer.len());
        if is_subscriber.load(Ordering::Relaxed) {
            let mut rest = &buffer[..];
            // A reply that has not arrived completely waits.
            while let Some(length) = reply_length(rest) {
                let (reply, following) = rest.split_at(length);
                if !is_message(reply) || !drops.lock().are_for(reply) {
                    passed.extend_from_slice(reply);
                }
                rest = following;
            }
            buffer = rest.to_vec();
        } else {
            passed.append(&mut buffer);
        }
        if to.write_all(&passed).await.is_err() {
            return;
        }
    }
}

fn is_message(reply: &[u8]) -> bool {
    STARTS.iter().any(|start| reply.starts_with(start))
}

/// Returns the length of the reply at the start; `None` if it is incomplete.
fn reply_length(bytes: &[u8]) -> Option<usize> {
    let line = bytes.windows(2).position(|window| window == b"\r\n")? + 2;
    // Negative for a reply without a value.
    let number = || -> usize {
        let digits = std::str::from_utf8(&bytes[1..line - 2]).unwrap_or_default();
        digits.parse().unwrap_or(0)
    };
    let length = match bytes[0] {
        b'$' if bytes[1] != b'-' => line + number() + 2,
        b'*' => (0..number()).try_fold(line, |length, _| {
            Some(length + reply_length(bytes.get(length..)?)?)
        })?,
        _ => line,
    };
    (bytes.len() >= length).then_some(length)
}

fn contains(bytes: &[u8], text: &[u8]) -> bool {
    bytes.windows(text.len()).any(|window| window == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_end_where_the_next_one_begins() {
        for reply in [
            "+PONG\r\n",
            ":12\r\n",
            "$-1\r\n",
            "$0\r\n\r\n",
            "*0\r\n",
            "*3\r\n$10\r\nssubscribe\r\n$1\r\na\r\n:1\r\n",
            "*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$4\r\n\r\n\r\n\r\n",
        ] {
            let bytes = [reply.as_bytes(), b"+OK\r\n"].concat();
            assert_eq!(reply_length(&bytes), Some(reply.len()), "{reply:?}");
            for cut in 0..reply.len() {
                assert_eq!(reply_length(&bytes[..cut]), None, "{cut} of {reply:?}");
            }
        }
    }

    #[test]
    fn share_of_the_messages_is_dropped_while_the_loss_lives() {
        let drops = Arc::<Mutex<Drops>>::default();
        let proxy = LossyProxy {
            port: 0,
            server: Arc::default(),
            drops: drops.clone(),
        };
        let dropped = || (0..1_000).filter(|_| drops.lock().are_for(b"room")).count();
        let loss = proxy.drop_share(0.5);
        assert!((300..700).contains(&dropped()));
        assert!(!drops.lock().are_for(SENTINEL_CHANNEL));
        drop(loss);
        assert_eq!(dropped(), 0);
    }
}
