//! The bus between nodes: records published anywhere reach every node that has joined their topic.
//!
//! Owned here: the interface and its two implementations. Left out: durability (a bus may lose
//! records; the hub reads the log) and publishing, which the store does together with the commit.

pub mod conformance;
mod local;
pub mod redis;

use async_trait::async_trait;
use bytes::Bytes;

use crate::Topic;

pub use local::Local;
pub use redis::RedisBus;

/// The bus as one node sees it.
#[async_trait]
pub trait Bus: Send + Sync + std::fmt::Debug {
    /// Joins topics and returns when all are confirmed: records that are published from then on
    /// arrive here. A topic that is joined already is confirmed at once. After a lost connection
    /// the bus joins all topics again.
    async fn join(&self, topics: &[Topic]) -> Result<(), BusError>;

    /// Leaves topics without waiting. Records of them may still arrive for a short time.
    fn leave(&self, topics: &[Topic]);

    /// Returns whether records of all topics arrive currently.
    fn is_connected(&self) -> bool;

    /// Returns whether records of some topics arrive currently: on a Cluster, those of at least one
    /// shard.
    fn is_partly_connected(&self) -> bool {
        self.is_connected()
    }
}

/// Receives records from the bus. Called from the bus's receiving task: must not block.
pub trait Listener: Send + Sync + std::fmt::Debug {
    /// A record arrived. Records of one topic and one publisher arrive in the order published.
    fn record(&self, topic: &str, record: Bytes);

    /// Records may have been missed on these topics (`None`: on all). From now on records arrive
    /// again.
    fn missed(&self, topics: Option<&[Topic]>);
}

/// Why a join failed.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the bus is unavailable: {0}")]
pub struct BusError(pub String);

/// Ignores everything: for buses on which nobody joins a topic.
impl Listener for () {
    fn record(&self, _topic: &str, _record: Bytes) {}

    fn missed(&self, _topics: Option<&[Topic]>) {}
}
