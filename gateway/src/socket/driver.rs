//! Drives a connection's socket and outbox, and closes them.

use std::{
    future::Future,
    net::Shutdown,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use fanout::{Outbox, outbox::Reason};
use futures_util::FutureExt;
use protocol::Encoding;
use tokio::{net::TcpStream, time::Sleep};

use super::{
    connections::Connections,
    incoming::{self, Incoming, Input},
    wire::Wire,
};
use crate::{limit::STRANGERS, listen::SocketPermit, sessions::Session};

/// Maximum time from the close frame to the end of the connection.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// Interval of checks of the age of queued frames.
const OUTBOX_CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// Maximum number of bytes that are read and dropped after the close frame.
const MAX_DISCARDED_BYTES: usize = 1024 * 1024;

/// Reads a socket and drives its outbox.
pub(super) struct SocketDriver {
    socket: Arc<TcpStream>,
    pub(super) permit: SocketPermit,
    pub(super) outbox: Arc<Outbox>,
    pub(super) incoming: Incoming,
    pub(super) encoding: Encoding,
}

/// An event for the connection's task.
pub(super) enum DriverEvent {
    Input(Input),
    Over(Reason),
    /// Actions of the session may be due.
    Due,
    /// The hub ended a subscription of the session.
    SubscriptionEnded,
}

impl SocketDriver {
    pub(super) fn new(
        connections: &Connections,
        socket: TcpStream,
        permit: SocketPermit,
        read_ahead: Bytes,
        encoding: Encoding,
    ) -> Self {
        let socket = Arc::new(socket);
        let frames = match encoding {
            Encoding::MessagePack => fanout::FrameEncoding::Binary,
            Encoding::Json => fanout::FrameEncoding::Text,
        };
        let outbox = Outbox::new(socket.clone(), frames, connections.outboxes.clone());
        let max_bytes = (connections.frame_bytes != 0).then_some(connections.frame_bytes);
        let wire = Wire::new(
            socket.clone(),
            read_ahead,
            outbox.clone(),
            incoming::bounds(max_bytes),
            connections.requests.share(STRANGERS),
        );
        let incoming = Incoming::new(wire, encoding, connections.outboxes.age);
        Self {
            socket,
            permit,
            outbox,
            incoming,
            encoding,
        }
    }

    /// Drives the outbox and reads the socket. Without a `session`, only input and the timer are
    /// polled.
    pub(super) fn poll_event(
        &mut self,
        cx: &mut Context<'_>,
        mut timer: Pin<&mut Sleep>,
        session: Option<&Arc<Session>>,
    ) -> Poll<DriverEvent> {
        if let Poll::Ready(reason) = self.outbox.poll_drive(cx) {
            return Poll::Ready(DriverEvent::Over(reason));
        }
        // The outbox is closed, but the peer has not read all of it: it has the close timeout to do
        // so.
        if let Some(reason) = self.outbox.end_reason() {
            return Poll::Ready(DriverEvent::Over(reason));
        }
        if self.outbox.queued_bytes() > 0
            && timer.deadline() > (Instant::now() + OUTBOX_CHECK_INTERVAL).into()
        {
            timer
                .as_mut()
                .reset((Instant::now() + OUTBOX_CHECK_INTERVAL).into());
        }
        // The timer is compared before the socket is read: a flood of frames uses up the task's
        // budget, and then polling the timer always returns pending.
        if tokio::time::Instant::now() >= timer.deadline()
            || session.is_some_and(|session| session.has_changed(cx))
        {
            return Poll::Ready(DriverEvent::Due);
        }
        if session.is_some() && self.outbox.take_ended_subscription() {
            return Poll::Ready(DriverEvent::SubscriptionEnded);
        }
        if session.is_none_or(|session| session.flow().has_room(cx)) {
            if let Poll::Ready(input) = self.incoming.poll_next(cx, Instant::now()) {
                return Poll::Ready(DriverEvent::Input(input));
            }
        } else {
            self.incoming.pause();
        }
        // Before the session, the deadline of the `connect` applies.
        if session.is_some()
            && let Some(deadline) = self.incoming.deadline()
            && timer.deadline() > deadline.into()
        {
            timer.as_mut().reset(deadline.into());
        }
        timer.poll(cx).map(|()| DriverEvent::Due)
    }

    /// Returns when the peer has disconnected, as far as that is visible without reading its data.
    pub(super) async fn gone(&self) {
        loop {
            match self.socket.peek(&mut [0]).await {
                Ok(0) => return,
                // Early requests are read after the `connect`, and hide a disconnection until then.
                Ok(_) => std::future::pending().await,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    }

    /// Writes as much as one call accepts, and closes the connection, since sockets are scarce.
    pub(super) fn close_at_once(self) {
        let _ = self.outbox.drive().now_or_never();
        let _: std::io::Result<()> =
            socket2::SockRef::from(&*self.socket).shutdown(Shutdown::Write);
        self.outbox.fail(Reason::Broken);
    }

    /// Closes the connection so that the close frame arrives. Data from the peer are read and
    /// dropped meanwhile: closing a socket with unread data resets it, and the peer may lose the
    /// close frame.
    pub(super) async fn close_gracefully(self) {
        let closing = async {
            // The outbox was closed, so this returns once the close frame is written.
            self.outbox.drive().await;
            let _: std::io::Result<()> =
                socket2::SockRef::from(&*self.socket).shutdown(Shutdown::Write);
            let (mut buffer, mut left) = ([0u8; 4096], MAX_DISCARDED_BYTES);
            while self.socket.readable().await.is_ok() {
                match self.socket.try_read(&mut buffer) {
                    Ok(0) => return,
                    Ok(read) if read < left => left -= read,
                    Ok(_) => return,
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                    Err(_) => return,
                }
            }
        };
        let _: Result<(), _> = tokio::time::timeout(CLOSE_TIMEOUT, Box::pin(closing)).await;
        self.outbox.fail(Reason::Broken);
    }
}
