//! A path to a node that does wrong to what passes: what a client sees through it is what it would see of a node with that defect.

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

/// Which `message.created` or reply it is, of all that pass, where the lie is told once.
const UNLUCKY: u32 = 10;

/// Whose connection ends for [`Lie::Undelete`].
const LEAVER: &str = "u1";

/// What becomes of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Lie {
    /// None.
    Nothing,
    /// A `message.created` never comes.
    Drop,
    /// It comes twice.
    Double,
    /// It comes behind the next one of its connection.
    Swap,
    /// The connection ends before it.
    Cut,
    /// The connection ends before the reply to a `message.send`.
    CutReply,
    /// Who was removed is told on, until it is added again.
    AfterRemoval,
    /// A client is away while messages are sent and deleted, and is told them with their text when it comes back.
    Undelete,
}

/// A path, and what it knows.
#[derive(Debug)]
pub(crate) struct Path {
    /// Where it begins.
    pub(crate) address: SocketAddr,
    lies: Arc<Lies>,
}

#[derive(Debug)]
struct Lies {
    lie: Lie,
    created: AtomicU32,
    replies: AtomicU32,
    /// The ways to those who were removed.
    removed: Mutex<Vec<Way>>,
    /// The first `message.created` of each message, by its id.
    told: Mutex<HashMap<Vec<u8>, Vec<u8>>>,
    /// The ids of messages whose deletion passed.
    deleted: Mutex<HashSet<Vec<u8>>>,
    /// Nobody comes in before so many were deleted.
    closed_until: AtomicUsize,
}

/// The way to a client, also for what belongs to others.
type Way = Arc<Mutex<OwnedWriteHalf>>;

impl Path {
    pub(crate) async fn to(node: SocketAddr, lie: Lie) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let lies = Arc::new(Lies {
            lie,
            created: 0.into(),
            replies: 0.into(),
            removed: Mutex::default(),
            told: Mutex::default(),
            deleted: Mutex::default(),
            closed_until: 0.into(),
        });
        tokio::spawn({
            let lies = lies.clone();
            async move {
                loop {
                    let (client, _) = listener.accept().await.unwrap();
                    if lies.deleted.lock().await.len() < lies.closed_until.load(Ordering::SeqCst) {
                        continue;
                    }
                    let node = TcpStream::connect(node).await.unwrap();
                    let lies = lies.clone();
                    tokio::spawn(async move {
                        let (mut from_client, to_client) = client.into_split();
                        let (from_node, mut to_node) = node.into_split();
                        // Either end may be gone before the other.
                        tokio::select! {
                            _ = copy(&mut from_client, &mut to_node) => {}
                            _ = lies.carry(from_node, to_client) => {}
                        }
                    });
                }
            }
        });
        Self { address, lies }
    }

    /// How many `message.created` passed.
    pub(crate) fn created(&self) -> u32 {
        self.lies.created()
    }
}

impl Lies {
    fn created(&self) -> u32 {
        self.created.load(Ordering::SeqCst)
    }

    /// Carries what the node sends: HTTP as it is, frames one by one after an upgrade.
    async fn carry(&self, mut node: OwnedReadHalf, mut client: OwnedWriteHalf) -> io::Result<()> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(node.read_u8().await?);
        }
        client.write_all(&head).await?;
        if !head.starts_with(b"HTTP/1.1 101") {
            return copy(&mut node, &mut client).await.map(drop);
        }
        let client: Way = Arc::new(Mutex::new(client));
        let mut kept = None;
        let mut is_leaver = false;
        loop {
            let frame = read_frame(&mut node).await?;
            let holds = |what: &str| {
                frame
                    .windows(what.len())
                    .any(|window| window == what.as_bytes())
            };
            // A guest that comes back begins anew, and is replayed nothing: a member is cut.
            is_leaver |= holds("session_id") && holds(LEAVER);
            if holds("message.created") {
                if self.lie == Lie::Undelete
                    && is_leaver
                    && self.created() >= UNLUCKY
                    && self.closed_until.load(Ordering::SeqCst) == 0
                {
                    // The first of them may have been sent before.
                    self.closed_until
                        .store(self.deleted.lock().await.len() + 2, Ordering::SeqCst);
                    return Ok(());
                }
                self.tell(&client, frame, &mut kept).await?;
                continue;
            }
            if self.lie == Lie::Undelete && holds("message.deleted") {
                self.deleted.lock().await.insert(message_id(&frame));
            } else if self.lie == Lie::CutReply
                && holds("result")
                && holds("created_at")
                && !holds("items")
                && !holds("session_id")
            {
                if self.replies.fetch_add(1, Ordering::SeqCst) + 1 == UNLUCKY {
                    return Ok(());
                }
            } else if self.lie == Lie::AfterRemoval && holds("channel.removed") {
                self.removed.lock().await.push(client.clone());
            } else if self.lie == Lie::AfterRemoval && holds("channel.added") {
                self.removed
                    .lock()
                    .await
                    .retain(|way| !Arc::ptr_eq(way, &client));
            }
            client.lock().await.write_all(&frame).await?;
        }
    }

    async fn tell(
        &self,
        client: &Way,
        frame: Vec<u8>,
        kept: &mut Option<Vec<u8>>,
    ) -> io::Result<()> {
        let is_unlucky = self.created.fetch_add(1, Ordering::SeqCst) + 1 == UNLUCKY;
        match self.lie {
            Lie::Drop if is_unlucky => return Ok(()),
            Lie::Cut if is_unlucky => return Err(io::ErrorKind::ConnectionReset.into()),
            Lie::Double if is_unlucky => client.lock().await.write_all(&frame).await?,
            Lie::Swap if is_unlucky => {
                *kept = Some(frame);
                return Ok(());
            }
            Lie::AfterRemoval => {
                for removed in &*self.removed.lock().await {
                    // It may be gone by itself.
                    let _ = removed.lock().await.write_all(&frame).await;
                }
            }
            Lie::Undelete => {
                let told = self
                    .told
                    .lock()
                    .await
                    .entry(message_id(&frame))
                    .or_insert_with(|| frame.clone())
                    .clone();
                return client.lock().await.write_all(&told).await;
            }
            _ => {}
        }
        client.lock().await.write_all(&frame).await?;
        match kept.take() {
            Some(kept) => client.lock().await.write_all(&kept).await,
            None => Ok(()),
        }
    }
}

/// The first id of a message in a frame.
fn message_id(frame: &[u8]) -> Vec<u8> {
    let prefix = b"msg_";
    let start = frame
        .windows(prefix.len())
        .position(|window| window == prefix)
        .unwrap();
    frame[start..start + prefix.len() + 16].to_vec()
}

/// A server's frame, which has no mask.
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
