//! The accept loop and the HTTP connections that it serves.
//!
//! Owned here: which connections are accepted, and their timeouts. An error of a connection ends
//! that connection alone. Left out: what requests do (`rest`), and connections after an upgrade
//! (`socket`).

mod activity;
mod admission;
mod stream;

use std::{
    convert::Infallible,
    future::poll_fn,
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{Router, body::Body, extract::ConnectInfo};
use bytes::Bytes;
use fanout::LogRateLimit;
use http_body::{Frame, SizeHint};
use hyper::{Request, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::{
    net::{TcpListener, TcpStream},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt;

use self::activity::{Activity, Overdue};
pub use self::{
    admission::{
        Admission, SocketBudget, SocketPermit, descriptor_limit, max_descriptor_limit,
        raise_descriptor_limit,
    },
    stream::HttpStream,
};

/// Maximum bytes of a request line and its headers.
const HEADER_BYTES: usize = 32 * 1024;
/// Pause after an accept that failed because a resource was exhausted.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(50);
/// Maximum number of connections that wait to be accepted. Reconnects come in bursts.
const BACKLOG: u32 = 4096;
/// Response to a refused connection. Its request is not read.
const REFUSAL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\ncontent-length: 87\r\nretry-after: 1\r\n\
connection: close\r\n\r\n{\"error\":{\"code\":\"unavailable\",\"message\":\"too many connections\",\"retry_after_ms\":1000}}";

/// The service of a listener, and the clients that it accepts.
#[derive(Debug)]
pub struct HttpServer {
    /// The routes.
    pub router: Router,
    /// Decides which connections are accepted.
    pub admission: Admission,
    /// Maximum idle time of a kept-alive connection between two requests.
    pub idle: Duration,
}

/// Binds an address.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        tokio::net::TcpSocket::new_v4()?
    } else {
        tokio::net::TcpSocket::new_v6()?
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Accepts until the token is cancelled; then running requests are finished.
pub async fn accept(listener: TcpListener, server: HttpServer, stop: CancellationToken) {
    static FAILURES: LogRateLimit = LogRateLimit::new(1);
    static REFUSALS: LogRateLimit = LogRateLimit::new(1);
    let requests = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => match server.admission.admit(peer.ip()) {
                Ok(admission::Admitted { socket, http }) => {
                    let activity = Arc::new(Mutex::new(Activity::new(server.idle, Instant::now())));
                    let stream = HttpStream::new(stream, socket, Arc::clone(&activity));
                    let connection =
                        serve(stream, peer, server.router.clone(), activity, stop.clone());
                    requests.spawn(async move {
                        let _http = http;
                        connection.await;
                    });
                }
                Err(limit) => {
                    refuse(&stream);
                    if let Some(suppressed) = REFUSALS.pass(std::time::Instant::now()) {
                        tracing::warn!(peer = %peer.ip(), limit, suppressed, "connection refused");
                    }
                }
            },
            // The peer gave up before it was accepted.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
                ) => {}
            Err(error) => {
                if let Some(suppressed) = FAILURES.pass(std::time::Instant::now()) {
                    tracing::warn!(%error, suppressed, "cannot accept a connection");
                }
                tokio::time::sleep(ACCEPT_BACKOFF).await;
            }
        }
    }
    drop(listener);
    requests.close();
    requests.wait().await;
}

/// Sends the refusal to a connection, if a single write succeeds.
fn refuse(stream: &TcpStream) {
    let socket = socket2::SockRef::from(stream);
    if socket.send(REFUSAL).is_ok() {
        let _: io::Result<()> = socket.shutdown(std::net::Shutdown::Write);
    }
}

async fn serve(
    stream: HttpStream,
    peer: SocketAddr,
    router: Router,
    activity: Arc<Mutex<Activity>>,
    stop: CancellationToken,
) {
    if let Err(error) = stream.limit_unsent() {
        tracing::debug!(%error, "TCP_NOTSENT_LOWAT was not set");
    }
    if let Err(error) = stream.set_nodelay() {
        tracing::debug!(%error, "TCP_NODELAY was not set");
    }
    let service = service_fn(|mut request: Request<Incoming>| {
        activity.lock().request();
        request.extensions_mut().insert(ConnectInfo(peer));
        let (router, activity) = (router.clone(), Arc::clone(&activity));
        async move {
            let response = router
                .oneshot(request.map(Body::new))
                .await
                .unwrap_or_else(|never| match never {});
            Ok::<_, Infallible>(response.map(|body| Tracked { body, activity }))
        }
    });
    // The deadlines of hyper count a rest between two requests as the time of the second one's
    // headers.
    // A client may close its side of the connection once it has sent its request.
    let connection = http1::Builder::new()
        .half_close(true)
        .header_read_timeout(None)
        .max_buf_size(HEADER_BYTES)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = pin!(connection);
    let mut stopping = pin!(stop.cancelled());
    let mut is_stopping = false;
    let mut timer = pin!(tokio::time::sleep(Duration::ZERO));
    let ended = poll_fn(|cx| {
        if !is_stopping && stopping.as_mut().poll(cx).is_ready() {
            is_stopping = true;
            connection.as_mut().graceful_shutdown();
        }
        if let Poll::Ready(served) = connection.as_mut().poll(cx) {
            return Poll::Ready(served.map_err(Ended::Failed));
        }
        // Looked at after every turn, since each of them may bring a deadline forward; compared
        // with the clock and not with the timer, which a busy socket may leave no budget for.
        loop {
            let Some((at, overdue)) = activity.lock().deadline() else {
                return Poll::Pending;
            };
            if Instant::now() >= at {
                return Poll::Ready(Err(Ended::Overdue(overdue)));
            }
            // A deadline that moved back is noticed when the timer fires at the old one.
            if at < timer.deadline() || timer.is_elapsed() {
                timer.as_mut().reset(at);
            }
            ready!(timer.as_mut().poll(cx));
        }
    })
    .await;
    match ended {
        Ok(()) => {}
        Err(Ended::Failed(error)) => tracing::debug!(%error, %peer, "HTTP connection ended"),
        Err(Ended::Overdue(overdue)) => {
            tracing::debug!(?overdue, %peer, "HTTP connection closed, it was too slow")
        }
    }
}

/// Why a connection ended.
enum Ended {
    Failed(hyper::Error),
    Overdue(Overdue),
}

/// A response's body. The connection is idle again when it is dropped.
struct Tracked {
    body: Body,
    activity: Arc<Mutex<Activity>>,
}

impl http_body::Body for Tracked {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        self.activity.lock().responded(Instant::now());
    }
}
