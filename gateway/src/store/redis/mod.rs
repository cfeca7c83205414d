//! The store on Redis, Valkey and what speaks like them: single, Sentinel or Cluster.
//!
//! Owned here: the layout of keys ([`keys`]), the scripts, their plans and answers, the check of the server's settings.
//! Left out: connections, routing and redirections ([`fanout::redis`]).
//!
//! One commit is one Lua script, called by its hash: it reads, checks, and only then writes and publishes. It touches no key
//! that was not declared, and all of them lie in one slot. A server that refused has done nothing; where a connection broke
//! or a reply did not come in time nobody knows, and the commit is *not* sent again: the caller hears
//! [`StoreError::Unavailable`], and repeats it if what it requires makes that harmless.
//!
//! While a slot of a Cluster moves, a script whose keys stand on both sides, or that makes a key, is answered `TRYAGAIN`. It
//! is sent again until the deadline, so a partition may be unavailable until its slot has arrived; other slots are not touched.
//!
//! Events are published by the script, and reach listeners after the server wrote its append-only file (with
//! `appendfsync always`): the file is written before any reply or message leaves.

mod check;
mod commit;
mod hints;
mod keys;
mod lease;
mod plan;
mod purge;
mod read;
mod script;
mod stored;
#[cfg(test)]
mod tests;
mod transfer;

use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use fanout::{
    Position,
    redis::{Commands, Deployment, Replicas},
};
use futures_util::future::try_join_all;
use parking_lot::Mutex;

pub use check::{Unfit, Warnings};

use super::{
    Commit, Committed, DEADLINE, Head, Keep, Log, Page, Partition, Purged, Range, Read, Require,
    Snapshot, Store, StoreError, Table,
};

/// A store on a Redis deployment. All nodes that open the same deployment serve one world.
pub struct Redis {
    commands: Commands,
    keep: Keep,
    replicas: Option<Replicas>,
    hints: hints::Hints,
    /// The nodes that have leases, as seen last.
    nodes: Mutex<Vec<String>>,
    /// Milliseconds that tests move the clock by.
    offset: AtomicI64,
}

impl Redis {
    /// Opens the store, whether or not anything can be reached yet. Needs a tokio runtime. See also [`check`](Self::check).
    pub fn open(deployment: &Deployment, keep: Keep) -> Self {
        Self::open_with(deployment, keep, None)
    }

    /// The same. If replicas are to be waited for, a commit is answered when they have it, and is
    /// [`StoreError::Unavailable`] if that takes too long: then it happened, and may be lost with its master.
    pub fn open_with(deployment: &Deployment, keep: Keep, replicas: Option<Replicas>) -> Self {
        Self {
            commands: Commands::open_with(deployment, replicas),
            keep,
            replicas,
            hints: hints::Hints::default(),
            nodes: Mutex::default(),
            offset: AtomicI64::new(0),
        }
    }

    /// Where it is.
    pub fn deployment(&self) -> &Deployment {
        self.commands.deployment()
    }

    fn publish_command(&self) -> &'static str {
        self.deployment().publish_command()
    }

    fn clock_offset(&self) -> i64 {
        self.offset.load(Ordering::Relaxed)
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

/// A little less than the deadline, so that the answer itself is in time.
const PATIENCE: Duration = DEADLINE.saturating_sub(Duration::from_millis(200));

async fn in_time<T>(work: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    tokio::time::timeout(PATIENCE, work)
        .await
        .unwrap_or_else(|_| {
            Err(StoreError::Unavailable(format!(
                "Redis did not answer within {} ms",
                PATIENCE.as_millis()
            )))
        })
}

#[async_trait]
impl Store for Redis {
    async fn commit(&self, partition: &Partition, commit: Commit) -> Committed {
        in_time(self.commit_one(partition, &commit)).await
    }

    /// Each partition is one call; all leave at once on the connection of their shard.
    async fn read(&self, reads: Vec<Read>) -> Result<Vec<Snapshot>, StoreError> {
        in_time(try_join_all(
            reads.into_iter().map(|read| self.snapshot(read)),
        ))
        .await
    }

    async fn page(
        &self,
        partition: &Partition,
        table: Table,
        range: Range,
        limit: usize,
    ) -> Result<(Page, Head), StoreError> {
        let (page, stored) = in_time(self.page_of(partition, table, range, limit)).await?;
        Ok((page, stored.head))
    }

    async fn log(
        &self,
        partition: &Partition,
        after: Position,
        limit: usize,
    ) -> Result<Log, StoreError> {
        in_time(self.log_after(partition, after, limit)).await
    }

    async fn publish(&self, topic: &fanout::Topic, record: Bytes) -> Result<(), StoreError> {
        let mut cmd = redis::Cmd::new();
        cmd.arg(self.publish_command())
            .arg(fanout::redis::channel(topic))
            .arg(&record[..]);
        let run = async { self.commands.run(&cmd).await.map_err(script::unavailable) };
        match in_time(run).await?.value {
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
        in_time(self.purge_some(partition, table, require.as_ref(), limit)).await
    }

    async fn lease(
        &self,
        node: &str,
        ttl: Duration,
        members: Vec<(String, u32)>,
    ) -> Result<bool, StoreError> {
        in_time(self.renew(node, ttl, members)).await
    }

    async fn release(&self, node: &str) -> Result<(), StoreError> {
        in_time(self.end(node)).await
    }

    async fn members(&self, members: &[String]) -> Result<Vec<u32>, StoreError> {
        in_time(self.count(members)).await
    }

    async fn sweep(&self) -> Result<Vec<String>, StoreError> {
        in_time(self.sweep_ended()).await
    }

    /// On a Cluster the shard of the leases answers for all.
    async fn now(&self) -> Result<u64, StoreError> {
        let answer =
            in_time(script::NOW.run(&self.commands, &[keys::leases("now")], &[] as &[&str]))
                .await?;
        match answer.value {
            redis::Value::Int(now) => Ok(now.saturating_add(self.clock_offset()).unsigned_abs()),
            other => Err(StoreError::Corrupt(format!("the clock answered {other:?}"))),
        }
    }
}
