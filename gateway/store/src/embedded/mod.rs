//! The embedded engine: a data folder for a single node. Acknowledged commits are durable.
//!
//! One thread does all writes: it combines waiting requests into one group, appends it to the
//! [`journal`] with one sync, shows it to readers in [`memory`], then publishes and answers
//! ([`writer`]). LMDB keeps ordered trees in a memory map, which a [`checkpoint`] brings up to date
//! in the background; reads see both as one ([`trees`]). Small reads run on the caller's thread,
//! large ones on blocking threads, a few at a time ([`reads`]). After a crash the groups that the
//! trees lack are read from the journal.
//!
//! This module owns the folder and its format, the writer, leases in memory, read-only access from
//! other processes, and the check of a store. [`fanout::bus::Local`] delivers the published
//! records.

mod check;
mod checkpoint;
mod checksum;
mod convert;
mod disk;
mod fault;
mod journal;
mod layout;
mod leases;
mod memory;
mod open_error;
mod pages;
mod plan;
mod read_only;
mod reads;
mod recovery;
mod status;
mod steps;
#[cfg(test)]
mod tests;
mod transfer;
mod tree;
mod trees;
mod validate;
mod view;
mod writer;

use std::{
    fmt,
    path::Path,
    sync::{Arc, atomic::Ordering},
    thread::JoinHandle,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use async_trait::async_trait;
use bytes::Bytes;
use fanout::{Topic, bus::Local};
use parking_lot::Mutex;
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use self::{
    checkpoint::Checkpoints,
    disk::Disk,
    leases::Leases,
    reads::Reads,
    writer::{CheckpointLimits, Health, WriteRequest, WriterParts},
};
use super::{
    Commit, Committed, DEADLINE, Document, DocumentKey, Keep, Log, Page, Partition, PartitionHead,
    Position, Purged, Range, Read, Require, Snapshot, Store, StoreError, Table,
};

pub use self::{
    check::{CheckSummary, Finding, ValueCheck, check},
    disk::Lock,
    journal::{FOLDER as JOURNAL, JournalError},
    layout::EVENT_OVERHEAD,
    open_error::OpenError,
    pages::{DATA, Damage},
    read_only::copy,
    status::{JournalStatus, SYNC_BUCKETS_MICROS, SyncTimes},
};

/// Milliseconds since the Unix epoch.
type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// A store in a data folder. Dropping it ends the writer after the requests that are queued;
/// [`close`](Self::close) also waits for them.
pub struct Embedded {
    disk: Arc<Disk>,
    reads: Reads,
    requests: mpsc::Sender<WriteRequest>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    health: Health,
    status: Arc<JournalStatus>,
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

/// Options that only tests change.
struct Options {
    keep: Keep,
    map_size: usize,
    limits: CheckpointLimits,
    clock: Clock,
}

impl Embedded {
    /// Opens the store in a folder, or creates both. Publishes events on `bus`. Blocks the thread
    /// to read and sync files.
    pub fn open(path: impl AsRef<Path>, keep: Keep, bus: Arc<Local>) -> Result<Self, OpenError> {
        let clock = Arc::new(|| {
            SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| since.as_millis() as u64)
        });
        Self::open_with(
            path.as_ref(),
            Options {
                keep,
                map_size: disk::MAP_SIZE,
                limits: CheckpointLimits::default(),
                clock,
            },
            bus,
        )
    }

    fn open_with(path: &Path, options: Options, bus: Arc<Local>) -> Result<Self, OpenError> {
        let Options {
            keep,
            map_size,
            limits,
            clock,
        } = options;
        let folder = |source| OpenError::Folder {
            path: path.to_owned(),
            source,
        };
        let no_room = |error: OpenError| error.or_no_room(path);
        let disk = Arc::new(Disk::open(path, map_size).map_err(no_room)?);
        let journal = recovery::recover(&disk, path, &limits).map_err(no_room)?;
        let (requests, receiver) = mpsc::channel(writer::QUEUE_LENGTH);
        let health = Health::default();
        let broken = health.broken.clone();
        let on_broken = move || drop(broken.set(()));
        let (checkpoints, checkpoint_thread) = Checkpoints::start(
            disk.clone(),
            journal.finished().clone(),
            limits.pieces,
            on_broken,
        )
        .map_err(folder)?;
        let status = Arc::new(JournalStatus::default());
        let parts = WriterParts {
            disk: disk.clone(),
            journal,
            checkpoints,
            limits,
            keep,
            clock: clock.clone(),
            bus: bus.clone(),
            health: health.clone(),
            status: status.clone(),
            requests: receiver,
        };
        let mut threads: Vec<_> = writer::start(parts).map_err(folder)?.into();
        threads.push(checkpoint_thread);
        let reads = Reads::new(disk.clone(), clock.clone());
        Ok(Self {
            disk,
            reads,
            requests,
            threads: Mutex::new(threads),
            health,
            status,
            leases: Leases::default(),
            clock,
            bus,
        })
    }

    /// Serves and publishes the queued requests, then ends the writer. Later writes return
    /// [`StoreError::Unavailable`]; reads still work.
    pub async fn close(&self) {
        // Fails if the writer has ended already.
        let _ = self.requests.send(WriteRequest::Close).await;
        let threads = std::mem::take(&mut *self.threads.lock());
        let joined = tokio::task::spawn_blocking(|| {
            threads
                .into_iter()
                .map(JoinHandle::join)
                .all(|end| end.is_ok())
        })
        .await;
        if !matches!(joined, Ok(true)) {
            tracing::error!("a thread of the store panicked");
        }
        self.reads.finish().await;
    }

    /// Waits until no further write can succeed in this process: after a failed write or sync it is
    /// unknown what the disk has. A restart recovers all acknowledged commits.
    pub async fn broken(&self) {
        self.health.broken.wait().await;
    }

    /// Length and sync times of the journal.
    pub fn journal(&self) -> &Arc<JournalStatus> {
        &self.status
    }

    /// Sends a request to the writer and waits for the answer until the deadline.
    async fn ask<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<Result<T, StoreError>>) -> WriteRequest,
    ) -> Result<T, StoreError> {
        let (answer, answered) = oneshot::channel();
        let ended = || StoreError::Unavailable("the store's writer has ended".to_owned());
        let response = async {
            self.requests
                .send(request(answer))
                .await
                .map_err(|_| ended())?;
            answered.await.map_err(|_| ended())?
        };
        timeout(DEADLINE, response).await.unwrap_or_else(|_| {
            Err(StoreError::Unavailable(
                "the disk did not answer in time".to_owned(),
            ))
        })
    }
}

#[async_trait]
impl Store for Embedded {
    async fn commit(&self, partition: &Partition, commit: Commit) -> Committed {
        self.ask(|answer| WriteRequest::Commit {
            partition: partition.clone(),
            commit,
            answer,
        })
        .await
    }

    async fn read(&self, reads: Vec<Read>) -> Result<Vec<Snapshot>, StoreError> {
        let lookups = reads
            .iter()
            .map(|read| 1 + read.documents.len() + usize::from(read.newest.is_some()))
            .sum();
        self.reads
            .view(lookups, move |view| {
                reads.iter().map(|read| view.snapshot(read)).collect()
            })
            .await
    }

    async fn documents(
        &self,
        partition: &Partition,
        keys: Vec<(Table, DocumentKey)>,
        bytes: usize,
    ) -> Result<Vec<Option<Document>>, StoreError> {
        let partition = partition.clone();
        self.reads
            .view(keys.len(), move |view| {
                view.documents(&partition, &keys, bytes)
            })
            .await
    }

    async fn page(
        &self,
        partition: &Partition,
        table: Table,
        range: Range,
        limit: usize,
    ) -> Result<(Page, PartitionHead), StoreError> {
        let partition = partition.clone();
        self.reads
            .view(limit, move |view| {
                view.page(&partition, table, &range, limit)
            })
            .await
    }

    async fn log(
        &self,
        partition: &Partition,
        after: Position,
        limit: usize,
    ) -> Result<Log, StoreError> {
        let partition = partition.clone();
        self.reads
            .view(limit, move |view| view.log(&partition, after, limit))
            .await
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
        self.ask(|answer| WriteRequest::Purge {
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
        if self.status.writing_for() > DEADLINE {
            return Err(StoreError::Unavailable(
                "the disk does not complete a write".to_owned(),
            ));
        }
        // If the last write failed, only another write shows whether writes work again.
        if self.health.failing.load(Ordering::Relaxed) || self.requests.is_closed() {
            self.ask(|answer| WriteRequest::Probe { answer }).await?;
        }
        Ok((self.clock)())
    }
}
