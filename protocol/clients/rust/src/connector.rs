//! Connecting to a node.

use std::{io, net::IpAddr, time::Duration};

use hyper::{
    HeaderMap, Uri,
    header::{HeaderName, HeaderValue, SEC_WEBSOCKET_PROTOCOL},
};
use protocol::{Encoding, operation::session::Connect};
use tokio::{
    net::{TcpSocket, TcpStream, lookup_host},
    time::timeout,
};
use tokio_tungstenite::{
    client_async_with_config,
    tungstenite::{self, client::IntoClientRequest, protocol::WebSocketConfig},
};

use crate::{
    ConnectError, Events, Session, Socket,
    session::{self, UnawaitedReplies},
};

/// Connects to one address, any number of times. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Connector {
    uri: Uri,
    encoding: Encoding,
    headers: HeaderMap,
    timeout: Duration,
    event_queue: usize,
    unawaited: UnawaitedReplies,
    read_buffer: usize,
    receive_buffer: Option<u32>,
    local_address: Option<IpAddr>,
}

/// Connects with the defaults of [`Connector`].
pub async fn connect(
    address: &str,
    encoding: Encoding,
    params: &Connect,
) -> Result<(Session, Events), ConnectError> {
    Connector::new(address, encoding)?.connect(params).await
}

impl Connector {
    /// Creates a connector for an address like `ws://host:port`. `http://` is accepted, and the
    /// default path is `/v1/ws`.
    pub fn new(address: &str, encoding: Encoding) -> Result<Self, ConnectError> {
        let invalid = |why: String| ConnectError::Address(format!("{address}: {why}"));
        let mut parts = address
            .parse::<Uri>()
            .map_err(|e| invalid(e.to_string()))?
            .into_parts();
        match parts.scheme.as_ref().map(|s| s.as_str()) {
            Some("ws" | "http") => parts.scheme = "ws".parse().ok(),
            Some("wss" | "https") => {
                return Err(invalid(
                    "this client does not speak TLS: give the ws:// address of the node itself"
                        .into(),
                ));
            }
            _ => return Err(invalid("must begin with ws:// or http://".into())),
        }
        if parts.path_and_query.as_ref().is_none_or(|p| p == "/") {
            parts.path_and_query = Some(
                protocol::WEBSOCKET_PATH
                    .parse()
                    .expect("the protocol's path is valid"),
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
            unawaited: UnawaitedReplies::Drop,
            read_buffer: 4096,
            receive_buffer: None,
            local_address: None,
        })
    }

    /// Sets the time limit of connecting, and of each request afterwards. Default 10 s.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets how many events wait for [`Events::next`] before the client stops reading its socket.
    /// Default 256.
    pub fn event_queue(mut self, frames: usize) -> Self {
        self.event_queue = frames.max(1);
        self
    }

    /// Queues replies without a waiting request among the events, in the server's order.
    pub(crate) fn queue_replies(mut self) -> Self {
        self.unawaited = UnawaitedReplies::Queue;
        self
    }

    /// Sets the size of the read buffer of each connection. Default 4096 bytes, so that thousands
    /// fit into memory.
    pub fn read_buffer(mut self, bytes: usize) -> Self {
        self.read_buffer = bytes;
        self
    }

    /// Sets the size of the socket's receive buffer. With a small one the server soon notices a
    /// client that does not read.
    pub fn receive_buffer(mut self, bytes: u32) -> Self {
        self.receive_buffer = Some(bytes);
        self
    }

    /// Sets the local address. One address has about 28,000 ports for connections.
    pub fn local_address(mut self, address: IpAddr) -> Self {
        self.local_address = Some(address);
        self
    }

    /// Sets a header of the upgrade, and replaces one of the same name: `Origin`,
    /// `X-Forwarded-For`, `Sec-WebSocket-Protocol`.
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    /// Removes a header of the upgrade. Without `Sec-WebSocket-Protocol` the session uses
    /// MessagePack.
    pub fn without_header(mut self, name: &HeaderName) -> Self {
        self.headers.remove(name);
        self
    }

    /// Opens a connection without a session.
    pub async fn open(&self) -> Result<Socket, ConnectError> {
        timeout(self.timeout, self.upgrade())
            .await
            .map_err(|_| ConnectError::Timeout)?
    }

    /// Opens a connection, and a session on it.
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
        let settings = session::SessionSettings {
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
