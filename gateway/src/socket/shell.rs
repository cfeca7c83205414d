//! The socket of a connection and its outbox: what wakes the connection's task, and how they end.

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
use crate::{limit::STRANGERS, listen::Socket, sessions::Session};

/// Maximum time from the close frame to the end of the connection.
const PARTING: Duration = Duration::from_secs(2);
/// How often the age of what waits for a slow reader is looked at.
const AGING: Duration = Duration::from_secs(1);
/// Maximum number of bytes that are read and dropped after the close frame.
const PARTING_BYTES: usize = 1024 * 1024;

/// The only reader of a socket, and the owner of its outbox.
pub(super) struct Shell {
    socket: Arc<TcpStream>,
    pub(super) place: Socket,
    pub(super) outbox: Arc<Outbox>,
    pub(super) incoming: Incoming,
    pub(super) encoding: Encoding,
}

/// What the connection's task wakes up for.
pub(super) enum Event {
    Input(Input),
    Over(Reason),
    Due,
    /// The hub ended a subscription of the session.
    SubscriptionEnded,
    /// Subscriptions outside of requests are to be begun.
    Steps,
}

impl Shell {
    pub(super) fn new(
        connections: &Connections,
        socket: TcpStream,
        place: Socket,
        ahead: Bytes,
        encoding: Encoding,
    ) -> Self {
        let socket = Arc::new(socket);
        let frames = match encoding {
            Encoding::MessagePack => fanout::Encoding::Binary,
            Encoding::Json => fanout::Encoding::Text,
        };
        let outbox = Outbox::new(socket.clone(), frames, connections.outboxes.clone());
        let max_bytes = (connections.frame_bytes != 0).then_some(connections.frame_bytes);
        let wire = Wire::new(
            socket.clone(),
            ahead,
            outbox.clone(),
            incoming::bounds(max_bytes),
            connections.requests.share(STRANGERS),
        );
        let incoming = Incoming::new(wire, encoding, connections.outboxes.age);
        Self {
            socket,
            place,
            outbox,
            incoming,
            encoding,
        }
    }

    /// Drives the outbox and reads the socket. Without a `session`, only input and the timer count.
    pub(super) fn poll_event(
        &mut self,
        cx: &mut Context<'_>,
        mut timer: Pin<&mut Sleep>,
        session: Option<&Arc<Session>>,
    ) -> Poll<Event> {
        if let Poll::Ready(reason) = self.outbox.poll_drive(cx) {
            return Poll::Ready(Event::Over(reason));
        }
        // Closed, but its reader does not take the rest: it has the time of the parting for that,
        // and no more.
        if let Some(reason) = self.outbox.end_reason() {
            return Poll::Ready(Event::Over(reason));
        }
        if self.outbox.queued_bytes() > 0 && timer.deadline() > (Instant::now() + AGING).into() {
            timer.as_mut().reset((Instant::now() + AGING).into());
        }
        // Compared before anything is read: a flood of frames uses up the budget of the task, and a
        // timer polled behind it never fires.
        if tokio::time::Instant::now() >= timer.deadline()
            || session.is_some_and(|session| session.is_refreshed(cx))
        {
            return Poll::Ready(Event::Due);
        }
        if session.is_some() && self.outbox.take_ended_subscription() {
            return Poll::Ready(Event::SubscriptionEnded);
        }
        if session.is_some_and(|session| session.has_steps()) {
            return Poll::Ready(Event::Steps);
        }
        if session.is_none_or(|session| session.flow().has_room(cx)) {
            if let Poll::Ready(input) = self.incoming.poll_next(cx, Instant::now()) {
                return Poll::Ready(Event::Input(input));
            }
        } else {
            self.incoming.pause();
        }
        // Before there is a session, its `connect` has a deadline of its own.
        if session.is_some()
            && let Some(deadline) = self.incoming.deadline()
            && timer.deadline() > deadline.into()
        {
            timer.as_mut().reset(deadline.into());
        }
        timer.poll(cx).map(|()| Event::Due)
    }

    /// Returns when the peer is gone, as far as that can be known without reading what it sent.
    pub(super) async fn gone(&self) {
        loop {
            match self.socket.peek(&mut [0]).await {
                Ok(0) => return,
                // Requests that come early are read after the `connect`, and hide what follows
                // them.
                Ok(_) => std::future::pending().await,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    }

    /// Ends the connection with what one write takes: its socket is needed.
    pub(super) fn part_at_once(self) {
        let _ = self.outbox.drive().now_or_never();
        let _: std::io::Result<()> =
            socket2::SockRef::from(&*self.socket).shutdown(Shutdown::Write);
        self.outbox.fail(Reason::Broken);
    }

    /// Lets the close frame arrive: what the peer still sends is read and thrown away, since
    /// closing a socket with unread bytes would reset it and might take the close frame along.
    pub(super) async fn part(self) {
        let parting = async {
            // Closed before this, it ends once the close frame is written, whatever the reason that
            // it gives.
            self.outbox.drive().await;
            let _: std::io::Result<()> =
                socket2::SockRef::from(&*self.socket).shutdown(Shutdown::Write);
            let (mut buffer, mut left) = ([0u8; 4096], PARTING_BYTES);
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
        let _: Result<(), _> = tokio::time::timeout(PARTING, Box::pin(parting)).await;
        self.outbox.fail(Reason::Broken);
    }
}
