//! The destination of an outbox.

use std::io::{self, IoSlice};
use std::task::{Context, Poll};

use tokio::net::TcpStream;

/// A socket. `WouldBlock` means that it accepts no bytes now.
pub trait Sink: Send + Sync {
    /// Writes without blocking.
    fn try_write(&self, bytes: &[u8]) -> io::Result<usize>;

    /// Writes several buffers without blocking.
    fn try_write_vectored(&self, buffers: &[IoSlice<'_>]) -> io::Result<usize>;

    /// Returns ready when a write may succeed. Only the outbox's owner polls it.
    fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Returns whether any thread may write. If not (a TLS session), only the owner's
    /// [`drive`](super::Outbox::drive) writes.
    fn is_direct(&self) -> bool {
        true
    }
}

impl Sink for TcpStream {
    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        TcpStream::try_write(self, bytes)
    }

    fn try_write_vectored(&self, buffers: &[IoSlice<'_>]) -> io::Result<usize> {
        TcpStream::try_write_vectored(self, buffers)
    }

    fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        TcpStream::poll_write_ready(self, cx)
    }
}
