//! The interface through which the hub frames records and reads the log.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use crate::fair::Party;
use crate::record::Record;
use crate::{Class, FrameEncoding, Outbox, Position, Topic};

/// Frames records and reads the log. Implemented by the user of the hub.
#[async_trait]
pub trait Source: Send + Sync + 'static {
    /// Returns the complete frame for a record; `None` if subscribers receive nothing for it.
    /// Called once per encoding that has a subscriber, from the broadcasting task. Must not block.
    fn frame(&self, topic: &Topic, record: &Record, encoding: FrameEncoding) -> Option<Bytes>;

    /// Returns the complete frame that tells a subscriber that it continues at `position` after a
    /// gap.
    fn gap(&self, topic: &Topic, gap: Gap, position: Position, encoding: FrameEncoding) -> Bytes;

    /// Returns the class of a passing record. Durable ones always have [`Class::Durable`], which is
    /// also the default. Keys of [`Class::Droppable`] are shared by all topics of a connection, so
    /// they should differ between topics.
    fn class(&self, topic: &Topic, record: &Record) -> Class {
        let _ = (topic, record);
        Class::Durable
    }

    /// Called after a record from the bus was pushed to the topic's live subscribers, once per
    /// record and node. Not called for records that were read from the log. Must not block.
    fn after_broadcast(&self, topic: &Topic, record: &Record) {
        let _ = (topic, record);
    }

    /// Returns whether to call [`before_delivery`](Self::before_delivery) and
    /// [`after_delivery`](Self::after_delivery) for this record. Default: no, which costs nothing
    /// per subscriber.
    fn observes(&self, record: &Record) -> bool {
        let _ = record;
        false
    }

    /// Called before an [observed](Self::observes) record is pushed to this outbox. Frames of
    /// topics that are [muted](Outbox::mute) here do not follow the record. Must not block.
    fn before_delivery(&self, topic: &Topic, record: &Record, outbox: &Arc<Outbox>) {
        let _ = (topic, record, outbox);
    }

    /// Called after an [observed](Self::observes) record was pushed to this outbox, by a broadcast
    /// or while its subscriber caught up. Called once per subscriber that receives it. Must not
    /// block.
    fn after_delivery(&self, topic: &Topic, record: &Record, outbox: &Arc<Outbox>) {
        let _ = (topic, record, outbox);
    }

    /// Returns whether to call [`after_loss`](Self::after_loss) for this topic. Default: no.
    fn observes_loss(&self, topic: &Topic) -> bool {
        let _ = topic;
        false
    }

    /// Called for a subscriber of an [observed](Self::observes_loss) topic after it was pushed a
    /// gap, and after the topic was compared with its log because the bus may have lost records.
    /// The subscriber has not received those yet. Must not block.
    fn after_loss(&self, topic: &Topic, outbox: &Arc<Outbox>) {
        let _ = (topic, outbox);
    }

    /// Returns who takes turns at reading the log of this topic. Default: all topics are of one
    /// party.
    fn party(&self, topic: &Topic) -> Party {
        let _ = topic;
        Party::default()
    }

    /// Reads the records after a position, in order, with the controls that they had on the bus;
    /// [`Record::before`] is not needed. Returns at least one if there are any, and reads no more
    /// than the limit.
    async fn read(
        &self,
        topic: &Topic,
        after: Position,
        limit: PageLimit,
    ) -> Result<Replay, SourceError>;

    /// Returns for each subject whether it may subscribe to the topic now. Called when the log does
    /// not continue at a position, because the gap may contain an eviction. Default: all may.
    async fn may_subscribe(
        &self,
        topic: &Topic,
        subjects: &[Bytes],
    ) -> Result<Vec<bool>, SourceError> {
        let _ = topic;
        Ok(vec![true; subjects.len()])
    }

    /// Returns the newest position of each topic, in the order of `topics`. A topic whose head
    /// cannot be read does not delay others.
    async fn heads(&self, topics: &[Topic]) -> Vec<Result<Position, SourceError>>;

    /// Returns whether each of these nodes, identified as in their [digests](crate::digest), may
    /// still commit. Default: none.
    async fn are_alive(&self, publishers: &[u64]) -> Result<Vec<bool>, SourceError> {
        Ok(vec![false; publishers.len()])
    }
}

/// Maximum size of one read of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageLimit {
    /// Number of records.
    pub records: usize,
    /// Bytes of their bodies, if there is more than one record.
    pub bytes: usize,
}

/// A piece of a topic's log.
#[derive(Debug, Clone)]
pub struct Replay {
    /// The records after the position; empty unless `continuity` is [`Continuity::Continuous`].
    pub records: Vec<Record>,
    /// The newest position at that instant.
    pub head: Position,
    /// Whether the log continues at the position.
    pub continuity: Continuity,
}

/// How a position relates to a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Continuity {
    /// The log has all records after it.
    Continuous,
    /// The log does not continue there.
    Broken(Gap),
}

/// Why a log does not continue at a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gap {
    /// The position is older than the oldest entry that is kept.
    Trimmed,
    /// The event at the position is missing or has another `at`.
    Diverged,
}

/// Why the log could not be read. The hub retries with backoff while the topic has subscribers.
#[derive(Debug, Clone, thiserror::Error)]
#[error("cannot read the log: {0}")]
pub struct SourceError(pub String);
