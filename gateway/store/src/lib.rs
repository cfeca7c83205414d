//! The store: partitions of versioned documents, counters and a log of events, changed by atomic
//! commits.
//!
//! A *partition* holds documents that must be consistent with each other: a channel, a user, an
//! app, an organization, the deployment. A [`Commit`] changes one partition, all or nothing.
//!
//! This crate owns the [`Store`] interface and its two engines, [`embedded`] and [`redis`]. The
//! engines do not decode values: the domain gives documents their meaning.

mod commit;
#[cfg(test)]
pub(crate) mod conformance;
pub mod cost;
pub mod embedded;
mod layer;
mod partition;
mod read;
mod recording;
pub mod redis;
mod slot;
pub mod transfer;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use fanout::fair::{FairPermits, Permit};
pub use fanout::{
    Position, Topic,
    record::{Control, Record, Stamps},
};
use futures_util::future::join_all;
use tokio::time::timeout;

pub use crate::{
    commit::{
        Append, Commit, Committed, Conflict, Counter, EventBody, Expected, Increment, Keep, Mark,
        Outcome, Purged, Require, Write, Written,
    },
    layer::StoreLayer,
    partition::{DocumentKey, Order, Partition, Table},
    read::{Continuity, Document, Log, LogEntry, Page, PartitionHead, Range, Read, Snapshot},
    recording::CommitRecording,
    slot::{EventSlot, IncrementSlot, RequireSlot, WriteSlot},
};

/// Maximum time of a [`Store`] call; after it the call returns [`StoreError::Unavailable`].
pub const DEADLINE: Duration = Duration::from_secs(4);

/// Maximum time that a large read waits for its turn; after it the call returns
/// [`StoreError::Busy`].
const TURN_PATIENCE: Duration = Duration::from_secs(3);

/// Maximum number of large reads that wait for the permits of an engine or a server.
const MAX_WAITING_READS: usize = 10_000;

/// Waits for the turn of the current request to do a large read.
async fn turn(permits: &Arc<FairPermits>) -> Result<Permit, StoreError> {
    let turn = timeout(TURN_PATIENCE, permits.acquire(cost::party())).await;
    turn.ok().and_then(Result::ok).ok_or(StoreError::Busy)
}

/// Maximum bytes of values in a page of more than one document.
pub const PAGE_BYTES: usize = 256 * 1024;

/// The interface between the domain and a storage engine. Every call ends within [`DEADLINE`].
#[async_trait]
pub trait Store: Send + Sync + std::fmt::Debug {
    /// Applies a commit atomically. Its events are published once they are as durable as the store
    /// is configured to make them.
    async fn commit(&self, partition: &Partition, commit: Commit) -> Committed;

    /// Reads snapshots of several partitions, each at one instant, in few round trips.
    async fn read(&self, reads: Vec<Read>) -> Result<Vec<Snapshot>, StoreError>;

    /// Reads the positions of the heads of several partitions. A partition that cannot be read does
    /// not delay others.
    async fn heads(&self, partitions: &[Partition]) -> Vec<Result<Position, StoreError>> {
        let head = |partition: &Partition| {
            let read = Read {
                partition: partition.clone(),
                documents: Vec::new(),
                newest: None,
            };
            async move {
                let snapshots = self.read(vec![read]).await?;
                let snapshot = snapshots
                    .first()
                    .ok_or_else(|| StoreError::Corrupt("a read returned no snapshot".to_owned()))?;
                Ok(snapshot.head.position())
            }
        };
        join_all(partitions.iter().map(head)).await
    }

    /// Reads documents of one partition in the given order, until they exceed `bytes` together
    /// (values and the engine's metadata); at least one. The result is shorter than `keys` if the
    /// limit was reached.
    async fn documents(
        &self,
        partition: &Partition,
        keys: Vec<(Table, DocumentKey)>,
        bytes: usize,
    ) -> Result<Vec<Option<Document>>, StoreError>;

    /// Reads a page of a table and the partition's head at the same instant. A page has at most
    /// `limit` documents, and at most [`PAGE_BYTES`] of values unless it has one document.
    async fn page(
        &self,
        partition: &Partition,
        table: Table,
        range: Range,
        limit: usize,
    ) -> Result<(Page, PartitionHead), StoreError>;

    /// Reads at most `limit` events after a position.
    async fn log(
        &self,
        partition: &Partition,
        after: Position,
        limit: usize,
    ) -> Result<Log, StoreError>;

    /// Publishes a passing event, which has no `seq` and is not stored.
    async fn publish(&self, topic: &fanout::Topic, record: Bytes) -> Result<(), StoreError>;

    /// Removes up to `limit` documents of a table with their indexes and counters, if the
    /// precondition holds at that instant. Returns whether the table is empty now. Head, log and
    /// other tables stay.
    ///
    /// Deletion jobs use it. They require the state that marks their object as deleted, so that an
    /// outdated job does not remove documents of an object that was created again.
    async fn purge(
        &self,
        partition: &Partition,
        table: Table,
        require: Option<Require>,
        limit: usize,
    ) -> Purged;

    /// Renews a node's lease for `ttl` and sets the session counts of these members on the node (0
    /// removes a member).
    ///
    /// Returns false if the lease had ended or is new. Its members may have been swept, so the node
    /// has to set all of them again.
    async fn lease(
        &self,
        node: &str,
        ttl: Duration,
        members: Vec<(String, u32)>,
    ) -> Result<bool, StoreError>;

    /// Ends a lease and removes its members.
    async fn release(&self, node: &str) -> Result<(), StoreError>;

    /// Returns the number of sessions of each member on all nodes with a valid lease.
    async fn members(&self, members: &[String]) -> Result<Vec<u32>, StoreError>;

    /// Removes the members of ended leases and returns them, also those that have sessions on other
    /// nodes. Only one caller receives each of them.
    async fn sweep(&self) -> Result<Vec<String>, StoreError>;

    /// Returns the store's clock in milliseconds since the Unix epoch.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the store cannot be reached or refuses writes.
    async fn now(&self) -> Result<u64, StoreError>;

    /// Checks whether the store can be used. Meant to be called every second.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if no part of the store can be reached and takes writes,
    /// [`StoreError::Full`] if it cannot keep what is stored. A store without room can be used.
    async fn probe(&self) -> Result<Availability, StoreError> {
        self.now().await.map(|_| Availability::Whole)
    }
}

/// How much of a store can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Availability {
    /// All of it.
    Whole,
    /// Some shards of a Cluster cannot be used; with the first reason.
    Partial(String),
}

/// The reason why a store call failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The store cannot be reached, does not respond, or refuses writes. It is unknown whether a
    /// write was applied.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// The store has no room, or would lose other data to make room; nothing was written. Commits that free room still succeed
    /// ([`Commit::frees`]).
    #[error("the store is full: {0}")]
    Full(String),
    /// Too many large reads wait for their turn; nothing was done.
    #[error("too many large reads wait for their turn")]
    Busy,
    /// Stored data cannot be decoded by this version.
    #[error("the store holds data that this version cannot read: {0}")]
    Corrupt(String),
}
