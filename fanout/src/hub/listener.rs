//! The receiving end of the bus.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::Notify;

use super::active_topic::ActiveTopic;
use super::broadcaster::receive;
use crate::Topic;
use crate::bus::Listener;
use crate::digest::is_bucket;
use crate::record::Record;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Mutex, Topics};

/// Maximum digests that wait for the next comparison.
const MAX_WAITING_DIGESTS: usize = 4_096;

/// Passes records from the bus to the topics of a [`Hub`](super::Hub). Create the listener first,
/// then the bus with it, then the hub with both.
pub struct HubListener {
    pub(super) topics: Topics<ActiveTopic>,
    /// Notified when a topic may have missed records.
    pub(super) suspects: Notify,
    pub(super) malformed: AtomicU64,
    /// Digests that wait for the next comparison.
    pub(super) digests: Mutex<Vec<Bytes>>,
}

impl HubListener {
    /// Creates a listener without topics.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            topics: Topics::new(),
            suspects: Notify::new(),
            malformed: AtomicU64::new(0),
            digests: Mutex::default(),
        })
    }
}

impl Listener for HubListener {
    fn record(&self, topic: &str, record: Bytes) {
        let Some(active) = self.topics.get(topic) else {
            if is_bucket(topic) {
                let mut digests = self.digests.lock();
                // A digest that is dropped here is missed as one that the bus lost.
                if digests.len() < MAX_WAITING_DIGESTS {
                    digests.push(record);
                }
            }
            return;
        };
        match Record::decode(record) {
            Ok(record) => receive(&active, record),
            Err(error) => {
                self.malformed.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(topic, %error, "dropped a malformed record from the bus");
                active.mark_loss();
                self.suspects.notify_one();
            }
        }
    }

    fn missed(&self, topics: Option<&[Topic]>) {
        match topics {
            Some(topics) => topics
                .iter()
                .filter_map(|topic| self.topics.get(topic))
                .for_each(|active| active.mark_loss()),
            None => self
                .topics
                .all()
                .iter()
                .for_each(|active| active.mark_loss()),
        }
        self.suspects.notify_one();
    }
}

impl fmt::Debug for HubListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HubListener").finish_non_exhaustive()
    }
}
