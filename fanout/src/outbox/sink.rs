//! Where an outbox writes to.

use std::io::{self, IoSlice};
use std::task::{Context, Poll};

use tokio::net::TcpStream;

/// A socket, or what stands for one. `WouldBlock` means: not now.
pub trait Sink: Send + Sync {
    /// Writes what fits, without waiting.
    fn try_write(&self, bytes: &[u8]) -> io::Result<usize>;

    /// Writes what fits of several buffers, without waiting.
    fn try_write_vectored(&self, buffers: &[IoSlice<'_>]) -> io::Result<usize>;

    /// Ready when a write may succeed again. Only the outbox's owner polls it.
    fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Whether any thread may write. If not (a TLS session), only the owner's [`drive`](super::Outbox::drive) does.
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
