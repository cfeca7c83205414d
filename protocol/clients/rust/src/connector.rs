//! From an address to a session.

use std::{io, net::IpAddr, time::Duration};

use hyper::{
    HeaderMap, Uri,
    header::{HeaderName, HeaderValue, SEC_WEBSOCKET_PROTOCOL},
};
use protocol::{Encoding, ErrorBody, codec::DecodeError, params::Connect};
use tokio::{
    net::{TcpSocket, TcpStream, lookup_host},
    time::timeout,
};
use tokio_tungstenite::{
    client_async_with_config,
    tungstenite::{self, client::IntoClientRequest, protocol::WebSocketConfig},
};

use crate::{
    Closed, Events, RequestError, Session, Socket,
    session::{self, Unawaited},
};

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The address is none that this client can use.
    #[error("not an address of a node: {0}")]
    Address(String),
    /// The TCP connection could not be made.
    #[error("cannot reach the node: {0}")]
    Unreachable(#[from] io::Error),
    /// The upgrade was answered with an HTTP status other than 101.
    #[error("the upgrade was refused with HTTP {status}: {body}")]
    Upgrade {
        /// The status.
        status: u16,
        /// The body, as text.
        body: String,
    },
    /// The upgrade failed in another way.
    #[error("the upgrade failed: {0}")]
    Handshake(String),
    /// `connect` was answered with an error.
    #[error("connect was refused: {error}")]
    Refused {
        /// The answer.
        error: ErrorBody,
        /// How the server closed the connection afterwards.
        closed: Closed,
    },
    /// The connection ended before `connect` was answered.
    #[error(transparent)]
    Closed(#[from] Closed),
    /// The answer to `connect` cannot be read.
    #[error("the answer to connect cannot be read: {0}")]
    Unreadable(#[from] DecodeError),
    /// It took longer than [`Connector::timeout`].
    #[error("connecting took too long")]
    Timeout,
}

impl ConnectError {
    pub(crate) fn refused(error: RequestError, closed: impl FnOnce() -> Closed) -> Self {
        match error {
            RequestError::Refused(error) => Self::Refused {
                error,
                closed: closed(),
            },
            RequestError::Closed(closed) => Self::Closed(closed),
            RequestError::Timeout => Self::Timeout,
            RequestError::Unreadable(error) => Self::Unreadable(error),
        }
    }
}

/// Makes connections to one address. Cheap to clone, and can be used any number of times.
#[derive(Debug, Clone)]
pub struct Connector {
    uri: Uri,
    encoding: Encoding,
    headers: HeaderMap,
    timeout: Duration,
    event_queue: usize,
    unawaited: Unawaited,
    read_buffer: usize,
    receive_buffer: Option<u32>,
    local_address: Option<IpAddr>,
}

/// Connects once, with the defaults of [`Connector`].
pub async fn connect(
    address: &str,
    encoding: Encoding,
    params: &Connect,
) -> Result<(Session, Events), ConnectError> {
    Connector::new(address, encoding)?.connect(params).await
}

impl Connector {
    /// For an address like `ws://host:port`; `http://` is taken too, and `/v1/ws` is the path if there is none.
    pub fn new(address: &str, encoding: Encoding) -> Result<Self, ConnectError> {
        let invalid = |why: String| ConnectError::Address(format!("{address}: {why}"));
        let mut parts = address
            .parse::<Uri>()
            .map_err(|e| invalid(e.to_string()))?
            .into_parts();
        match parts.scheme.as_ref().map(|s| s.as_str()) {
            Some("ws" | "http") => parts.scheme = "ws".parse().ok(),
            _ => return Err(invalid("it begins with ws:// or http://".into())),
        }
        if parts.path_and_query.as_ref().is_none_or(|p| p == "/") {
            parts.path_and_query = Some(
                protocol::WEBSOCKET_PATH
                    .parse()
                    .expect("the path of the wire is one"),
            );
        }
        let uri = Uri::from_parts(parts).map_err(|e| invalid(e.to_string()))?;
        let mut headers = HeaderMap::new();
        headers.insert(
            SEC_WEBSOCKET_PROTOCOL,
            HeaderValue::from_static(encoding.subprotocol()),
        );
        Ok(Self {
            uri,
            encoding,
            headers,
            timeout: Duration::from_secs(10),
            event_queue: 256,
            unawaited: Unawaited::Dropped,
            read_buffer: 4096,
            receive_buffer: None,
            local_address: None,
        })
    }

    /// How long connecting, and afterwards each request, may take. Default 10 s.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// How many events wait for [`Events::next`] before the client stops reading its socket. Default 256.
    pub fn event_queue(mut self, frames: usize) -> Self {
        self.event_queue = frames.max(1);
        self
    }

    /// Replies that nobody awaits come among the events, where the server sent them.
    pub(crate) fn queue_replies(mut self) -> Self {
        self.unawaited = Unawaited::Queued;
        self
    }

    /// Bytes of the buffer that each connection holds for reading. Default 4096, so that thousands fit.
    pub fn read_buffer(mut self, bytes: usize) -> Self {
        self.read_buffer = bytes;
        self
    }

    /// Asks the system for a receive buffer of this many bytes: a small one makes a stalled reader felt soon.
    pub fn receive_buffer(mut self, bytes: u32) -> Self {
        self.receive_buffer = Some(bytes);
        self
    }

    /// Connects from this address: one address has some 28,000 ports.
    pub fn local_address(mut self, address: IpAddr) -> Self {
        self.local_address = Some(address);
        self
    }

    /// A header of the upgrade, in place of one of the same name: `Origin`, `X-Forwarded-For`, or another `Sec-WebSocket-Protocol`.
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    /// Leaves a header of the upgrade out: without `Sec-WebSocket-Protocol` the session is a MessagePack one.
    pub fn without_header(mut self, name: &HeaderName) -> Self {
        self.headers.remove(name);
        self
    }

    /// Upgrades a connection, and sends nothing on it yet.
    pub async fn open(&self) -> Result<Socket, ConnectError> {
        timeout(self.timeout, self.upgrade())
            .await
            .map_err(|_| ConnectError::Timeout)?
    }

    /// Opens a connection, and its session with `connect`.
    pub async fn connect(&self, params: &Connect) -> Result<(Session, Events), ConnectError> {
        self.open().await?.connect(params).await
    }

    async fn upgrade(&self) -> Result<Socket, ConnectError> {
        let stream = self.dial().await?;
        let mut request = (&self.uri)
            .into_client_request()
            .map_err(|e| ConnectError::Address(e.to_string()))?;
        request.headers_mut().extend(self.headers.clone());
        let mut config = WebSocketConfig::default();
        config.read_buffer_size = self.read_buffer;
        config.write_buffer_size = 4096;
        let (stream, _) = client_async_with_config(request, stream, Some(config))
            .await
            .map_err(|error| match error {
                tungstenite::Error::Http(response) => ConnectError::Upgrade {
                    status: response.status().as_u16(),
                    body: response
                        .body()
                        .as_deref()
                        .map(|b| String::from_utf8_lossy(b).into_owned())
                        .unwrap_or_default(),
                },
                tungstenite::Error::Io(error) => ConnectError::Unreachable(error),
                other => ConnectError::Handshake(other.to_string()),
            })?;
        let settings = session::Settings {
            encoding: self.encoding,
            timeout: self.timeout,
            event_queue: self.event_queue,
            unawaited: self.unawaited,
        };
        Ok(Socket::new(stream, settings))
    }

    async fn dial(&self) -> Result<TcpStream, ConnectError> {
        let host = self.uri.host().unwrap_or_default().trim_matches(['[', ']']);
        let mut failure = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
        for address in lookup_host((host, self.uri.port_u16().unwrap_or(80))).await? {
            let socket = if address.is_ipv4() {
                TcpSocket::new_v4()?
            } else {
                TcpSocket::new_v6()?
            };
            socket.set_nodelay(true)?;
            if let Some(bytes) = self.receive_buffer {
                socket.set_recv_buffer_size(bytes)?;
            }
            if let Some(local) = self.local_address {
                socket.bind((local, 0).into())?;
            }
            match socket.connect(address).await {
                Ok(stream) => return Ok(stream),
                Err(error) => failure = error,
            }
        }
        Err(failure.into())
    }
}
