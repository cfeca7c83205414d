//! The writer: a thread that combines waiting requests into one transaction, so that they share one
//! sync.

mod request;
mod sweep;
mod transaction;

use std::{
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
use self::transaction::{Response, Transactions};
use super::{
    Clock,
    disk::{self, Disk},
    view::Fault,
};
use crate::{Keep, Partition, StoreError};

/// Maximum number of queued requests. Further callers wait for a place until their deadline.
pub(super) const QUEUE_LENGTH: usize = 4_096;

/// Maximum number of requests per transaction. Limits the work given to a slow disk at once.
const REQUESTS_PER_TRANSACTION: usize = 1_024;

/// Maximum number of unpublished groups, after which the writer waits for the publisher.
const UNPUBLISHED_GROUPS: usize = 16;

/// Interval between sweeps of expired partitions.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// Size of the value that a probe writes. Large, because a small commit finds room among freed
/// pages even on a full disk.
const PROBE_BYTES: usize = 1 << 20;

/// State of the writer that other threads may read.
pub(super) struct Health {
    /// Whether the most recent write failed.
    pub(super) failing: Arc<AtomicBool>,
    /// Set when no further write can succeed.
    pub(super) broken: Arc<SetOnce<()>>,
}

/// Starts the writer and publisher threads.
pub(super) fn start(
    disk: Arc<Disk>,
    keep: Keep,
    clock: Clock,
    bus: Arc<Local>,
    health: Health,
    requests: mpsc::Receiver<WriteRequest>,
) -> std::io::Result<[JoinHandle<()>; 2]> {
    let (publish, published) = sync_channel(UNPUBLISHED_GROUPS);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()?;
    let writer = Writer {
        transactions: Transactions {
            disk: disk.clone(),
            keep,
            clock: clock.clone(),
        },
        disk,
        clock,
        health,
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
    clock: Clock,
    transactions: Transactions,
    health: Health,
    requests: mpsc::Receiver<WriteRequest>,
    publish: SyncSender<Vec<(Partition, Vec<Bytes>)>>,
}

impl Writer {
    async fn run(mut self) {
        let mut group = Vec::new();
        let mut is_open = true;
        let mut swept_at = Instant::now();
        while is_open {
            let request = self
                .requests
                .recv_many(&mut group, REQUESTS_PER_TRANSACTION);
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
        }
    }

    /// Releases dead readers and removes expired partitions. Returns whether more is left to
    /// remove.
    fn sweep(&self) -> bool {
        match self.disk.release_dead_readers() {
            Ok(0) => {}
            Ok(readers) => tracing::info!(readers, "released the readers of ended processes"),
            Err(error) => {
                tracing::warn!(%error, "cannot release the readers of ended processes, which may keep freed pages from reuse")
            }
        }
        let is_full =
            |fault: &Fault| matches!(fault, Fault::Storage(error) if disk::is_full(error));
        self.with_growth(
            || sweep::remove_expired(&self.disk, (self.clock)()),
            is_full,
        )
        .unwrap_or_else(|fault| {
            if !self.health.failing.swap(true, Ordering::Relaxed) {
                tracing::error!(%fault, "the store cannot remove expired partitions, will retry");
            }
            false
        })
    }

    /// Serves a group of requests in one transaction. Returns false if the publisher has ended.
    fn serve(&self, group: &mut Vec<WriteRequest>) -> bool {
        // Requests whose callers no longer wait are skipped.
        group.retain(|request| match request {
            WriteRequest::Commit { answer, .. } => !answer.is_closed(),
            WriteRequest::Purge { answer, .. } => !answer.is_closed(),
            WriteRequest::Load { answer, .. } => !answer.is_closed(),
            WriteRequest::RemovePartitions { answer, .. } => !answer.is_closed(),
            WriteRequest::Probe { .. } | WriteRequest::Close => true,
        });
        let probes: Vec<_> = group
            .extract_if(.., |request| matches!(request, WriteRequest::Probe { .. }))
            .collect();
        let mut is_published = true;
        if !group.is_empty() {
            match self.with_growth(|| self.transactions.apply(group), disk::is_full) {
                Ok(responses) => is_published = self.respond(group, responses),
                Err(error) => self.refuse(group, &error),
            }
        }
        if !probes.is_empty() {
            let result = self
                .with_growth(|| self.probe(), disk::is_full)
                .map_err(|error| {
                    self.note_broken(&error);
                    unavailable(&error)
                });
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

    fn note_broken(&self, error: &heed::Error) {
        if disk::is_broken(error) {
            // Does nothing if it is set already.
            let _ = self.health.broken.set(());
        }
    }

    fn refuse(&self, group: &mut Vec<WriteRequest>, error: &heed::Error) {
        self.note_broken(error);
        if !self.health.failing.swap(true, Ordering::Relaxed) {
            tracing::error!(%error, "the store cannot write, commits are refused until it can");
        }
        for request in group.drain(..) {
            // Sending fails if the caller no longer waits.
            match request {
                WriteRequest::Commit { answer, .. } => drop(answer.send(Err(unavailable(error)))),
                WriteRequest::Purge { answer, .. } => drop(answer.send(Err(unavailable(error)))),
                WriteRequest::Load { answer, .. } => drop(answer.send(Err(unavailable(error)))),
                WriteRequest::RemovePartitions { answer, .. } => {
                    drop(answer.send(Err(unavailable(error))))
                }
                WriteRequest::Probe { .. } | WriteRequest::Close => {}
            }
        }
    }

    /// Writes a large value and deletes it again.
    fn probe(&self) -> heed::Result<()> {
        for value in [Some(vec![0; PROBE_BYTES]), None] {
            let mut txn = self.disk.write()?;
            match value {
                Some(value) => self.disk.meta.put(&mut txn, b"probe", &value)?,
                None => drop(self.disk.meta.delete(&mut txn, b"probe")?),
            }
            txn.commit()?;
        }
        Ok(())
    }

    /// Retries an attempt in a larger map while it fails because the map is full.
    fn with_growth<T, E: From<heed::Error>>(
        &self,
        mut attempt: impl FnMut() -> Result<T, E>,
        is_full: impl Fn(&E) -> bool,
    ) -> Result<T, E> {
        loop {
            match attempt() {
                Err(error) if is_full(&error) => {
                    let size = self.disk.grow()?;
                    tracing::info!(size, "grew the store's memory map");
                }
                result => return result,
            }
        }
    }

    /// Passes the group's records to the publisher, then answers the requests. Returns false if the
    /// publisher has ended.
    fn respond(&self, group: &mut Vec<WriteRequest>, mut responses: Vec<Response>) -> bool {
        let mut records = Vec::new();
        for (request, response) in group.iter().zip(&mut responses) {
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
        for (request, response) in group.drain(..).zip(responses) {
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
                (WriteRequest::RemovePartitions { answer, .. }, Response::Wipe(result)) => {
                    drop(answer.send(result))
                }
                _ => unreachable!("a response has the kind of its request"),
            }
        }
        is_published
    }
}

fn unavailable(error: &heed::Error) -> StoreError {
    StoreError::Unavailable(error.to_string())
}
