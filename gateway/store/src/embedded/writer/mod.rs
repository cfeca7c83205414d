//! The writer: a thread that combines waiting requests into one group of the journal, so that they
//! share one sync.

mod request;
mod sweep;
mod transaction;

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use bytes::Bytes;
use fanout::bus::Local;
use tokio::{
    sync::{SetOnce, mpsc},
    time::{Instant, timeout_at},
};

pub(super) use self::request::WriteRequest;
use self::transaction::{GroupDraft, Planner, Response};
use super::{
    Clock,
    checkpoint::{Checkpoints, Pieces},
    disk::Disk,
    journal::{self, AppendError, Journal, Purpose},
    status::JournalStatus,
};
use crate::{Keep, Partition, StoreError};

/// Maximum number of queued requests. Further callers wait for a place until their deadline.
pub(super) const QUEUE_LENGTH: usize = 4_096;

/// Maximum number of requests per group. Limits the work given to a slow disk at once.
const REQUESTS_PER_GROUP: usize = 1_024;

/// Bytes of changes after which a group takes no further request.
const BYTES_PER_GROUP: usize = 2 << 20;

/// Maximum number of unpublished groups, after which the writer waits for the publisher.
const UNPUBLISHED_GROUPS: usize = 16;

/// Interval between sweeps of expired partitions.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// Maximum time that a group waits for a checkpoint to make room in memory.
const ROOM_TIMEOUT: Duration = Duration::from_secs(1);

/// When a checkpoint begins, and when commits have to wait for one.
#[derive(Debug, Clone, Copy)]
pub(super) struct CheckpointLimits {
    /// Bytes in memory at which a checkpoint begins.
    pub(super) bytes: usize,
    /// Age of changes at which a checkpoint begins, so that an idle node starts quickly after a
    /// crash.
    pub(super) age: Duration,
    /// Bytes in memory at which commits wait. Removals have a quarter more.
    pub(super) max_bytes: usize,
    /// The transactions of a checkpoint.
    pub(super) pieces: Pieces,
}

impl Default for CheckpointLimits {
    fn default() -> Self {
        Self {
            bytes: 32 << 20,
            age: Duration::from_secs(300),
            max_bytes: 128 << 20,
            pieces: Pieces::DEFAULT,
        }
    }
}

/// State of the writer that other threads may read.
#[derive(Debug, Clone, Default)]
pub(super) struct Health {
    /// Whether the most recent write failed.
    pub(super) failing: Arc<AtomicBool>,
    /// Set when no further write can succeed.
    pub(super) broken: Arc<SetOnce<()>>,
}

/// Parts that the writer works with.
pub(super) struct WriterParts {
    pub(super) disk: Arc<Disk>,
    pub(super) journal: Journal,
    pub(super) checkpoints: Checkpoints,
    pub(super) limits: CheckpointLimits,
    pub(super) keep: Keep,
    pub(super) clock: Clock,
    pub(super) bus: Arc<Local>,
    pub(super) health: Health,
    pub(super) status: Arc<JournalStatus>,
    pub(super) requests: mpsc::Receiver<WriteRequest>,
}

/// Starts the writer and publisher threads.
pub(super) fn start(parts: WriterParts) -> io::Result<[JoinHandle<()>; 2]> {
    let (publish, published) = sync_channel(UNPUBLISHED_GROUPS);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()?;
    let WriterParts {
        disk,
        journal,
        checkpoints,
        limits,
        keep,
        clock,
        bus,
        health,
        status,
        requests,
    } = parts;
    let writer = Writer {
        planner: Planner { keep, clock },
        disk,
        journal,
        checkpoints,
        limits,
        changed_since: None,
        health,
        status,
        requests,
        publish,
    };
    Ok([
        thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || runtime.block_on(writer.run()))?,
        thread::Builder::new()
            .name("store-publisher".into())
            .spawn(move || publish_groups(&bus, &published))?,
    ])
}

/// Publishes durable records in the order of their commits. Runs in its own thread, so that the
/// next sync does not wait for listeners.
fn publish_groups(bus: &Local, groups: &Receiver<Vec<(Partition, Vec<Bytes>)>>) {
    for group in groups {
        for (partition, records) in group {
            for record in records {
                bus.publish(partition.name(), record);
            }
        }
    }
}

struct Writer {
    disk: Arc<Disk>,
    planner: Planner,
    journal: Journal,
    checkpoints: Checkpoints,
    limits: CheckpointLimits,
    /// When the first change after the last freeze was made.
    changed_since: Option<Instant>,
    health: Health,
    status: Arc<JournalStatus>,
    requests: mpsc::Receiver<WriteRequest>,
    publish: SyncSender<Vec<(Partition, Vec<Bytes>)>>,
}

/// Why a group was not written.
#[derive(Debug, thiserror::Error)]
enum WriteError {
    /// There is no room for it. Nothing was written, and the journal can be used further.
    #[error("{0}")]
    NoRoom(String),
    /// The store cannot be read or written to.
    #[error("{0}")]
    Failed(String),
    /// It is unknown what the journal has. Nothing more is acknowledged until the store is opened
    /// again.
    #[error("the journal cannot be written, restart the node: {0}")]
    Broken(String),
}

impl From<heed::Error> for WriteError {
    fn from(error: heed::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<&WriteError> for StoreError {
    fn from(error: &WriteError) -> Self {
        match error {
            WriteError::NoRoom(_) => Self::Full(error.to_string()),
            WriteError::Failed(_) | WriteError::Broken(_) => Self::Unavailable(error.to_string()),
        }
    }
}

impl Writer {
    async fn run(mut self) {
        let mut group = Vec::new();
        let mut is_open = true;
        let mut swept_at = Instant::now();
        while is_open {
            let request = self.requests.recv_many(&mut group, REQUESTS_PER_GROUP);
            match timeout_at(swept_at + SWEEP_INTERVAL, request).await {
                // All senders are dropped.
                Ok(0) => is_open = false,
                Ok(_) => {
                    if let Some(close) = group
                        .iter()
                        .position(|request| matches!(request, WriteRequest::Close))
                    {
                        is_open = false;
                        // Dropping a request's sender refuses it.
                        group.truncate(close);
                    }
                    // Without a publisher, commits are refused: their events would be lost.
                    is_open &= self.serve(&mut group);
                }
                Err(_) => {}
            }
            // While entries are left to remove, sweeps alternate with groups.
            if swept_at.elapsed() >= SWEEP_INTERVAL && !self.sweep() {
                swept_at = Instant::now();
            }
            self.begin_checkpoint(self.limits.bytes);
            self.status.set_bytes(self.journal.bytes());
        }
        self.finish();
    }

    /// Brings the trees up to date, so that a store that is closed has a short journal.
    fn finish(mut self) {
        for _ in 0..2 {
            while self.checkpoints.is_running() && !self.checkpoints.is_failing() {
                self.checkpoints.wait(ROOM_TIMEOUT);
            }
            if !self.checkpoints.is_running() {
                self.begin_checkpoint(0);
            }
        }
    }

    /// Begins a checkpoint if there are so many bytes of changes, or old ones, and none is running.
    fn begin_checkpoint(&mut self, bytes: usize) {
        let Some(changed_since) = self.changed_since else {
            return;
        };
        let is_due =
            self.disk.memory_bytes().0 >= bytes || changed_since.elapsed() >= self.limits.age;
        if is_due && !self.checkpoints.is_running() && !self.is_broken() {
            self.changed_since = None;
            self.checkpoints
                .begin(self.disk.freeze(), self.journal.last());
        }
    }

    fn is_broken(&self) -> bool {
        self.health.broken.initialized()
    }

    /// Releases dead readers and removes expired partitions. Returns whether more is left to
    /// remove.
    fn sweep(&mut self) -> bool {
        match self.disk.release_dead_readers() {
            Ok(0) => {}
            Ok(readers) => tracing::info!(readers, "released the readers of ended processes"),
            Err(error) => {
                tracing::warn!(%error, "cannot release the readers of ended processes, which may keep freed pages from reuse")
            }
        }
        self.remove_expired().unwrap_or_else(|error| {
            if !self.health.failing.swap(true, Ordering::Relaxed) {
                tracing::error!(%error, "the store cannot remove expired partitions, will retry");
            }
            false
        })
    }

    fn remove_expired(&mut self) -> Result<bool, WriteError> {
        let (reads, memory) = self.disk.begin()?;
        let mut draft = GroupDraft::new(memory);
        let changes = sweep::remove_expired(reads.trees(&draft.memory), (self.planner.clock)())
            .map_err(|fault| WriteError::Failed(fault.to_string()))?;
        drop(reads);
        if changes.is_empty() {
            return Ok(false);
        }
        draft.apply(changes, Purpose::Remove);
        self.write(draft)?;
        Ok(true)
    }

    /// Serves requests, in one group or, if they are large, in several. Returns false if the
    /// publisher has ended.
    fn serve(&mut self, requests: &mut Vec<WriteRequest>) -> bool {
        // Requests whose callers no longer wait are skipped.
        requests.retain(|request| match request {
            WriteRequest::Commit { answer, .. } => !answer.is_closed(),
            WriteRequest::Purge { answer, .. } => !answer.is_closed(),
            WriteRequest::Load { answer, .. } => !answer.is_closed(),
            WriteRequest::RemovePartitions { answer, .. } => !answer.is_closed(),
            WriteRequest::Probe { .. } | WriteRequest::Close => true,
        });
        let probes: Vec<_> = requests
            .extract_if(.., |request| matches!(request, WriteRequest::Probe { .. }))
            .collect();
        let mut is_published = true;
        // What is left after the end of the publisher is refused when it is dropped.
        while is_published && !requests.is_empty() {
            match self.write_group(requests) {
                Ok(responses) => is_published = self.respond(requests, responses),
                Err(error @ WriteError::NoRoom(_)) => {
                    // What removes something may still have room.
                    let mut stores: Vec<_> = requests
                        .extract_if(.., |request| request.purpose() == Purpose::Store)
                        .collect();
                    if stores.is_empty() {
                        self.refuse(requests, &error);
                    } else {
                        self.refuse(&mut stores, &error);
                    }
                }
                Err(error) => self.refuse(requests, &error),
            }
        }
        if !probes.is_empty() {
            let result = self.probe().map_err(|error| StoreError::from(&error));
            self.health
                .failing
                .store(result.is_err(), Ordering::Relaxed);
            for probe in probes {
                if let WriteRequest::Probe { answer } = probe {
                    drop(answer.send(result.clone()));
                }
            }
        }
        is_published
    }

    /// Plans as many of the requests as fit into a group, and makes the group durable. Returns the
    /// responses to them.
    fn write_group(&mut self, requests: &[WriteRequest]) -> Result<Vec<Response>, WriteError> {
        let purpose = requests
            .iter()
            .map(WriteRequest::purpose)
            .find(|purpose| *purpose == Purpose::Store)
            .unwrap_or(Purpose::Remove);
        self.wait_for_room(purpose)?;
        let (reads, memory) = self.disk.begin()?;
        let mut draft = GroupDraft::new(memory);
        let mut responses = Vec::with_capacity(requests.len());
        for request in requests {
            responses.push(self.planner.apply(&reads, &mut draft, request)?);
            if draft.journal.length() >= BYTES_PER_GROUP {
                break;
            }
        }
        drop(reads);
        self.write(draft)?;
        Ok(responses)
    }

    /// Appends a group to the journal, and then shows its changes to readers.
    fn write(&mut self, draft: GroupDraft) -> Result<(), WriteError> {
        if draft.journal.is_empty() {
            return Ok(());
        }
        if self.is_broken() {
            return Err(WriteError::Broken("an earlier write failed".to_owned()));
        }
        let status = self.status.clone();
        let appended = status.writing(|| {
            self.journal.reserve(&draft.journal, draft.purpose)?;
            self.journal.append(draft.journal)
        });
        match appended {
            Ok((_, sync_time)) => self.status.synced(sync_time),
            Err(AppendError::NotWritten(error)) if journal::has_no_room(&error) => {
                return Err(WriteError::NoRoom(error.to_string()));
            }
            Err(AppendError::NotWritten(error)) => {
                return Err(WriteError::Failed(error.to_string()));
            }
            Err(AppendError::Unknown(error)) => {
                // Does nothing if it is set already.
                let _ = self.health.broken.set(());
                return Err(WriteError::Broken(error.to_string()));
            }
        }
        self.disk.publish(draft.memory.active);
        self.changed_since.get_or_insert_with(Instant::now);
        Ok(())
    }

    /// Waits while too much is in memory only.
    fn wait_for_room(&mut self, purpose: Purpose) -> Result<(), WriteError> {
        let max = match purpose {
            Purpose::Store => self.limits.max_bytes,
            Purpose::Remove => self.limits.max_bytes + self.limits.max_bytes / 4,
        };
        if self.disk.memory_bytes().1 < max {
            return Ok(());
        }
        self.begin_checkpoint(0);
        let deadline = Instant::now() + ROOM_TIMEOUT;
        while self.disk.memory_bytes().1 >= max {
            if self.checkpoints.is_failing() || Instant::now() >= deadline {
                return Err(WriteError::NoRoom(
                    "the disk does not take what is in memory and in the journal".to_owned(),
                ));
            }
            self.checkpoints.wait(deadline - Instant::now());
            self.begin_checkpoint(0);
        }
        Ok(())
    }

    fn refuse(&self, requests: &mut Vec<WriteRequest>, error: &WriteError) {
        if !self.health.failing.swap(true, Ordering::Relaxed) {
            tracing::error!(%error, "the store cannot write, commits are refused until it can");
        }
        for request in requests.drain(..) {
            // Sending fails if the caller no longer waits.
            match request {
                WriteRequest::Commit { answer, .. } => drop(answer.send(Err(error.into()))),
                WriteRequest::Purge { answer, .. } => drop(answer.send(Err(error.into()))),
                WriteRequest::Load { answer, .. } => drop(answer.send(Err(error.into()))),
                WriteRequest::RemovePartitions { answer, .. } => {
                    drop(answer.send(Err(error.into())))
                }
                WriteRequest::Probe { .. } | WriteRequest::Close => {}
            }
        }
    }

    /// Tests whether commits can be written.
    fn probe(&mut self) -> Result<(), WriteError> {
        self.wait_for_room(Purpose::Store)?;
        let mut draft = GroupDraft::new(self.disk.memory());
        draft.apply_probe();
        self.write(draft)
    }

    /// Passes the group's records to the publisher, then answers its requests and removes them.
    /// Returns false if the publisher has ended.
    fn respond(&self, requests: &mut Vec<WriteRequest>, mut responses: Vec<Response>) -> bool {
        let mut records = Vec::new();
        for (request, response) in requests.iter().zip(&mut responses) {
            if let (WriteRequest::Commit { partition, .. }, Response::Commit(Ok(Ok(plan)))) =
                (request, response)
                && !plan.records.is_empty()
            {
                records.push((partition.clone(), std::mem::take(&mut plan.records)));
            }
        }
        let is_published = records.is_empty() || self.publish.send(records).is_ok();
        if !is_published {
            tracing::error!(
                "a bus listener panicked and ended the publisher, commits are refused: restart the node"
            );
        }
        for (request, response) in requests.drain(..responses.len()).zip(responses) {
            // Sending fails if the caller no longer waits.
            match (request, response) {
                (WriteRequest::Commit { answer, .. }, Response::Commit(result)) => {
                    drop(answer.send(result.map(|decision| decision.map(|plan| plan.outcome))))
                }
                (WriteRequest::Purge { answer, .. }, Response::Purge(result)) => {
                    drop(answer.send(result))
                }
                (WriteRequest::Load { answer, .. }, Response::Load(result)) => {
                    drop(answer.send(result))
                }
                (
                    WriteRequest::RemovePartitions { answer, .. },
                    Response::RemovePartitions(result),
                ) => drop(answer.send(result)),
                _ => unreachable!("a response has the kind of its request"),
            }
        }
        is_published
    }
}
