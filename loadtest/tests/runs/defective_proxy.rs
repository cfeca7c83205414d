//! A proxy that tampers with what a node sends. Through it, a correct node looks like one with a
//! defect.

use std::{
    collections::{HashMap, HashSet},
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicUsize, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::Mutex,
};

/// Which `message.created` or reply is tampered with, counted over all connections.
const TARGET: u32 = 10;

/// The user whose connection ends for [`ProxyDefect::Undelete`].
const CUT_USER: &str = "u1";

/// How the proxy tampers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum ProxyDefect {
    /// Not at all.
    None,
    /// Drops a `message.created`.
    Drop,
    /// Sends it twice.
    Duplicate,
    /// Sends it after the next one of the same connection.
    Swap,
    /// Closes the connection before it.
    Cut,
    /// Closes the connection before a reply to `message.send`.
    CutReply,
    /// Sends events to removed users until they are added again.
    AfterRemoval,
    /// Closes the connection of a user until messages have been sent and deleted, and replays them
    /// with their text.
    Undelete,
}

/// A running proxy.
#[derive(Debug)]
pub(crate) struct DefectiveProxy {
    pub(crate) address: SocketAddr,
    state: Arc<ProxyState>,
}

#[derive(Debug)]
struct ProxyState {
    defect: ProxyDefect,
    created: AtomicU32,
    replies: AtomicU32,
    /// Connections of removed users.
    removed: Mutex<Vec<ClientWriter>>,
    /// The first `message.created` of each message, by message id.
    first_frames: Mutex<HashMap<Vec<u8>, Vec<u8>>>,
    /// Ids of messages whose `message.deleted` was forwarded.
    deleted: Mutex<HashSet<Vec<u8>>>,
    /// New connections are closed until this number of messages was deleted.
    closed_until_deleted: AtomicUsize,
}

/// The writing half of a client's connection, shared with the connections of other users.
type ClientWriter = Arc<Mutex<OwnedWriteHalf>>;

impl DefectiveProxy {
    pub(crate) async fn start(node: SocketAddr, defect: ProxyDefect) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(ProxyState {
            defect,
            created: 0.into(),
            replies: 0.into(),
            removed: Mutex::default(),
            first_frames: Mutex::default(),
            deleted: Mutex::default(),
            closed_until_deleted: 0.into(),
        });
        tokio::spawn({
            let state = state.clone();
            async move {
                loop {
                    let (client, _) = listener.accept().await.unwrap();
                    if state.deleted.lock().await.len()
                        < state.closed_until_deleted.load(Ordering::SeqCst)
                    {
                        continue;
                    }
                    let node = TcpStream::connect(node).await.unwrap();
                    let state = state.clone();
                    tokio::spawn(async move {
                        let (mut from_client, to_client) = client.into_split();
                        let (from_node, mut to_node) = node.into_split();
                        // When one end fails the other end is closed.
                        tokio::select! {
                            _ = copy(&mut from_client, &mut to_node) => {}
                            _ = state.forward(from_node, to_client) => {}
                        }
                    });
                }
            }
        });
        Self { address, state }
    }

    /// Number of `message.created` frames forwarded so far.
    pub(crate) fn created(&self) -> u32 {
        self.state.created()
    }
}

impl ProxyState {
    fn created(&self) -> u32 {
        self.created.load(Ordering::SeqCst)
    }

    /// Forwards what the node sends: HTTP unchanged, and frame by frame after an upgrade.
    async fn forward(&self, mut node: OwnedReadHalf, mut client: OwnedWriteHalf) -> io::Result<()> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(node.read_u8().await?);
        }
        client.write_all(&head).await?;
        if !head.starts_with(b"HTTP/1.1 101") {
            return copy(&mut node, &mut client).await.map(drop);
        }
        let client: ClientWriter = Arc::new(Mutex::new(client));
        let mut held_back = None;
        let mut is_cut_user = false;
        loop {
            let frame = read_frame(&mut node).await?;
            let contains = |text: &str| contains(&frame, text);
            // A member, since a guest that reconnects may start anew and get nothing replayed.
            is_cut_user |= contains("session_id") && contains(CUT_USER);
            if contains("message.created") {
                if self.defect == ProxyDefect::Undelete
                    && is_cut_user
                    && self.created() >= TARGET
                    && self.closed_until_deleted.load(Ordering::SeqCst) == 0
                {
                    // Two deletions: the message of the first may have been sent before.
                    self.closed_until_deleted
                        .store(self.deleted.lock().await.len() + 2, Ordering::SeqCst);
                    return Ok(());
                }
                self.forward_created(&client, frame, &mut held_back).await?;
                continue;
            }
            match self.defect {
                ProxyDefect::Undelete if contains("message.deleted") => {
                    self.deleted.lock().await.insert(message_id(&frame));
                }
                ProxyDefect::CutReply
                    if is_send_reply(&frame)
                        && self.replies.fetch_add(1, Ordering::SeqCst) + 1 == TARGET =>
                {
                    return Ok(());
                }
                ProxyDefect::AfterRemoval if contains("channel.removed") => {
                    self.removed.lock().await.push(client.clone())
                }
                ProxyDefect::AfterRemoval if contains("channel.added") => {
                    self.removed
                        .lock()
                        .await
                        .retain(|writer| !Arc::ptr_eq(writer, &client));
                }
                _ => {}
            }
            client.lock().await.write_all(&frame).await?;
        }
    }

    async fn forward_created(
        &self,
        client: &ClientWriter,
        frame: Vec<u8>,
        held_back: &mut Option<Vec<u8>>,
    ) -> io::Result<()> {
        let is_target = self.created.fetch_add(1, Ordering::SeqCst) + 1 == TARGET;
        match self.defect {
            ProxyDefect::Drop if is_target => return Ok(()),
            ProxyDefect::Cut if is_target => return Err(io::ErrorKind::ConnectionReset.into()),
            ProxyDefect::Duplicate if is_target => client.lock().await.write_all(&frame).await?,
            ProxyDefect::Swap if is_target => {
                *held_back = Some(frame);
                return Ok(());
            }
            ProxyDefect::AfterRemoval => {
                for removed in &*self.removed.lock().await {
                    // The other connection may have ended.
                    let _ = removed.lock().await.write_all(&frame).await;
                }
            }
            ProxyDefect::Undelete => {
                let first = self
                    .first_frames
                    .lock()
                    .await
                    .entry(message_id(&frame))
                    .or_insert_with(|| frame.clone())
                    .clone();
                return client.lock().await.write_all(&first).await;
            }
            _ => {}
        }
        client.lock().await.write_all(&frame).await?;
        match held_back.take() {
            Some(held_back) => client.lock().await.write_all(&held_back).await,
            None => Ok(()),
        }
    }
}

fn contains(frame: &[u8], text: &str) -> bool {
    frame
        .windows(text.len())
        .any(|window| window == text.as_bytes())
}

/// Whether a frame is a reply with one message, as `message.send` has it.
fn is_send_reply(frame: &[u8]) -> bool {
    let contains = |text: &str| contains(frame, text);
    contains("result") && contains("created_at") && !contains("items") && !contains("session_id")
}

/// Returns the first message id in a frame.
fn message_id(frame: &[u8]) -> Vec<u8> {
    let prefix = b"msg_";
    let start = frame
        .windows(prefix.len())
        .position(|window| window == prefix)
        .unwrap();
    frame[start..start + prefix.len() + 16].to_vec()
}

/// Reads a server's frame, which has no mask.
async fn read_frame(node: &mut OwnedReadHalf) -> io::Result<Vec<u8>> {
    let mut frame = vec![0; 2];
    node.read_exact(&mut frame).await?;
    let length = match frame[1] {
        126 => {
            let length = node.read_u16().await?;
            frame.extend(length.to_be_bytes());
            usize::from(length)
        }
        127 => {
            let length = node.read_u64().await?;
            frame.extend(length.to_be_bytes());
            length.try_into().unwrap()
        }
        short => usize::from(short),
    };
    let start = frame.len();
    frame.resize(start + length, 0);
    node.read_exact(&mut frame[start..]).await?;
    Ok(frame)
}
