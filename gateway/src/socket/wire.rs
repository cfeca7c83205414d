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

/// A socket whose writing side is an outbox.
#[derive(Debug)]
pub(super) struct Wire {
    socket: Arc<TcpStream>,
    /// What was read along with the upgrade request.
    ahead: Bytes,
    outbox: Arc<Outbox>,
    meter: FrameMeter,
}

impl Wire {
    /// A stream over both.
    pub(super) fn new(socket: Arc<TcpStream>, ahead: Bytes, outbox: Arc<Outbox>) -> Self {
        Self {
            socket,
            ahead,
            outbox,
            meter: FrameMeter::default(),
        }
    }

    /// The same stream for a new reader, which has nothing of it in its buffer.
    pub(super) fn renewed(&self) -> Self {
        debug_assert!(
            self.ahead.is_empty() && self.is_between_messages(),
            "what a reader holds would be lost"
        );
        Self::new(self.socket.clone(), Bytes::new(), self.outbox.clone())
    }

    /// Returns whether everything that was read are whole messages.
    pub(super) fn is_between_messages(&self) -> bool {
        self.meter.is_between_messages()
    }

    /// Returns the length of the largest payload that was announced.
    pub(super) fn largest_payload(&self) -> u64 {
        self.meter.largest_payload()
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
            wire.meter.advance(&bytes).map_err(io::Error::other)?;
            buf.put_slice(&bytes);
            return Poll::Ready(Ok(()));
        }
        loop {
            ready!(wire.socket.poll_read_ready(cx))?;
            match wire.socket.try_read(buf.initialize_unfilled()) {
                Ok(read) => {
                    wire.meter
                        .advance(&buf.initialize_unfilled()[..read])
                        .map_err(io::Error::other)?;
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
