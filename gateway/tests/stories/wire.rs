//! A raw WebSocket, for frames that no client sends.
#![allow(unreachable_pub, reason = "tests have no outside")]

use std::{io::ErrorKind, net::SocketAddr, time::Duration};

use protocol::{
    Encoding,
    frame::{ServerFrame, encode_request},
    operation::session::Connect,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, Interest},
    net::TcpStream,
    time::timeout,
};

/// Maximum time to answer any input.
pub const ANSWER: Duration = Duration::from_secs(15);

pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;

/// The reaction to an input.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// A reply: its id, and its error's code unless it is a result.
    Reply(u32, Option<String>),
    /// A close frame.
    Closed(u16),
    /// The end of the connection without a close frame.
    Cut,
    /// No reaction.
    Silence,
}

/// An upgraded connection.
pub struct Raw {
    stream: TcpStream,
    encoding: Encoding,
    buffer: Vec<u8>,
    is_dead: bool,
}

impl Raw {
    /// Opens a connection and upgrades it.
    pub async fn open(address: SocketAddr, encoding: Encoding) -> Self {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let request = format!(
            "GET /v1/ws HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: {}\r\n\r\n",
            encoding.subprotocol()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut buffer = Vec::new();
        let end = loop {
            if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
            assert_ne!(
                timeout(ANSWER, stream.read_buf(&mut buffer))
                    .await
                    .unwrap()
                    .unwrap(),
                0,
                "no upgrade"
            );
        };
        assert!(
            buffer.starts_with(b"HTTP/1.1 101"),
            "{}",
            String::from_utf8_lossy(&buffer)
        );
        buffer.drain(..end);
        Self {
            stream,
            encoding,
            buffer,
            is_dead: false,
        }
    }

    /// Opens a connection, upgrades it and sends `connect`.
    pub async fn session(address: SocketAddr, encoding: Encoding, token: &str) -> Self {
        let mut raw = Self::open(address, encoding).await;
        let params = Connect {
            token: token.to_owned(),
            watch: protocol::operation::session::Watch::None,
            ..Connect::default()
        };
        raw.message(&encode_request(encoding, 1, "connect", &params))
            .await;
        assert_eq!(raw.outcome().await, Outcome::Reply(1, None));
        raw
    }

    /// Stops answering pings.
    pub fn plays_dead(&mut self) {
        self.is_dead = true;
    }

    /// Sends raw bytes. Fails if the peer has closed the connection.
    pub async fn bytes(&mut self, bytes: &[u8]) {
        let _: std::io::Result<()> = self.stream.write_all(bytes).await;
    }

    /// Sends a message in the session's encoding.
    pub async fn message(&mut self, payload: &[u8]) {
        let opcode = if self.encoding == Encoding::Json {
            TEXT
        } else {
            BINARY
        };
        self.bytes(&frame(true, opcode, payload)).await;
    }

    /// Closes the sending side.
    pub async fn hangs_up(&mut self) {
        let _: std::io::Result<()> = self.stream.shutdown().await;
    }

    /// Returns the next reply or the end of the connection; skips events and pings.
    pub async fn outcome(&mut self) -> Outcome {
        timeout(ANSWER, self.next())
            .await
            .unwrap_or(Outcome::Silence)
    }

    /// Sends these bytes repeatedly until the connection is closed. Answers are
    /// skipped.
    pub async fn floods(&mut self, bytes: &[u8]) -> Outcome {
        timeout(ANSWER, self.sends_endlessly(bytes))
            .await
            .unwrap_or(Outcome::Silence)
    }

    async fn sends_endlessly(&mut self, bytes: &[u8]) -> Outcome {
        let (mut at, mut interest) = (0, Interest::READABLE | Interest::WRITABLE);
        loop {
            let ready = self.stream.ready(interest).await.unwrap();
            if ready.is_readable() {
                match self.stream.try_read_buf(&mut self.buffer) {
                    Ok(0) => return Outcome::Cut,
                    Err(error) if error.kind() != ErrorKind::WouldBlock => return Outcome::Cut,
                    Ok(_) | Err(_) => {}
                }
                while let Some((opcode, payload)) = self.buffered() {
                    if opcode == 8 {
                        return closed(&payload);
                    }
                }
            }
            if interest.is_writable() && ready.is_writable() {
                match self.stream.try_write(&bytes[at..]) {
                    Ok(written) => at = (at + written) % bytes.len(),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    // Earlier frames can still be read.
                    Err(_) => interest = Interest::READABLE,
                }
            }
        }
    }

    async fn next(&mut self) -> Outcome {
        loop {
            let Some((opcode, payload)) = self.frame().await else {
                return Outcome::Cut;
            };
            match opcode {
                8 => return closed(&payload),
                TEXT | BINARY => match ServerFrame::decode(self.encoding, &payload).unwrap() {
                    ServerFrame::Reply { id, outcome } => {
                        return Outcome::Reply(
                            id,
                            outcome.err().map(|error| error.code.to_string()),
                        );
                    }
                    ServerFrame::Event(_) => {}
                },
                9 if !self.is_dead => self.bytes(&frame(true, 10, &payload)).await,
                _ => {}
            }
        }
    }

    /// Returns a complete frame of the buffer.
    fn buffered(&mut self) -> Option<(u8, Vec<u8>)> {
        let (header, length) = header(&self.buffer)?;
        let payload = self.buffer.get(header..header + length)?.to_vec();
        let opcode = self.buffer[0] & 0x0f;
        self.buffer.drain(..header + length);
        Some((opcode, payload))
    }

    /// Parses a complete, unmasked and unfragmented frame.
    async fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            if let Some(frame) = self.buffered() {
                return Some(frame);
            }
            match self.stream.read_buf(&mut self.buffer).await {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }
}

fn closed(payload: &[u8]) -> Outcome {
    Outcome::Closed(
        payload
            .get(..2)
            .map_or(1005, |code| u16::from_be_bytes([code[0], code[1]])),
    )
}

fn header(buffer: &[u8]) -> Option<(usize, usize)> {
    match buffer.get(1)? & 0x7f {
        126 => Some((
            4,
            usize::from(u16::from_be_bytes(buffer.get(2..4)?.try_into().unwrap())),
        )),
        127 => Some((
            10,
            u64::from_be_bytes(buffer.get(2..10)?.try_into().unwrap()) as usize,
        )),
        short => Some((2, usize::from(short))),
    }
}

/// Returns a client's frame, masked with zeros.
pub fn frame(fin: bool, opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = declared(fin, opcode, true, payload.len() as u64);
    bytes.extend([0, 0, 0, 0]);
    bytes.extend(payload);
    bytes
}

/// Returns the header of a frame with this length.
pub fn declared(fin: bool, opcode: u8, masked: bool, length: u64) -> Vec<u8> {
    let mut bytes = vec![u8::from(fin) << 7 | opcode];
    let mask = u8::from(masked) << 7;
    match length {
        0..126 => bytes.push(mask | length as u8),
        126..65_536 => {
            bytes.push(mask | 126);
            bytes.extend((length as u16).to_be_bytes());
        }
        _ => {
            bytes.push(mask | 127);
            bytes.extend(length.to_be_bytes());
        }
    }
    bytes
}

/// Sends bytes to an HTTP server, and returns the status, or `None` if it closes the connection
/// without one. Panics if there is no reaction.
pub async fn http(address: SocketAddr, bytes: &[u8]) -> Option<u16> {
    let answer = http_answer(address, bytes).await;
    let status = answer
        .strip_prefix("HTTP/1.1 ")
        .or_else(|| answer.strip_prefix("HTTP/1.0 "))?;
    status.get(..3)?.parse().ok()
}

/// Like `status_of`, and returns all bytes until the connection ends or becomes idle.
pub async fn http_answer(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let (mut reader, mut writer) = stream.split();
    let mut answer = Vec::new();
    let sending = async {
        let _: std::io::Result<()> = writer.write_all(bytes).await;
        std::future::pending::<()>().await;
    };
    let hearing = async {
        while let Ok(1..) = reader.read_buf(&mut answer).await {
            if is_whole(&answer) {
                return;
            }
        }
    };
    let heard = async {
        tokio::select! {
            () = sending => {}
            () = hearing => {}
        }
    };
    if timeout(ANSWER, heard).await.is_err() {
        panic!(
            "silence after {:?}, but for {:?}",
            String::from_utf8_lossy(&bytes[..bytes.len().min(200)]),
            String::from_utf8_lossy(&answer)
        );
    }
    String::from_utf8_lossy(&answer).into_owned()
}

fn is_whole(answer: &[u8]) -> bool {
    let text = String::from_utf8_lossy(answer);
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    let length = head.lines().find_map(|line| {
        line.to_ascii_lowercase()
            .strip_prefix("content-length: ")?
            .trim()
            .parse::<usize>()
            .ok()
    });
    length.is_none_or(|length| body.len() >= length)
}
