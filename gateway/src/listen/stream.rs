//! A client's socket while it uses HTTP. It records reads and writes in its
//! [`Activity`].

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::Instant,
};

use super::{activity::Activity, admission::SocketPermit};

/// Bytes that wait in the kernel to be sent before a socket takes no more: enough to keep it busy.
#[cfg(any(target_os = "linux", target_os = "android"))]
const MAX_UNSENT_BYTES: u32 = 128 * 1024;

/// A socket with its permit.
#[derive(Debug)]
pub struct HttpStream {
    stream: TcpStream,
    socket: SocketPermit,
    activity: Arc<Mutex<Activity>>,
}

impl HttpStream {
    pub(super) fn new(
        stream: TcpStream,
        socket: SocketPermit,
        activity: Arc<Mutex<Activity>>,
    ) -> Self {
        Self {
            stream,
            socket,
            activity,
        }
    }

    /// Returns the socket and its permit, for an upgrade.
    pub fn into_parts(self) -> (TcpStream, SocketPermit) {
        (self.stream, self.socket)
    }

    /// Limits the bytes that the kernel holds for the peer before it sends them. Without a limit up to
    /// 4 MiB that a client does not read would wait there, outside of every limit of the node.
    ///
    /// # Errors
    ///
    /// Errors of the socket option.
    pub(super) fn limit_unsent(&self) -> io::Result<()> {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        socket2::SockRef::from(&self.stream).set_tcp_notsent_lowat(MAX_UNSENT_BYTES)?;
        Ok(())
    }

    /// Disables Nagle's algorithm.
    pub(super) fn set_nodelay(&self) -> io::Result<()> {
        self.stream.set_nodelay(true)
    }

    fn wrote<T>(&self, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        match written {
            Poll::Pending => self.activity.lock().stalled(Instant::now()),
            Poll::Ready(_) => self.activity.lock().written(),
        }
        written
    }
}

impl AsyncRead for HttpStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.activity.lock().read(Instant::now());
        }
        read
    }
}

impl AsyncWrite for HttpStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.wrote(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bytes);
        self.wrote(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
