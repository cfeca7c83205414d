//! The stream below tungstenite: reads from the socket, writes into the outbox.
//!
//! tungstenite parses incoming frames and answers pings and closes. Its frames go through the same
//! outbox as all other frames of the connection.

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
    /// Bytes that were read along with the upgrade request.
    read_ahead: Bytes,
    outbox: Arc<Outbox>,
    meter: FrameMeter,
    bounds: ReaderBounds,
    /// Memory of tungstenite and `read_ahead` beyond a buffer of the default size.
    held: Share,
}

/// Bounds of the memory of a [`Wire`]'s reader.
#[derive(Debug, Clone, Copy)]
pub(super) struct ReaderBounds {
    /// Bytes of its buffer, unless a frame needs more.
    pub(super) buffer: usize,
    /// Maximum bytes of a message, refused as soon as a header announces more; `None`
    /// for no limit.
    pub(super) message: Option<usize>,
}

impl Wire {
    /// Creates a stream over a socket and an outbox.
    pub(super) fn new(
        socket: Arc<TcpStream>,
        read_ahead: Bytes,
        outbox: Arc<Outbox>,
        bounds: ReaderBounds,
        held: Share,
    ) -> Self {
        Self {
            socket,
            read_ahead,
            outbox,
            meter: FrameMeter::default(),
            bounds,
            held,
        }
    }

    /// Returns the same stream for a new reader with an empty buffer.
    pub(super) fn renewed(&self) -> Self {
        debug_assert!(
            self.read_ahead.is_empty() && self.is_between_messages(),
            "the data in the reader's buffer would be lost"
        );
        Self::new(
            self.socket.clone(),
            Bytes::new(),
            self.outbox.clone(),
            self.bounds,
            self.held.another(),
        )
    }

    /// Counts the bytes that it holds towards this tenant from now on.
    pub(super) fn belongs_to(&mut self, tenant: u64) {
        self.held.change_group(tenant);
    }

    /// Returns whether all messages that were read are complete.
    pub(super) fn is_between_messages(&self) -> bool {
        self.meter.is_between_messages()
    }

    /// Returns the length of the largest payload that a header announced.
    pub(super) fn largest_payload(&self) -> u64 {
        self.meter.largest_payload()
    }

    /// Returns the bounds of its reader.
    pub(super) fn bounds(&self) -> ReaderBounds {
        self.bounds
    }

    /// Accounts for the next bytes, before tungstenite allocates memory for them.
    fn account(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.meter.advance(bytes).map_err(io::Error::other)?;
        let largest = usize::try_from(self.meter.largest_payload()).unwrap_or(usize::MAX);
        if self.bounds.message.is_some_and(|max| largest > max) {
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
            .saturating_add(self.read_ahead.len());
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
        if wire.read_ahead.has_remaining() {
            let length = wire.read_ahead.len().min(buf.remaining());
            let bytes = wire.read_ahead.split_to(length);
            if wire.read_ahead.is_empty() {
                // An empty slice would keep its buffer alive.
                wire.read_ahead = Bytes::new();
            }
            wire.account(&bytes)?;
            buf.put_slice(&bytes);
            return Poll::Ready(Ok(()));
        }
        loop {
            ready!(wire.socket.poll_read_ready(cx))?;
            match wire.socket.try_read(buf.initialize_unfilled()) {
                Ok(read) => {
                    wire.account(&buf.initialize_unfilled()[..read])?;
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
        // tungstenite writes whole frames, so each push is a whole frame. Old pongs may be dropped;
        // the answer to a close may not.
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
