//! A path to a node that a run can make bad: connections cut, delayed, slowed, stalled.
//!
//! Bytes pass as they are. The buffers on the way are small, so that a stalled client is felt by the node soon.

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

/// Bytes that the system keeps for a connection between node and path: little beside an outbox, and more than the largest
/// segment of a loopback, below which the two ends wait for each other's timers.
const BUFFER: u32 = 128 * 1024;

/// How a connection goes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Weather {
    /// As fast as it can.
    Clear,
    /// Every piece waits so long, both ways.
    Delayed(Duration),
    /// The client reads so many bytes a second.
    Slow(u32),
    /// The client reads nothing.
    Stalled,
    /// The connection ends.
    Cut,
}

type Line = watch::Sender<Weather>;

/// A path from an address of its own to a node, which may move.
#[derive(Debug, Clone)]
pub struct Path {
    address: SocketAddr,
    node: Arc<Mutex<SocketAddr>>,
    lines: Arc<Mutex<Vec<Weak<Line>>>>,
}

impl Path {
    /// A path to this node. It lives as long as the runtime.
    pub async fn to(node: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let path = Self {
            address: listener.local_addr()?,
            node: Arc::new(Mutex::new(node)),
            lines: Arc::default(),
        };
        tokio::spawn(path.clone().accept(listener));
        Ok(path)
    }

    /// Where it begins.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The node is here from now on.
    pub fn lead_to(&self, node: SocketAddr) {
        *self.node.lock() = node;
    }

    /// Changes the weather of the open connections that are chosen, and answers how to change it again.
    pub fn change(&self, weather: Weather, mut is_chosen: impl FnMut() -> bool) -> Changed {
        let lines: Vec<Arc<Line>> = self
            .lines
            .lock()
            .iter()
            .filter_map(Weak::upgrade)
            .filter(|_| is_chosen())
            .collect();
        for line in &lines {
            line.send_replace(weather);
        }
        Changed(lines.iter().map(Arc::downgrade).collect())
    }

    async fn accept(self, listener: TcpListener) {
        loop {
            let Ok((client, _)) = listener.accept().await else {
                sleep(Duration::from_millis(10)).await;
                continue;
            };
            let line = Arc::new(watch::Sender::new(Weather::Clear));
            let mut lines = self.lines.lock();
            lines.retain(|line| line.strong_count() > 0);
            lines.push(Arc::downgrade(&line));
            let node = *self.node.lock();
            // Either end may be gone: the other one learns of it when its connection is dropped.
            tokio::spawn(async move { carry(client, node, &line).await });
        }
    }
}

/// Connections whose weather was changed.
#[derive(Debug)]
pub struct Changed(Vec<Weak<Line>>);

impl Changed {
    /// Clears it up.
    pub fn clear(self) {
        for line in self.0.iter().filter_map(Weak::upgrade) {
            line.send_replace(Weather::Clear);
        }
    }
}

async fn carry(client: TcpStream, node: SocketAddr, line: &Line) -> io::Result<()> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(BUFFER)?;
    let node = socket.connect(node).await?;
    node.set_nodelay(true)?;
    client.set_nodelay(true)?;
    let (from_client, to_client) = client.into_split();
    let (from_node, to_node) = node.into_split();
    let mut cut = line.subscribe();
    tokio::select! {
        ended = copy(from_client, to_node, line.subscribe(), false) => ended,
        ended = copy(from_node, to_client, line.subscribe(), true) => ended,
        _ = cut.wait_for(|weather| *weather == Weather::Cut) => Ok(()),
    }
}

async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut weather: watch::Receiver<Weather>,
    to_client: bool,
) -> io::Result<()> {
    let mut buffer = [0; 4096];
    loop {
        let now = *weather.borrow_and_update();
        if now == Weather::Stalled && to_client {
            weather.changed().await.map_err(io::Error::other)?;
            continue;
        }
        let bytes = tokio::select! {
            bytes = from.read(&mut buffer) => bytes?,
            _ = weather.changed() => continue,
        };
        if bytes == 0 {
            return Ok(());
        }
        match now {
            Weather::Delayed(wait) => sleep(wait).await,
            Weather::Slow(rate) if to_client => {
                sleep(Duration::from_secs_f64(bytes as f64 / f64::from(rate))).await
            }
            _ => {}
        }
        to.write_all(&buffer[..bytes]).await?;
    }
}
