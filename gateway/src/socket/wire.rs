//! The stream under tungstenite: reads from the socket, writes into the outbox.
//!
//! tungstenite reads the frames that come in and answers pings and closes; what it writes meets
//! everything else that leaves the connection in the one outbox, at frame boundaries.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use fanout::{Class, Outbox};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use super::{frame, meter::FrameMeter};
use crate::limit::Share;

/// A socket whose writing side is an outbox.
#[derive(Debug)]
pub(super) struct Wire {
    socket: Arc<TcpStream>,
    /// What was read along with the upgrade request.
    ahead: Bytes,
    outbox: Arc<Outbox>,
    meter: FrameMeter,
    bounds: Bounds,
    /// What tungstenite and `ahead` hold beyond a buffer of the usual size.
    held: Share,
}

/// What the reader of a [`Wire`] holds at most.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Bytes of its buffer unless a frame needs more.
    pub(super) buffer: usize,
    /// Bytes of the largest message, which it refuses as soon as a header announces more; `None`
    /// for no limit.
    pub(super) message: Option<usize>,
}

impl Wire {
    /// A stream over both.
    pub(super) fn new(
        socket: Arc<TcpStream>,
        ahead: Bytes,
        outbox: Arc<Outbox>,
        bounds: Bounds,
        held: Share,
    ) -> Self {
        Self {
            socket,
            ahead,
            outbox,
            meter: FrameMeter::default(),
            bounds,
            held,
        }
    }

    /// The same stream for a new reader, which has nothing of it in its buffer.
    pub(super) fn renewed(&self) -> Self {
        debug_assert!(
            self.ahead.is_empty() && self.is_between_messages(),
            "what a reader holds would be lost"
        );
        Self::new(
            self.socket.clone(),
            Bytes::new(),
            self.outbox.clone(),
            self.bounds,
            self.held.another(),
        )
    }

    /// Counts what it holds for a tenant from now on.
    pub(super) fn belongs_to(&mut self, tenant: u64) {
        self.held.change_group(tenant);
    }

    /// Returns whether everything that was read are whole messages.
    pub(super) fn is_between_messages(&self) -> bool {
        self.meter.is_between_messages()
    }

    /// Returns the length of the largest payload that was announced.
    pub(super) fn largest_payload(&self) -> u64 {
        self.meter.largest_payload()
    }

    /// Returns what its reader holds at most.
    pub(super) fn bounds(&self) -> Bounds {
        self.bounds
    }

    /// Follows the next bytes, before tungstenite makes room for what they announce.
    fn follow(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.meter.advance(bytes).map_err(io::Error::other)?;
        let largest = usize::try_from(self.meter.largest_payload()).unwrap_or(usize::MAX);
        if self.bounds.message.is_some_and(|most| largest > most) {
            return Ok(());
        }
        let fragments = usize::try_from(self.meter.fragment_bytes()).unwrap_or(usize::MAX);
        let buffer = if largest > self.bounds.buffer {
            largest
        } else {
            0
        };
        let held = buffer
            .saturating_add(fragments)
            .saturating_add(self.ahead.len());
        self.held.resize(held).map_err(io::Error::other)
    }

    #[cfg(test)]
    pub(super) fn missing_payload(&self) -> u64 {
        self.meter.missing_payload()
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let wire = self.get_mut();
        if wire.ahead.has_remaining() {
            let length = wire.ahead.len().min(buf.remaining());
            let bytes = wire.ahead.split_to(length);
            if wire.ahead.is_empty() {
                // An empty slice would keep its buffer alive.
                wire.ahead = Bytes::new();
            }
            wire.follow(&bytes)?;
            buf.put_slice(&bytes);
            return Poll::Ready(Ok(()));
        }
        loop {
            ready!(wire.socket.poll_read_ready(cx))?;
            match wire.socket.try_read(buf.initialize_unfilled()) {
                Ok(read) => {
                    wire.follow(&buf.initialize_unfilled()[..read])?;
                    buf.advance(read);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        // All of it at once: tungstenite flushes whole frames, and so they stay whole. Of pongs the
        // newest few are enough; the answer to a close must leave.
        let class = if bytes.first() == Some(&frame::CLOSE) {
            Class::Reply
        } else {
            Class::Control
        };
        Poll::Ready(
            match self.outbox.push(Bytes::copy_from_slice(bytes), class) {
                Ok(()) => Ok(bytes.len()),
                Err(reason) => Err(io::Error::new(io::ErrorKind::BrokenPipe, reason)),
            },
        )
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
