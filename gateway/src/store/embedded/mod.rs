//! The embedded engine: a folder on the disk, for a node that is alone. Durable as soon as it acknowledges.
//!
//! LMDB keeps one ordered tree in a memory map. Reads run at once, on the caller's thread, and wait for nobody. Writes go
//! through one thread, which joins those that wait into one transaction: one sync serves them all, then they are published
//! and answered. After a crash there is nothing to recover: what was acknowledged is there, what was half written is not.
//!
//! Owned here: the folder, its format, the writer, leases in memory; how another process reads it beside the node, and whether it
//! is whole. Left out: who listens ([`fanout::bus::Local`]).

mod check;
mod disk;
mod layout;
mod leases;
mod onlooker;
mod pages;
mod plan;
mod sound;
#[cfg(test)]
mod tests;
mod transfer;
mod view;
mod writer;

use std::{
    fmt,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use async_trait::async_trait;
use bytes::Bytes;
use fanout::{Topic, bus::Local};
use parking_lot::Mutex;
use tokio::{
    sync::{SetOnce, mpsc, oneshot},
    time::timeout,
};

use self::{
    disk::Disk,
    leases::Leases,
    view::{Fault, View},
    writer::Request,
};
use super::{
    Commit, Committed, DEADLINE, Head, Keep, Log, Page, Partition, Position, Purged, Range, Read,
    Require, Snapshot, Store, StoreError, Table,
};

pub use self::{
    check::{Finding, Looked, Sense, check},
    disk::OpenError,
    onlooker::copy,
    pages::Damage,
};

pub(crate) use self::{disk::Lock, pages::DATA};

/// Milliseconds since the Unix epoch.
type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// The store in a folder. Dropping it ends its writer after what was asked before; [`close`](Self::close) also waits for that.
pub struct Embedded {
    disk: Arc<Disk>,
    requests: mpsc::Sender<Request>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// Whether the newest write failed.
    failing: Arc<AtomicBool>,
    /// Set when nothing can be read or written any more.
    broken: Arc<SetOnce<()>>,
    leases: Leases,
    clock: Clock,
    bus: Arc<Local>,
}

impl fmt::Debug for Embedded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Embedded")
            .field("disk", &self.disk)
            .finish_non_exhaustive()
    }
}

/// What only tests choose.
struct Options {
    keep: Keep,
    map_size: usize,
    clock: Clock,
}

impl Embedded {
    /// Opens the store in a folder, or makes both. Publishes on `bus`. Reads and syncs files on the calling thread.
    pub fn open(path: impl AsRef<Path>, keep: Keep, bus: Arc<Local>) -> Result<Self, OpenError> {
        let clock = Arc::new(|| {
            SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| since.as_millis() as u64)
        });
        Self::with(
            path.as_ref(),
            Options {
                keep,
                map_size: disk::MAP_SIZE,
                clock,
            },
            bus,
        )
    }

    fn with(path: &Path, options: Options, bus: Arc<Local>) -> Result<Self, OpenError> {
        let Options {
            keep,
            map_size,
            clock,
        } = options;
        let disk = Arc::new(Disk::open(path, map_size)?);
        let (requests, receiver) = mpsc::channel(writer::QUEUE);
        let failing = Arc::new(AtomicBool::new(false));
        let broken = Arc::new(SetOnce::new());
        let health = writer::Health {
            failing: failing.clone(),
            broken: broken.clone(),
        };
        let threads = writer::start(
            disk.clone(),
            keep,
            clock.clone(),
            bus.clone(),
            health,
            receiver,
        )
        .map_err(|source| OpenError::Folder {
            path: path.to_owned(),
            source,
        })?;
        Ok(Self {
            disk,
            requests,
            threads: Mutex::new(threads.into()),
            failing,
            broken,
            leases: Leases::default(),
            clock,
            bus,
        })
    }

    /// Finishes and publishes what was asked before, and ends the writer. Later writes are unavailable, reads go on.
    pub async fn close(&self) {
        // It fails if the writer has ended already.
        let _ = self.requests.send(Request::Close).await;
        let threads = std::mem::take(&mut *self.threads.lock());
        let joined = tokio::task::spawn_blocking(|| {
            threads
                .into_iter()
                .map(JoinHandle::join)
                .all(|end| end.is_ok())
        })
        .await;
        if !matches!(joined, Ok(true)) {
            tracing::error!("the store's writer ended in a panic");
        }
    }

    /// Waits until the disk failed in such a way that nothing can be read or written any more in this process: LMDB ends its
    /// work when the last write of a commit fails. What was acknowledged is there after another start.
    pub async fn broken(&self) {
        self.broken.wait().await;
    }

    fn view<T>(&self, read: impl FnOnce(View<'_>) -> Result<T, Fault>) -> Result<T, StoreError> {
        Ok(self
            .disk
            .read(|txn| read(View::new(&self.disk, txn, (self.clock)())))?)
    }

    /// Asks the writer, and waits for its answer until the deadline.
    async fn ask<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<Result<T, StoreError>>) -> Request,
    ) -> Result<T, StoreError> {
        let (answer, answered) = oneshot::channel();
        let ended = || StoreError::Unavailable("the store's writer has ended".to_owned());
        let asking = async {
            self.requests
                .send(request(answer))
                .await
                .map_err(|_| ended())?;
            answered.await.map_err(|_| ended())?
        };
        timeout(DEADLINE, asking).await.unwrap_or_else(|_| {
            Err(StoreError::Unavailable(
                "the disk did not answer in time".to_owned(),
            ))
        })
    }
}

#[async_trait]
impl Store for Embedded {
    async fn commit(&self, partition: &Partition, commit: Commit) -> Committed {
        self.ask(|answer| Request::Commit {
            partition: partition.clone(),
            commit,
            answer,
        })
        .await
    }

    async fn read(&self, reads: Vec<Read>) -> Result<Vec<Snapshot>, StoreError> {
        self.view(|view| reads.iter().map(|read| view.snapshot(read)).collect())
    }

    async fn page(
        &self,
        partition: &Partition,
        table: Table,
        range: Range,
        limit: usize,
    ) -> Result<(Page, Head), StoreError> {
        self.view(|view| view.page(partition, table, &range, limit))
    }

    async fn log(
        &self,
        partition: &Partition,
        after: Position,
        limit: usize,
    ) -> Result<Log, StoreError> {
        self.view(|view| view.log(partition, after, limit))
    }

    async fn publish(&self, topic: &Topic, record: Bytes) -> Result<(), StoreError> {
        self.bus.publish(topic, record);
        Ok(())
    }

    async fn purge(
        &self,
        partition: &Partition,
        table: Table,
        require: Option<Require>,
        limit: usize,
    ) -> Purged {
        self.ask(|answer| Request::Purge {
            partition: partition.clone(),
            table,
            require,
            limit,
            answer,
        })
        .await
    }

    async fn lease(
        &self,
        node: &str,
        ttl: Duration,
        members: Vec<(String, u32)>,
    ) -> Result<bool, StoreError> {
        Ok(self.leases.renew(node, ttl, members))
    }

    async fn release(&self, node: &str) -> Result<(), StoreError> {
        self.leases.release(node);
        Ok(())
    }

    async fn members(&self, members: &[String]) -> Result<Vec<u32>, StoreError> {
        Ok(self.leases.count(members))
    }

    async fn sweep(&self) -> Result<Vec<String>, StoreError> {
        Ok(self.leases.sweep())
    }

    async fn now(&self) -> Result<u64, StoreError> {
        // While writes fail, only a write can tell whether they still do.
        if self.failing.load(Ordering::Relaxed) || self.requests.is_closed() {
            self.ask(|answer| Request::Probe { answer }).await?;
        }
        Ok((self.clock)())
    }
}
