//! A TCP proxy before a node, which cuts, delays, slows and stalls connections.
//!
//! Bytes pass unchanged. The buffers of the proxy are small, so that the node soon notices a
//! stalled client.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Weak},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::watch,
    time::sleep,
};

/// Receive buffer of a connection from the node. Small compared to an outbox, but larger than the
/// largest segment of the loopback device, below which the two ends wait for TCP timers.
const RECEIVE_BUFFER_BYTES: u32 = 128 * 1024;

/// The condition of a connection.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum NetworkCondition {
    /// Forwards as fast as possible.
    Normal,
    /// Forwards each read after a delay, in both directions.
    Delayed(Duration),
    /// Forwards this many bytes per second to the client.
    Slow(u32),
    /// Forwards nothing to the client.
    Stalled,
    /// Closes the connection.
    Cut,
}

type ConditionSender = watch::Sender<NetworkCondition>;

/// A TCP proxy on a port of its own. The node's address may change.
#[derive(Debug, Clone)]
pub struct FaultProxy {
    address: SocketAddr,
    node: Arc<Mutex<SocketAddr>>,
    connections: Arc<Mutex<Vec<Weak<ConditionSender>>>>,
}

impl FaultProxy {
    /// Starts a proxy to this node. It runs until the runtime ends.
    pub async fn start(node: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let proxy = Self {
            address: listener.local_addr()?,
            node: Arc::new(Mutex::new(node)),
            connections: Arc::default(),
        };
        tokio::spawn(proxy.clone().accept(listener));
        Ok(proxy)
    }

    /// The proxy's address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sets the node's address for new connections.
    pub fn set_upstream(&self, node: SocketAddr) {
        *self.node.lock() = node;
    }

    /// Changes the condition of the open connections for which `is_selected` returns true.
    pub fn apply(
        &self,
        condition: NetworkCondition,
        mut is_selected: impl FnMut() -> bool,
    ) -> AppliedCondition {
        let open: Vec<Arc<ConditionSender>> = self
            .connections
            .lock()
            .iter()
            .filter_map(Weak::upgrade)
            .collect();
        let selected: Vec<_> = open.into_iter().filter(|_| is_selected()).collect();
        for connection in &selected {
            connection.send_replace(condition);
        }
        AppliedCondition(selected.iter().map(Arc::downgrade).collect())
    }

    async fn accept(self, listener: TcpListener) {
        loop {
            let Ok((client, _)) = listener.accept().await else {
                sleep(Duration::from_millis(10)).await;
                continue;
            };
            let condition = Arc::new(watch::Sender::new(NetworkCondition::Normal));
            let mut connections = self.connections.lock();
            connections.retain(|connection| connection.strong_count() > 0);
            connections.push(Arc::downgrade(&condition));
            let node = *self.node.lock();
            // When one end fails the other end is closed, and its peer handles that.
            tokio::spawn(async move { forward(client, node, &condition).await });
        }
    }
}

/// Connections whose condition was changed.
#[derive(Debug)]
pub struct AppliedCondition(Vec<Weak<ConditionSender>>);

impl AppliedCondition {
    /// Sets the condition of the connections back to [`NetworkCondition::Normal`].
    pub fn revert(self) {
        for connection in self.0.iter().filter_map(Weak::upgrade) {
            connection.send_replace(NetworkCondition::Normal);
        }
    }
}

async fn forward(
    client: TcpStream,
    node: SocketAddr,
    condition: &ConditionSender,
) -> io::Result<()> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES)?;
    let node = socket.connect(node).await?;
    node.set_nodelay(true)?;
    client.set_nodelay(true)?;
    let (from_client, to_client) = client.into_split();
    let (from_node, to_node) = node.into_split();
    let mut cut = condition.subscribe();
    tokio::select! {
        ended = copy(from_client, to_node, condition.subscribe(), ForwardDirection::ToNode) => ended,
        ended = copy(from_node, to_client, condition.subscribe(), ForwardDirection::ToClient) => ended,
        _ = cut.wait_for(|condition| *condition == NetworkCondition::Cut) => Ok(()),
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum ForwardDirection {
    ToNode,
    ToClient,
}

async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut condition: watch::Receiver<NetworkCondition>,
    direction: ForwardDirection,
) -> io::Result<()> {
    let mut buffer = [0; 4096];
    loop {
        let current = *condition.borrow_and_update();
        if (current, direction) == (NetworkCondition::Stalled, ForwardDirection::ToClient) {
            condition.changed().await.map_err(io::Error::other)?;
            continue;
        }
        let bytes = tokio::select! {
            bytes = from.read(&mut buffer) => bytes?,
            _ = condition.changed() => continue,
        };
        if bytes == 0 {
            return Ok(());
        }
        match (current, direction) {
            (NetworkCondition::Delayed(delay), _) => sleep(delay).await,
            (NetworkCondition::Slow(bytes_per_second), ForwardDirection::ToClient) => {
                sleep(Duration::from_secs_f64(
                    bytes as f64 / f64::from(bytes_per_second),
                ))
                .await;
            }
            _ => {}
        }
        to.write_all(&buffer[..bytes]).await?;
    }
}
