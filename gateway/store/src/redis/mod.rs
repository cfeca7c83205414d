//! The store on Redis, Valkey and compatible servers: single, Sentinel or Cluster.
//!
//! This module owns the layout of keys ([`keys`]), the Lua scripts with their plans and replies,
//! and the check of the server's settings. [`chaos_redis`] owns connections, routing and
//! redirections.
//!
//! Large reads take turns on a connection of their own ([`large`]).
//!
//! A commit is one Lua script, called by its hash. The script reads and checks first, then writes
//! and publishes. It uses only declared keys, all of them in one slot. If the server refuses the
//! script, nothing was written: the script checks its user's permissions before its first write.
//! (Redis 6 cannot check them in a script; nodes try all commands when they start and every second,
//! and commit nothing while one is forbidden. Likewise they ask every second whether a master evicts
//! keys, and commit nothing to it while it does ([`policy`]).) If the connection breaks or the reply is late, the outcome is
//! unknown and the commit is *not* retried: the call returns [`StoreError::Unavailable`], and the
//! caller retries if its preconditions make that safe.
//!
//! While a Cluster slot migrates, the server replies `TRYAGAIN` to a script that has keys on both
//! nodes or creates a key. The script is retried until the deadline, so a partition may be
//! unavailable until its slot has migrated. Other slots are not affected.
//!
//! The script publishes the events. With `appendfsync always` the server writes its append-only
//! file before it sends any reply or message, so listeners receive only durable events.

mod check;
mod commit;
mod hints;
mod keys;
mod large;
mod lease;
mod plan;
mod policy;
mod probe;
mod purge;
mod read;
mod script;
mod stored;
#[cfg(test)]
mod tests;
mod transfer;

use std::{
    sync::atomic::{AtomicBool, AtomicI64, Ordering},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use chaos_redis::{Commands, Deployment, Names, Replicas};
use fanout::Position;
use futures_util::future::{join_all, try_join_all};
use parking_lot::Mutex;

pub use check::{Unfit, Warnings};
use large::{LargeReads, Size};

use super::{
    Availability, Commit, Committed, DEADLINE, Document, DocumentKey, Keep, Log, Page, Partition,
    PartitionHead, Purged, Range, Read, Require, Snapshot, Store, StoreError, Table,
};

/// A store on a Redis deployment. Nodes that open the same deployment share all data.
pub struct Redis {
    commands: Commands,
    large_reads: LargeReads,
    names: Names,
    keep: Keep,
    replicas: Option<Replicas>,
    hints: hints::Hints,
    /// The nodes that had leases when last read.
    nodes: Mutex<Vec<String>>,
    /// Whether the server's memory was full when last probed.
    is_full: AtomicBool,
    permissions: check::Permissions,
    evicting: policy::EvictingMasters,
    /// Milliseconds by which tests move the clock.
    offset: AtomicI64,
}

impl Redis {
    /// Opens the store without waiting for a connection. Needs a tokio runtime. See also
    /// [`check`](Self::check).
    pub fn open(deployment: &Deployment, keep: Keep) -> Self {
        Self::open_with(deployment, Names::of(deployment), keep, None)
    }

    /// Opens the store with names for keys and channels, and optionally waits for replicas: a
    /// commit then returns when they have it, or [`StoreError::Unavailable`] if they take too long.
    /// In that case the commit was applied, but is lost if the master fails.
    pub fn open_with(
        deployment: &Deployment,
        names: Names,
        keep: Keep,
        replicas: Option<Replicas>,
    ) -> Self {
        let commands = Commands::open_with(deployment, replicas);
        Self {
            large_reads: LargeReads::new(&commands),
            commands,
            names,
            keep,
            replicas,
            hints: hints::Hints::default(),
            nodes: Mutex::default(),
            is_full: AtomicBool::new(false),
            permissions: check::Permissions::default(),
            evicting: policy::EvictingMasters::default(),
            offset: AtomicI64::new(0),
        }
    }

    /// Checks version, mode, eviction policy and durability of every master, and the permissions of
    /// this user. Opens its own connections. Meant for the start of a node, when the deployment can
    /// be reached.
    ///
    /// # Errors
    ///
    /// [`Unfit`] if the deployment cannot be used, or cannot be checked now.
    pub async fn check(&self) -> Result<Warnings, Unfit> {
        check::check(self).await
    }

    /// Returns the deployment of the store.
    pub fn deployment(&self) -> &Deployment {
        self.commands.deployment()
    }

    fn keys<'a>(&'a self, partition: &'a Partition) -> keys::Keys<'a> {
        keys::Keys::of(&self.names, partition)
    }

    /// Returns the known master of a partition on a Cluster.
    fn master_of(&self, partition: &Partition) -> Option<String> {
        let owner = self.commands.owner(&self.keys(partition).head())?;
        Some(owner.to_string())
    }

    fn publish_command(&self) -> &'static str {
        self.deployment().publish_command()
    }

    fn clock_offset(&self) -> i64 {
        self.offset.load(Ordering::Relaxed)
    }

    /// Logs when the server's memory becomes full, and when it no longer is.
    fn note_fullness(&self, is_full: bool) {
        match (self.is_full.swap(is_full, Ordering::Relaxed), is_full) {
            (false, true) => tracing::warn!(
                "Redis has reached its maxmemory, only reads, deletions and revocations succeed: raise it, or delete data"
            ),
            (true, false) => tracing::info!("Redis has free memory again"),
            _ => {}
        }
    }

    #[cfg(test)]
    fn step_clock(&self, millis: i64) {
        self.offset.fetch_add(millis, Ordering::Relaxed);
    }
}

impl std::fmt::Debug for Redis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Redis({})", self.deployment())
    }
}

/// Timeout of the work of a call; below [`DEADLINE`] so that the call itself ends in time.
const CALL_TIMEOUT: Duration = DEADLINE.saturating_sub(Duration::from_millis(200));

async fn with_timeout<T>(
    work: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    tokio::time::timeout(CALL_TIMEOUT, work)
        .await
        .unwrap_or_else(|_| {
            Err(StoreError::Unavailable(format!(
                "Redis did not answer within {} ms",
                CALL_TIMEOUT.as_millis()
            )))
        })
}

#[async_trait]
impl Store for Redis {
    async fn commit(&self, partition: &Partition, commit: Commit) -> Committed {
        self.permissions.suffice()?;
        if !commit.frees {
            self.evicting.admit(|| self.master_of(partition))?;
        }
        with_timeout(commit::commit_one(self, partition, &commit)).await
    }

    /// Calls one script per partition. The calls are pipelined on the connection of their shard,
    /// unless the read is large: then they take turns.
    async fn read(&self, reads: Vec<Read>) -> Result<Vec<Snapshot>, StoreError> {
        let size = Size::of_reads(&reads);
        with_timeout(try_join_all(
            reads
                .into_iter()
                .map(|read| read::snapshot(self, read, size)),
        ))
        .await
    }

    /// Each head is one string, read by a plain command; the commands are pipelined.
    async fn heads(&self, partitions: &[Partition]) -> Vec<Result<Position, StoreError>> {
        let heads = partitions
            .iter()
            .map(|partition| with_timeout(read::head_position(self, partition)));
        join_all(heads).await
    }

    async fn documents(
        &self,
        partition: &Partition,
        keys: Vec<(Table, DocumentKey)>,
        bytes: usize,
    ) -> Result<Vec<Option<Document>>, StoreError> {
        let read = Read {
            partition: partition.clone(),
            documents: keys,
            newest: None,
        };
        let size = Size::of_reads(std::slice::from_ref(&read));
        Ok(with_timeout(read::snapshot_within(self, read, bytes, size))
            .await?
            .documents)
    }

    async fn page(
        &self,
        partition: &Partition,
        table: Table,
        range: Range,
        limit: usize,
    ) -> Result<(Page, PartitionHead), StoreError> {
        let (page, stored) =
            with_timeout(read::page_of(self, partition, table, range, limit)).await?;
        Ok((page, stored.head))
    }

    async fn log(
        &self,
        partition: &Partition,
        after: Position,
        limit: usize,
    ) -> Result<Log, StoreError> {
        with_timeout(read::log_after(self, partition, after, limit)).await
    }

    async fn publish(&self, topic: &fanout::Topic, record: Bytes) -> Result<(), StoreError> {
        let mut cmd = redis::Cmd::new();
        cmd.arg(self.publish_command())
            .arg(self.names.channel(topic))
            .arg(&record[..]);
        let run = async { self.commands.run(&cmd).await.map_err(script::unavailable) };
        match with_timeout(run).await?.value {
            redis::Value::ServerError(error) => Err(script::refused(&error)),
            _ => Ok(()),
        }
    }

    async fn purge(
        &self,
        partition: &Partition,
        table: Table,
        require: Option<Require>,
        limit: usize,
    ) -> Purged {
        with_timeout(purge::purge_some(
            self,
            partition,
            table,
            require.as_ref(),
            limit,
        ))
        .await
    }

    async fn lease(
        &self,
        node: &str,
        ttl: Duration,
        members: Vec<(String, u32)>,
    ) -> Result<bool, StoreError> {
        with_timeout(lease::renew_lease(self, node, ttl, members)).await
    }

    async fn release(&self, node: &str) -> Result<(), StoreError> {
        with_timeout(lease::release_lease(self, node)).await
    }

    async fn members(&self, members: &[String]) -> Result<Vec<u32>, StoreError> {
        with_timeout(lease::count_sessions(self, members)).await
    }

    async fn sweep(&self) -> Result<Vec<String>, StoreError> {
        with_timeout(lease::sweep_ended(self)).await
    }

    /// On a Cluster, asks the shard that has the leases.
    async fn now(&self) -> Result<u64, StoreError> {
        let tries_commands = self.permissions.are_due();
        let mut answer = probe::run_now(self, "leases", tries_commands).await?;
        let now = answer.int()?;
        self.note_fullness(answer.int()? == 1);
        if tries_commands {
            self.permissions.set(&answer.texts()?);
        }
        self.permissions.suffice()?;
        Ok(now.saturating_add_signed(self.clock_offset()))
    }

    /// On a Cluster, asks every master.
    async fn probe(&self) -> Result<Availability, StoreError> {
        probe::probe(self).await
    }
}
