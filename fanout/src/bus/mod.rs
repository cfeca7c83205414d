//! The bus between nodes: records published anywhere reach every node that has joined their topic.
//!
//! Owned here: the interface and its two implementations. Left out: durability (a bus may lose; the hub reads the log)
//! and the publishing of durable records, which the store does in the same breath as the commit.

pub mod conformance;
mod local;
pub mod redis;

use std::sync::{Arc, OnceLock, Weak};

use async_trait::async_trait;
use bytes::Bytes;

use crate::Topic;

pub use local::Local;
pub use redis::RedisBus;

/// One node's ear on the bus.
#[async_trait]
pub trait Bus: Send + Sync + std::fmt::Debug {
    /// Joins topics and returns when every one of them is confirmed: what is published from then on arrives here.
    /// A topic that is joined already is confirmed at once. After a lost connection the bus joins all of them again by itself.
    async fn join(&self, topics: &[Topic]) -> Result<(), BusError>;

    /// Leaves topics, without waiting. Records may still arrive for a moment.
    fn leave(&self, topics: &[Topic]);

    /// Whether records arrive at the moment.
    fn is_connected(&self) -> bool;
}

/// Who hears what arrives. Called from the bus's receiving task: must neither block nor wait.
pub trait Listener: Send + Sync + std::fmt::Debug {
    /// A record arrived. Of one topic and one publisher they come in the order published.
    fn record(&self, topic: &str, record: Bytes);

    /// Records may have been missed on these topics (`None`: on all), and will arrive again from now on.
    fn missed(&self, topics: Option<&[Topic]>);
}

/// Why a join failed.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the bus is unavailable: {0}")]
pub struct BusError(pub String);

/// A listener that is named later: a bus is built around it, the hub around the bus, and then the hub is attached.
///
/// It holds the hub weakly, so that hub and bus keep each other alive in one direction only. What arrives before the
/// attachment is dropped; nothing is joined by then.
#[derive(Debug, Default)]
pub struct Ear(OnceLock<Weak<dyn Listener>>);

impl Ear {
    /// An ear that nobody listens with yet.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Passes everything on to `listener` from now on. Only the first call counts.
    pub fn attach<L: Listener + 'static>(&self, listener: &Arc<L>) {
        let listener: Weak<dyn Listener> = Arc::<L>::downgrade(listener);
        let _ = self.0.set(listener);
    }

    fn listener(&self) -> Option<Arc<dyn Listener>> {
        self.0.get()?.upgrade()
    }
}

impl Listener for Ear {
    fn record(&self, topic: &str, record: Bytes) {
        if let Some(listener) = self.listener() {
            listener.record(topic, record);
        }
    }

    fn missed(&self, topics: Option<&[Topic]>) {
        if let Some(listener) = self.listener() {
            listener.missed(topics);
        }
    }
}
