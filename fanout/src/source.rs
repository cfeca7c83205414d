//! What the hub asks of whoever uses it: how a record looks on the wire, and what the log holds.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use crate::record::Record;
use crate::{Class, Encoding, Outbox, Position, Topic};

/// The meaning of records, and the log behind them.
#[async_trait]
pub trait Source: Send + Sync + 'static {
    /// The complete bytes of the wire for a record; `None` if there is nothing to tell.
    /// Called once per encoding that has a listener, from the broadcasting task: it must neither block nor wait.
    fn frame(&self, topic: &Topic, record: &Record, encoding: Encoding) -> Option<Bytes>;

    /// The complete bytes of the wire that tell a subscriber that it goes on at `position` without having been told all before it.
    fn gap(&self, topic: &Topic, gap: Gap, position: Position, encoding: Encoding) -> Bytes;

    /// How a passing record is treated where it has to wait. Durable ones are always [`Class::Durable`], and so is the default.
    /// Keys of [`Class::Droppable`] are of the whole connection: they should tell topics apart.
    fn class(&self, topic: &Topic, record: &Record) -> Class {
        let _ = (topic, record);
        Class::Durable
    }

    /// A record that the bus brought was handed to the topic's live subscribers: called once per such record and node, under the rules of
    /// [`frame`](Self::frame). What was read from the log instead, for a repair or for who caught up, is not among them.
    fn passed(&self, topic: &Topic, record: &Record) {
        let _ = (topic, record);
    }

    /// Whether the source wants to know who [is about to be](Self::tells), and who [is](Self::told), told this record. Default: no, and then a subscriber costs nothing for it.
    fn follows(&self, record: &Record) -> bool {
        let _ = record;
        false
    }

    /// A record that the source [`follows`](Self::follows) is about to be pushed to this outbox: what the source
    /// [mutes](Outbox::mute) does not come behind it. Called as [`told`](Self::told) is.
    fn tells(&self, topic: &Topic, record: &Record, outbox: &Arc<Outbox>) {
        let _ = (topic, record, outbox);
    }

    /// A record that the source [`follows`](Self::follows) was pushed to this outbox, by the broadcast or when its subscriber caught up:
    /// whatever is pushed from here on comes after it. Called once per subscriber that is told, under the rules of [`frame`](Self::frame).
    fn told(&self, topic: &Topic, record: &Record, outbox: &Arc<Outbox>) {
        let _ = (topic, record, outbox);
    }

    /// At most `limit` records after a position, in order, with the controls that they had on the bus; [`Record::before`] is not needed.
    /// If there are any, the answer holds at least one.
    async fn read(
        &self,
        topic: &Topic,
        after: Position,
        limit: usize,
    ) -> Result<Replay, SourceError>;

    /// For each of these subjects: whether it may listen to the topic now. Asked where the log does not go on from a position,
    /// because an eviction may have been in what is missing. Default: all may.
    async fn admits(&self, topic: &Topic, subjects: &[Bytes]) -> Result<Vec<bool>, SourceError> {
        let _ = topic;
        Ok(vec![true; subjects.len()])
    }

    /// The newest position of each topic, in the order asked for. One that cannot be told holds up no other.
    async fn heads(&self, topics: &[Topic]) -> Vec<Result<Position, SourceError>>;
}

/// A piece of a topic's log.
#[derive(Debug, Clone)]
pub struct Replay {
    /// What stands after the position; empty unless `continuity` is [`Continuity::Continuous`].
    pub records: Vec<Record>,
    /// The newest position at that instant.
    pub head: Position,
    /// Whether the log goes on from the position.
    pub continuity: Continuity,
}

/// How a position relates to a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Continuity {
    /// All after it are kept.
    Continuous,
    /// It does not.
    Broken(Gap),
}

/// Why a log does not go on from a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gap {
    /// The position is older than what is kept.
    Trimmed,
    /// No event stands there, or another one.
    Diverged,
}

/// Why the log could not be read. The hub tries again, with back-off, for as long as anybody listens.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the log cannot be read: {0}")]
pub struct SourceError(pub String);
