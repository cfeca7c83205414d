//! The one writer: a thread that joins waiting commits into one transaction, so that one sync serves them all.

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
use heed::RwTxn;
use tokio::{
    sync::{SetOnce, mpsc, oneshot},
    time::{Instant, timeout_at},
};

use super::{
    Clock,
    disk::{self, Disk},
    layout::{self, Space},
    plan::{self, Plan},
    sound, transfer,
    view::{Fault, View},
};
use crate::store::{
    Commit, Committed, Conflict, Keep, Order, Partition, Purged, Require, StoreError, Table,
    transfer::{Exists, Loaded, Piece},
};

/// Requests that may wait; one more waits for its place, at most until the deadline of its call.
pub(super) const QUEUE: usize = 4_096;

/// Requests that share a transaction at most: it bounds what a slow disk is given at once.
const GROUP: usize = 1_024;

/// Groups that may wait to be published before the writer waits for the listeners.
const UNPUBLISHED: usize = 16;

/// How often the writer looks for what has expired.
const SWEEP: Duration = Duration::from_secs(1);

/// Partitions that one sweep drops, and entries of dropped partitions that one transaction removes.
const BITE: usize = 1_000;

/// What the writer is asked for.
#[derive(Debug)]
pub(super) enum Request {
    Commit {
        partition: Partition,
        commit: Commit,
        answer: oneshot::Sender<Committed>,
    },
    Purge {
        partition: Partition,
        table: Table,
        require: Option<Require>,
        limit: usize,
        answer: oneshot::Sender<Purged>,
    },
    Load {
        partition: Partition,
        piece: Piece,
        answer: oneshot::Sender<Loaded>,
    },
    Wipe {
        prefix: String,
        answer: oneshot::Sender<Result<bool, StoreError>>,
    },
    /// Whether there is room for writes.
    Probe {
        answer: oneshot::Sender<Result<(), StoreError>>,
    },
    /// What was asked before is done, what comes after is refused.
    Close,
}

/// What was found and done for a request, as long as the transaction is not committed.
enum Done {
    Commit(Result<Result<Plan, Conflict>, StoreError>),
    Purge(Purged),
    Load(Loaded),
    Wipe(Result<bool, StoreError>),
}

/// What a probe writes: a small commit finds room among freed pages even on a full disk, and would tell nothing.
const PROBE: usize = 1 << 20;

/// What others may know of the writer.
pub(super) struct Health {
    /// Whether the newest write failed.
    pub(super) failing: Arc<AtomicBool>,
    /// Set when no further one can succeed.
    pub(super) broken: Arc<SetOnce<()>>,
}

/// Starts the writer and the publisher behind it.
pub(super) fn start(
    disk: Arc<Disk>,
    keep: Keep,
    clock: Clock,
    bus: Arc<Local>,
    health: Health,
    requests: mpsc::Receiver<Request>,
) -> std::io::Result<[JoinHandle<()>; 2]> {
    let (publish, published) = sync_channel(UNPUBLISHED);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()?;
    let writer = Writer {
        disk,
        keep,
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
            .spawn(move || publisher(&bus, &published))?,
    ])
}

/// Publishes what is on the disk, in the order of the commits. A thread of its own, so that the next sync need not wait for listeners.
fn publisher(bus: &Local, groups: &Receiver<Vec<(Partition, Vec<Bytes>)>>) {
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
    keep: Keep,
    clock: Clock,
    health: Health,
    requests: mpsc::Receiver<Request>,
    publish: SyncSender<Vec<(Partition, Vec<Bytes>)>>,
}

impl Writer {
    async fn run(mut self) {
        let mut group = Vec::new();
        let mut open = true;
        let mut swept = Instant::now();
        while open {
            match timeout_at(swept + SWEEP, self.requests.recv_many(&mut group, GROUP)).await {
                // Nobody can ask any more.
                Ok(0) => open = false,
                Ok(_) => {
                    if let Some(close) = group
                        .iter()
                        .position(|request| matches!(request, Request::Close))
                    {
                        open = false;
                        // Whoever came after the end hears so, as their answers are dropped.
                        group.truncate(close);
                    }
                    // Commits that nobody would hear of are refused rather than kept quiet.
                    open &= self.serve(&mut group);
                }
                Err(_) => {}
            }
            // While something is left to remove, it takes turns with the groups.
            if swept.elapsed() >= SWEEP && !self.swept() {
                swept = Instant::now();
            }
        }
    }

    /// Sweeps once; whether there is more to sweep.
    fn swept(&self) -> bool {
        match self.disk.forget_readers() {
            Ok(0) => {}
            Ok(readers) => tracing::info!(readers, "readers of the store that died are forgotten"),
            Err(error) => {
                tracing::warn!(%error, "readers of the store that died may still hold up what was freed")
            }
        }
        let is_full =
            |fault: &Fault| matches!(fault, Fault::Storage(error) if disk::is_full(error));
        self.growing(|| self.sweep(), is_full).unwrap_or_else(|fault| {
            if !self.health.failing.swap(true, Ordering::Relaxed) {
                tracing::error!(%fault, "the store cannot remove what has expired: it is tried again");
            }
            false
        })
    }

    /// Does what a group asks for, in one transaction, and answers. False when nobody publishes any more.
    fn serve(&self, group: &mut Vec<Request>) -> bool {
        // Nobody waits any more for what was given up: it is as if it had never been asked.
        group.retain(|request| match request {
            Request::Commit { answer, .. } => !answer.is_closed(),
            Request::Purge { answer, .. } => !answer.is_closed(),
            Request::Load { answer, .. } => !answer.is_closed(),
            Request::Wipe { answer, .. } => !answer.is_closed(),
            Request::Probe { .. } | Request::Close => true,
        });
        let probes: Vec<_> = group
            .extract_if(.., |request| matches!(request, Request::Probe { .. }))
            .collect();
        let mut published = true;
        if !group.is_empty() {
            match self.growing(|| self.transact(group), disk::is_full) {
                Ok(done) => published = self.answer(group, done),
                Err(error) => self.refuse(group, &error),
            }
        }
        if !probes.is_empty() {
            let room = self
                .growing(|| self.probe(), disk::is_full)
                .map_err(|error| {
                    self.notice(&error);
                    unavailable(&error)
                });
            self.health.failing.store(room.is_err(), Ordering::Relaxed);
            for probe in probes {
                if let Request::Probe { answer } = probe {
                    drop(answer.send(room.clone()));
                }
            }
        }
        published
    }

    /// Whether it is the end of all writes.
    fn notice(&self, error: &heed::Error) {
        if disk::is_broken(error) {
            // It may have been noticed before.
            let _ = self.health.broken.set(());
        }
    }

    fn refuse(&self, group: &mut Vec<Request>, error: &heed::Error) {
        self.notice(error);
        if !self.health.failing.swap(true, Ordering::Relaxed) {
            tracing::error!(%error, "the store cannot write: commits are refused until it can");
        }
        for request in group.drain(..) {
            // An answer that nobody waits for is lost rightly.
            match request {
                Request::Commit { answer, .. } => drop(answer.send(Err(unavailable(error)))),
                Request::Purge { answer, .. } => drop(answer.send(Err(unavailable(error)))),
                Request::Load { answer, .. } => drop(answer.send(Err(unavailable(error)))),
                Request::Wipe { answer, .. } => drop(answer.send(Err(unavailable(error)))),
                Request::Probe { .. } | Request::Close => {}
            }
        }
    }

    /// Takes room on the disk, and gives it back to the commits that follow.
    fn probe(&self) -> heed::Result<()> {
        for room in [Some(vec![0; PROBE]), None] {
            let mut txn = self.disk.write()?;
            match room {
                Some(room) => self.disk.meta.put(&mut txn, b"probe", &room)?,
                None => drop(self.disk.meta.delete(&mut txn, b"probe")?),
            }
            txn.commit()?;
        }
        Ok(())
    }

    /// Does it again in a larger map where that was full.
    fn growing<T, E: From<heed::Error>>(
        &self,
        mut attempt: impl FnMut() -> Result<T, E>,
        is_full: impl Fn(&E) -> bool,
    ) -> Result<T, E> {
        loop {
            match attempt() {
                Err(error) if is_full(&error) => {
                    let size = self.disk.grow()?;
                    tracing::info!(size, "the store's map has grown");
                }
                done => return done,
            }
        }
    }

    fn transact(&self, group: &[Request]) -> heed::Result<Vec<Done>> {
        let mut txn = self.disk.write()?;
        let mut done = Vec::with_capacity(group.len());
        for request in group {
            done.push(match request {
                Request::Commit {
                    partition, commit, ..
                } => Done::Commit(own(self.commit(&mut txn, partition, commit))?),
                Request::Purge {
                    partition,
                    table,
                    require,
                    limit,
                    ..
                } => Done::Purge(own(self.purge(
                    &mut txn,
                    partition,
                    *table,
                    require.as_ref(),
                    *limit,
                ))?),
                Request::Load {
                    partition, piece, ..
                } => Done::Load(own(self.load(&mut txn, partition, piece))?),
                Request::Wipe { prefix, .. } => Done::Wipe(own(self.wipe(&mut txn, prefix))?),
                Request::Probe { .. } | Request::Close => {
                    unreachable!("neither is part of a transaction")
                }
            });
        }
        // Returns after the disk's sync.
        txn.commit()?;
        Ok(done)
    }

    fn commit(
        &self,
        txn: &mut RwTxn,
        partition: &Partition,
        commit: &Commit,
    ) -> Result<Result<Plan, Conflict>, Fault> {
        let plan = plan::plan(
            &self.disk,
            txn,
            (self.clock)(),
            commit.keep.unwrap_or(self.keep),
            partition,
            commit,
        )?;
        if let Ok(plan) = &plan {
            plan.write(txn)?;
        }
        Ok(plan)
    }

    fn load(
        &self,
        txn: &mut RwTxn,
        partition: &Partition,
        piece: &Piece,
    ) -> Result<Result<(), Exists>, Fault> {
        let plan = transfer::load(&self.disk, txn, (self.clock)(), partition, piece)?;
        Ok(match plan {
            Ok(plan) => Ok(plan.write(txn)?),
            Err(exists) => Err(exists),
        })
    }

    /// Whether there was as much as one bite.
    fn wipe(&self, txn: &mut RwTxn, prefix: &str) -> Result<bool, Fault> {
        let (plan, found) = transfer::wipe(&self.disk, txn, prefix, BITE)?;
        plan.write(txn)?;
        Ok(found == BITE)
    }

    fn purge(
        &self,
        txn: &mut RwTxn,
        partition: &Partition,
        table: Table,
        require: Option<&Require>,
        limit: usize,
    ) -> Result<Result<bool, Conflict>, Fault> {
        sound::required(partition, require.map_or(&[], std::slice::from_ref))?;
        let Disk {
            entries,
            partitions,
            ..
        } = *self.disk;
        let view = View::new(&self.disk, txn, (self.clock)());
        let state = view.state(partition)?;
        if let Some(Require { table, key, is }) = require {
            let document = state
                .as_ref()
                .map(|state| view.document(state.id, *table, key))
                .transpose()?
                .flatten();
            if !plan::holds(*is, document.as_ref()) {
                return Ok(Err(Conflict {
                    require: vec![0],
                    ..Conflict::default()
                }));
            }
        }
        let Some(mut state) = state else {
            return Ok(Ok(true));
        };
        let id = state.id;
        let prefix = if table.order == Order::Numbers {
            layout::space(id, Space::Numbered)
        } else {
            layout::table(id, table)
        };
        let mut keys = Vec::new();
        let mut found = 0;
        for entry in entries.prefix_iter(txn, &prefix)?.take(limit) {
            let (key, bytes) = entry?;
            found += 1;
            let document = layout::decode_document(bytes)?;
            state.retired = state.retired.max(document.version);
            if table.order == Order::Numbers {
                keys.push(layout::by_key(id, table, &document.key));
                keys.push(layout::by_change(
                    id,
                    document.stamps.seq,
                    document.stamps.number,
                ));
            }
            keys.push(key.to_owned());
        }
        for key in keys {
            entries.delete(txn, &key)?;
        }
        if found > 0 {
            partitions.put(txn, partition.name().as_bytes(), &state.encode())?;
        }
        Ok(Ok(found < limit))
    }

    /// Hands on what is to be published, then answers. False when nobody publishes any more.
    fn answer(&self, group: &mut Vec<Request>, mut done: Vec<Done>) -> bool {
        let mut records = Vec::new();
        for (request, done) in group.iter().zip(&mut done) {
            if let (Request::Commit { partition, .. }, Done::Commit(Ok(Ok(plan)))) = (request, done)
                && !plan.records.is_empty()
            {
                records.push((partition.clone(), std::mem::take(&mut plan.records)));
            }
        }
        let published = records.is_empty() || self.publish.send(records).is_ok();
        if !published {
            tracing::error!(
                "a listener panicked, and nothing can be published any more: the store takes no commits until the next start"
            );
        }
        for (request, done) in group.drain(..).zip(done) {
            // An answer that nobody waits for is lost rightly.
            match (request, done) {
                (Request::Commit { answer, .. }, Done::Commit(done)) => {
                    drop(answer.send(done.map(|done| done.map(|plan| plan.outcome))))
                }
                (Request::Purge { answer, .. }, Done::Purge(done)) => drop(answer.send(done)),
                (Request::Load { answer, .. }, Done::Load(done)) => drop(answer.send(done)),
                (Request::Wipe { answer, .. }, Done::Wipe(done)) => drop(answer.send(done)),
                _ => unreachable!("each request has its own kind of answer"),
            }
        }
        published
    }

    /// Drops partitions that have expired, then removes a bite of what dropped ones left; true if there is more.
    fn sweep(&self) -> Result<bool, Fault> {
        let Disk {
            expiries,
            dropped,
            entries,
            ..
        } = *self.disk;
        let now = (self.clock)();
        let nothing = self.disk.read(|txn| {
            let due = expiries
                .first(txn)?
                .is_some_and(|(key, _)| is_due(key, now));
            Ok::<_, heed::Error>(!due && dropped.first(txn)?.is_none())
        })?;
        if nothing {
            return Ok(false);
        }
        let mut txn = self.disk.write()?;
        let mut due = Vec::new();
        for entry in expiries.iter(&txn)?.take(BITE) {
            let (key, name) = entry?;
            if !is_due(key, now) {
                break;
            }
            due.push((
                key.to_owned(),
                std::str::from_utf8(name).map(Partition::new),
            ));
        }
        for (key, partition) in due {
            if let Ok(partition) = partition {
                let view = View::new(&self.disk, &txn, now);
                if let Some(state) = view
                    .kept(&partition)?
                    .filter(|state| view.has_expired(state))
                {
                    plan::expire(&self.disk, &partition, &state).write(&mut txn)?;
                }
            }
            expiries.delete(&mut txn, &key)?;
        }
        let mut more = false;
        if let Some(id) = dropped.first(&txn)?.map(|(key, _)| key.to_owned()) {
            let keys: Vec<_> = entries
                .prefix_iter(&txn, &id)?
                .take(BITE)
                .map(|entry| Ok(entry?.0.to_owned()))
                .collect::<heed::Result<_>>()?;
            for key in &keys {
                entries.delete(&mut txn, key)?;
            }
            if keys.len() < BITE {
                dropped.delete(&mut txn, &id)?;
            }
            more = true;
        }
        txn.commit()?;
        Ok(more)
    }
}

fn unavailable(error: &heed::Error) -> StoreError {
    StoreError::Unavailable(error.to_string())
}

fn is_due(expiry: &[u8], now: u64) -> bool {
    expiry
        .first_chunk()
        .is_some_and(|at| u64::from_be_bytes(*at) <= now)
}

/// Keeps what went wrong for one request apart from what fails the whole transaction.
fn own<T>(done: Result<T, Fault>) -> heed::Result<Result<T, StoreError>> {
    match done {
        Ok(done) => Ok(Ok(done)),
        Err(Fault::Storage(error)) => Err(error),
        Err(fault) => Ok(Err(fault.into())),
    }
}
