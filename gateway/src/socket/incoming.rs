//! Reads a client's messages with tungstenite, with a deadline for each message and bounded
//! buffers.

use std::{
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use protocol::{CloseCode, Encoding};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Error as WsError, Message, error::ProtocolError, protocol::Role, protocol::WebSocketConfig,
    },
};

use super::{
    meter::TooManyFragments,
    wire::{ReaderBounds, Wire},
};
use crate::limit::NoRoom;

/// Size of tungstenite's read buffer, which it allocates for each connection and zeroes for each
/// read.
const READ_BUFFER: usize = 2 * 1024;

/// Returns the bounds of a reader for messages of at most `max_bytes`.
pub(super) fn bounds(max_bytes: Option<usize>) -> ReaderBounds {
    ReaderBounds {
        buffer: READ_BUFFER,
        message: max_bytes,
    }
}

/// An event of the reading side.
#[derive(Debug)]
pub(super) enum Input {
    Frame(Bytes),
    /// A control frame: a ping, pong or close.
    Control,
    /// An invalid message: the connection is closed with this reason.
    Invalid(CloseCode, &'static str),
    /// The node has no room for more unfinished messages: the connection is closed.
    NoRoom,
    Gone,
}

/// The reading side of a connection.
#[derive(Debug)]
pub(super) struct Incoming {
    websocket: WebSocketStream<Wire>,
    config: WebSocketConfig,
    encoding: Encoding,
    /// Maximum time from the first to the last bytes of a message.
    message_timeout: Duration,
    /// When the unfinished message began.
    unfinished_since: Option<Instant>,
}

impl Incoming {
    /// Reads messages within the [`bounds`] of the wire.
    pub(super) fn new(wire: Wire, encoding: Encoding, message_timeout: Duration) -> Self {
        let max_bytes = wire.bounds().message;
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(0)
            .max_message_size(max_bytes)
            .max_frame_size(max_bytes);
        Self {
            websocket: open(wire, config),
            config,
            encoding,
            message_timeout,
            unfinished_since: None,
        }
    }

    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>, now: Instant) -> Poll<Input> {
        loop {
            if let Poll::Ready(message) = self.websocket.poll_next_unpin(cx) {
                let input = input(message, self.encoding);
                if matches!(input, Input::Frame(_)) {
                    self.unfinished_since = None;
                }
                return Poll::Ready(input);
            }
            // The wire has no unread bytes: an unfinished message is in tungstenite's
            // buffers.
            let wire = self.websocket.get_ref();
            if !wire.is_between_messages() {
                self.unfinished_since.get_or_insert(now);
                return Poll::Pending;
            }
            self.unfinished_since = None;
            if wire.largest_payload() <= READ_BUFFER as u64 {
                return Poll::Pending;
            }
            // The buffer has grown for a large frame, and would keep its size.
            self.websocket = open(wire.renewed(), self.config);
        }
    }

    /// Counts unfinished messages for a tenant from now on.
    pub(super) fn belongs_to(&mut self, tenant: u64) {
        self.websocket.get_mut().belongs_to(tenant);
    }

    /// Suspends the deadline while the node does not read.
    pub(super) fn pause(&mut self) {
        self.unfinished_since = None;
    }

    /// Returns the deadline of the unfinished message.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.unfinished_since?.checked_add(self.message_timeout)
    }
}

fn open(wire: Wire, config: WebSocketConfig) -> WebSocketStream<Wire> {
    let opening = WebSocketStream::from_raw_socket(wire, Role::Server, Some(config));
    opening
        .now_or_never()
        .expect("a WebSocket without a handshake is open at once")
}

fn input(message: Option<Result<Message, WsError>>, encoding: Encoding) -> Input {
    let invalid = |code: CloseCode| Input::Invalid(code, code.reason());
    match (message, encoding) {
        (Some(Ok(Message::Binary(frame))), Encoding::MessagePack) => Input::Frame(frame),
        (Some(Ok(Message::Text(text))), Encoding::Json) => Input::Frame(text.into()),
        (Some(Ok(Message::Text(_))), Encoding::MessagePack) => Input::Invalid(
            CloseCode::BadFrame,
            "text in a MessagePack session: offer chaos.v1.json for JSON",
        ),
        (Some(Ok(Message::Binary(_))), Encoding::Json) => Input::Invalid(
            CloseCode::BadFrame,
            "binary in a JSON session: offer chaos.v1.msgpack for MessagePack",
        ),
        // tungstenite answers a close frame at the next poll, and then ends the stream.
        (
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Close(_) | Message::Frame(_))),
            _,
        ) => Input::Control,
        (None, _) => Input::Gone,
        (Some(Err(WsError::Capacity(_))), _) => invalid(CloseCode::FrameTooLarge),
        (Some(Err(WsError::Protocol(ProtocolError::ResetWithoutClosingHandshake))), _) => {
            Input::Gone
        }
        (Some(Err(WsError::Io(error))), _)
            if error
                .get_ref()
                .is_some_and(|inner| inner.is::<TooManyFragments>()) =>
        {
            invalid(CloseCode::FrameTooLarge)
        }
        (Some(Err(WsError::Io(error))), _)
            if error.get_ref().is_some_and(|inner| inner.is::<NoRoom>()) =>
        {
            Input::NoRoom
        }
        (Some(Err(WsError::Utf8(_) | WsError::Protocol(_))), _) => invalid(CloseCode::BadFrame),
        (Some(Err(_)), _) => Input::Gone,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::{future::poll_fn, sync::Arc};

    use fanout::{Outbox, outbox::OutboxLimits};
    use tokio::{
        io::AsyncWriteExt,
        net::{TcpListener, TcpStream},
    };

    use super::*;
    use crate::limit::Room;

    const PATIENCE: Duration = Duration::from_secs(30);

    /// Returns a client's socket, and the node's reading side of it.
    async fn connected() -> (TcpStream, Incoming) {
        connected_in(&Room::new(0)).await
    }

    async fn connected_in(room: &Arc<Room>) -> (TcpStream, Incoming) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let socket = Arc::new(listener.accept().await.unwrap().0);
        let outbox = Outbox::new(
            socket.clone(),
            fanout::FrameEncoding::Binary,
            OutboxLimits::new(usize::MAX, Duration::MAX, usize::MAX),
        );
        let wire = Wire::new(
            socket,
            Bytes::new(),
            outbox,
            bounds(Some(65_536)),
            room.share(1),
        );
        (client, Incoming::new(wire, Encoding::MessagePack, PATIENCE))
    }

    /// Returns a binary frame, masked with zeros.
    fn frame(first: u8, payload: usize) -> Vec<u8> {
        let mut bytes = vec![first, 0x80 | 126];
        bytes.extend(u16::try_from(payload).unwrap().to_be_bytes());
        bytes.extend(vec![0; 4 + payload]);
        bytes
    }

    /// Polls until there is an input, or until `holds` returns true.
    async fn reads_until(
        incoming: &mut Incoming,
        now: Instant,
        holds: impl Fn(&Incoming) -> bool,
    ) -> Option<Input> {
        let reading = poll_fn(|cx| match incoming.poll_next(cx, now) {
            Poll::Ready(input) => Poll::Ready(Some(input)),
            Poll::Pending if holds(incoming) => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        });
        tokio::time::timeout(Duration::from_secs(20), reading)
            .await
            .expect("it comes about")
    }

    #[tokio::test]
    async fn deadline_of_an_unfinished_message_is_not_extended_by_bytes_or_pings() {
        let (mut client, mut incoming) = connected().await;
        let begun = Instant::now();
        let large = frame(0x82, 60_000);
        client.write_all(&large[..8]).await.unwrap();
        assert!(
            reads_until(&mut incoming, begun, |incoming| incoming
                .deadline()
                .is_some())
            .await
            .is_none()
        );
        client.write_all(&large[8..50_000]).await.unwrap();
        let later = begun + PATIENCE / 2;
        let has_read = |incoming: &Incoming| {
            incoming.websocket.get_ref().missing_payload() == 60_000 - (50_000 - 8)
        };
        assert!(reads_until(&mut incoming, later, has_read).await.is_none());
        assert_eq!(incoming.deadline(), Some(begun + PATIENCE));
        client.write_all(&large[50_000..]).await.unwrap();
        assert!(
            matches!(reads_until(&mut incoming, later, |_| false).await, Some(Input::Frame(frame)) if frame.len() == 60_000)
        );
        assert_eq!(incoming.deadline(), None);

        client.write_all(&frame(0x02, 1000)).await.unwrap();
        assert!(
            reads_until(&mut incoming, begun, |incoming| incoming
                .deadline()
                .is_some())
            .await
            .is_none()
        );
        // A ping between the fragments.
        client.write_all(&[0x89, 0x80, 0, 0, 0, 0]).await.unwrap();
        assert!(matches!(
            reads_until(&mut incoming, later, |_| false).await,
            Some(Input::Control)
        ));
        assert_eq!(incoming.deadline(), Some(begun + PATIENCE));
    }

    #[tokio::test]
    async fn buffer_of_a_large_message_is_released() {
        let (mut client, mut incoming) = connected().await;
        for size in [60_000, 100, 60_000] {
            client.write_all(&frame(0x82, size)).await.unwrap();
            let input = reads_until(&mut incoming, Instant::now(), |_| false).await;
            assert!(matches!(input, Some(Input::Frame(frame)) if frame.len() == size));
            let has_small_buffer = |incoming: &Incoming| {
                incoming.websocket.get_ref().largest_payload() <= READ_BUFFER as u64
            };
            assert!(
                reads_until(&mut incoming, Instant::now(), has_small_buffer)
                    .await
                    .is_none()
            );
        }
    }

    #[tokio::test]
    async fn unfinished_messages_share_a_bound_and_small_ones_are_not_counted() {
        // One tenant may hold half of it.
        let room = Room::new(200_000);
        let now = Instant::now();
        let (mut first, mut one) = connected_in(&room).await;
        let (mut second, mut other) = connected_in(&room).await;
        let large = frame(0x82, 60_000);
        let holds = |bytes: usize| {
            let room = Arc::clone(&room);
            move |_: &Incoming| room.used() == bytes
        };
        // The header is enough: a reader makes room for the length in it.
        first.write_all(&large[..8]).await.unwrap();
        let read = reads_until(&mut one, now, holds(60_000)).await;
        assert!(read.is_none());
        second.write_all(&frame(0x82, 2000)).await.unwrap();
        let read = reads_until(&mut other, now, |_| false).await;
        assert!(matches!(read, Some(Input::Frame(_))));
        second.write_all(&large[..8]).await.unwrap();
        let read = reads_until(&mut other, now, |_| false).await;
        assert!(matches!(read, Some(Input::NoRoom)), "{read:?}");
        drop(other);
        assert_eq!(room.used(), 60_000);
        first.write_all(&large[8..]).await.unwrap();
        let read = reads_until(&mut one, now, |_| false).await;
        assert!(matches!(read, Some(Input::Frame(_))));
        assert!(reads_until(&mut one, now, holds(0)).await.is_none());
        // Fragments, each within the buffer, until the last one.
        for _ in 0..40 {
            let opcode = if room.used() == 0 { 0x02 } else { 0x00 };
            first.write_all(&frame(opcode, 1000)).await.unwrap();
            let before = room.used();
            let more = reads_until(&mut one, now, holds(before + 2000)).await;
            assert!(more.is_none());
        }
        let (mut third, mut last) = connected_in(&room).await;
        third.write_all(&large[..8]).await.unwrap();
        let read = reads_until(&mut last, now, |_| false).await;
        assert!(matches!(read, Some(Input::NoRoom)), "{read:?}");
        first.write_all(&frame(0x80, 1000)).await.unwrap();
        let read = reads_until(&mut one, now, |_| false).await;
        assert!(matches!(read, Some(Input::Frame(_))));
        assert!(reads_until(&mut one, now, holds(0)).await.is_none());
    }

    #[tokio::test]
    async fn message_beyond_the_frame_limit_is_too_large_whatever_room_is_left() {
        let (mut client, mut incoming) = connected_in(&Room::new(1)).await;
        let header = [&[0x82, 0xff][..], &u64::MAX.to_be_bytes(), &[0; 4]].concat();
        client.write_all(&header).await.unwrap();
        let read = reads_until(&mut incoming, Instant::now(), |_| false).await;
        let code = CloseCode::FrameTooLarge;
        assert!(matches!(read, Some(Input::Invalid(found, _)) if found == code));
    }
}
