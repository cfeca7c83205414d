//! Who listens to what on this node.
#![expect(clippy::unimplemented, unused_variables, reason = "the interface first")]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::bus::{Bus, BusError, Listener};
use crate::{Outbox, Position, Source, Topic};

/// What a topic's records are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Numbered events with a log behind them, and passing ones between.
    Logged,
    /// Passing ones only: no position, no repair.
    Passing,
}

/// How the hub behaves.
#[derive(Debug, Clone)]
pub struct Config {
    /// How long a topic without subscribers stays joined. Default 5 s.
    pub linger: Duration,
    /// How often the heads of quiet topics are compared with the log. Default 5 s.
    pub compare: Duration,
    /// Records in one read of the log. Default 128.
    pub page: usize,
    /// Reads of the log at the same time, for repairs and for those who catch up. Default 64.
    pub reads: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { linger: Duration::from_secs(5), compare: Duration::from_secs(5), page: 128, reads: 64 }
    }
}

/// What a hub holds and did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Topics that are joined, lingering ones included.
    pub topics: u64,
    /// Subscriptions, those not started included.
    pub subscriptions: u64,
    /// Frames handed to outboxes.
    pub deliveries: u64,
    /// Times that a topic had to read the log.
    pub repairs: u64,
    /// Times that subscribers of a topic, or one that caught up, were told a gap.
    pub gaps: u64,
    /// Records that had come before.
    pub doubles: u64,
}

/// The node's topics and subscribers. It is the [`Listener`] of its bus.
#[derive(Debug)]
pub struct Hub(());

impl Hub {
    /// A hub without subscribers. Must be called within a tokio runtime, on which it then works. Attach it to the bus's [`Ear`](crate::bus::Ear).
    pub fn new(bus: Arc<dyn Bus>, source: Arc<dyn Source>, config: Config) -> Arc<Self> {
        unimplemented!()
    }

    /// Registers one subscriber; see [`join_all`](Self::join_all).
    ///
    /// # Errors
    /// The bus did not confirm.
    pub async fn join(self: &Arc<Self>, topic: &Topic, kind: Kind, outbox: &Arc<Outbox>) -> Result<Joining, BusError> {
        unimplemented!()
    }

    /// Registers an outbox with several topics, in their order, and returns when the bus has confirmed all of them: what is committed from then on is told to it.
    ///
    /// # Errors
    /// The bus did not confirm; nothing is registered.
    pub async fn join_all(self: &Arc<Self>, topics: &[(Topic, Kind)], outbox: &Arc<Outbox>) -> Result<Vec<Joining>, BusError> {
        unimplemented!()
    }

    /// What it holds and did.
    pub fn stats(&self) -> Stats {
        unimplemented!()
    }
}

impl Listener for Hub {
    fn record(&self, topic: &str, record: Bytes) {
        unimplemented!()
    }
    fn missed(&self, topics: Option<&[Topic]>) {
        unimplemented!()
    }
}

/// A registered subscriber that is not told anything yet. Dropping it leaves.
#[derive(Debug)]
pub struct Joining(());

impl Joining {
    /// The topic.
    pub fn topic(&self) -> &Topic {
        unimplemented!()
    }

    /// Starts the stream: what stands after `cursor`, each once and in order, and then what happens.
    ///
    /// `head` is the topic's position as read (together with whatever decided that the subject may listen) after the join was confirmed;
    /// `cursor` equals it, or is an older position from which the subscriber resumes. Both are `Position::default()` for [`Kind::Passing`].
    pub fn start(self, cursor: Position, head: Position) -> Subscription {
        unimplemented!()
    }
}

/// A subscriber of a topic. Dropping it leaves.
#[derive(Debug)]
pub struct Subscription(());

impl Subscription {
    /// The topic.
    pub fn topic(&self) -> &Topic {
        unimplemented!()
    }

    /// Whether it ended by itself: its subject was evicted, or the topic closed.
    pub fn is_ended(&self) -> bool {
        unimplemented!()
    }
}
