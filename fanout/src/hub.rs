//! The topics that this node listens to, their positions and their subscribers.
//!
//! Owned here: delivery in order, catching up, and recovery after records were missed. Left out:
//! what records mean (the [`Source`] frames them and reads the log) and how they travel between
//! nodes (the [`Bus`]).
//!
//! Records arrive by the bus, which may lose them; the log is authoritative. Each topic holds the
//! position of the newest record that it delivered. A record that does not continue that position
//! starts a recovery: the topic reads the log from its position. If the log does not continue
//! there, subscribers receive a gap. A record without a successor is missed by [`comparison`] with
//! the digests of all nodes and with the log's head. A subscriber is live, or it is catching up: then it reads the
//! log from its own cursor until it reaches the topic's position.
//!
//! Modules, lowest first: [`budget`], [`ring`], [`subscribers`], [`topic_state`], [`shared`],
//! [`active_topic`], [`batch`], [`broadcaster`], [`permit`], [`catch_up`], [`subscription`],
//! [`listener`], [`comparison`].

mod active_topic;
mod batch;
mod broadcaster;
mod budget;
mod catch_up;
mod comparison;
mod listener;
mod permit;
#[cfg(all(test, shuttle))]
mod races;
mod ring;
mod shared;
mod subscribers;
mod subscription;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#[cfg_attr(
    shuttle,
    allow(dead_code, reason = "the model checks need a part of it")
)]
mod testing;
#[cfg(all(test, not(shuttle)))]
mod tests;
mod topic_state;

use std::sync::{Arc, Weak};
use std::time::Duration;

use self::active_topic::ActiveTopic;
use self::shared::{Counters, Shared};
use crate::bus::{Bus, BusError};
use crate::capacity::ShrinkIfSparse;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{is_past, sleep, yield_now};
use crate::{Outbox, Source, Topic};

pub use self::listener::HubListener;
pub use self::permit::CatchUpPermit;
pub use self::shared::{HubConfig, TopicKind};
pub use self::subscription::{Joining, Subscription};

/// Gauges and counters of a hub.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Topics that are joined, those without subscribers included.
    pub topics: u64,
    /// Subscriptions, those not started included.
    pub subscriptions: u64,
    /// Frames pushed to outboxes.
    pub deliveries: u64,
    /// Reads of the log by recoveries.
    pub recoveries: u64,
    /// Gaps that a topic's subscribers, or one that was catching up, received.
    pub gaps: u64,
    /// Records dropped because they had arrived before.
    pub duplicates: u64,
    /// Records dropped because this build cannot parse them. The log is read instead.
    pub malformed: u64,
}

/// The node's topics and subscribers.
pub struct Hub {
    listener: Arc<HubListener>,
    bus: Arc<dyn Bus>,
    shared: Arc<Shared>,
}

impl Hub {
    /// A hub on a bus that was made with this listener. Must be called within a tokio runtime, on
    /// which its tasks run.
    pub fn new(
        listener: Arc<HubListener>,
        bus: Arc<dyn Bus>,
        source: Arc<dyn Source>,
        config: HubConfig,
    ) -> Arc<Self> {
        let hub = Arc::new(Self {
            listener,
            bus,
            shared: Shared::new(source, config),
        });
        hub.shared
            .runtime
            .spawn(leave_idle_topics(Arc::downgrade(&hub)));
        hub.shared
            .runtime
            .spawn(comparison::run(Arc::downgrade(&hub)));
        hub
    }

    /// Registers one subscriber; see [`join_all`](Self::join_all).
    ///
    /// # Errors
    /// Fails if the bus does not confirm the join.
    pub async fn join(
        &self,
        topic: &Topic,
        kind: TopicKind,
        outbox: &Arc<Outbox>,
    ) -> Result<Joining, BusError> {
        let (subscription, is_confirmed) = self.subscribe(topic, kind, outbox).await;
        if !is_confirmed {
            self.bus.join(std::slice::from_ref(topic)).await?;
            subscription.confirm();
        }
        Ok(Joining::new(subscription))
    }

    /// Registers an outbox with several topics, and returns, in their order, when the bus has
    /// confirmed all of them. Evictions apply from the registration on; records are delivered after
    /// [`Joining::start`].
    ///
    /// # Errors
    /// Fails if the bus does not confirm the joins. No subscriber is registered then.
    pub async fn join_all(
        &self,
        topics: &[(Topic, TopicKind)],
        outbox: &Arc<Outbox>,
    ) -> Result<Vec<Joining>, BusError> {
        let mut joining = Vec::with_capacity(topics.len());
        let mut unconfirmed = Vec::new();
        for (topic, kind) in topics {
            let (subscription, is_confirmed) = self.subscribe(topic, *kind, outbox).await;
            if !is_confirmed {
                unconfirmed.push(Arc::clone(topic));
            }
            joining.push(Joining::new(subscription));
        }
        if !unconfirmed.is_empty() {
            self.bus.join(&unconfirmed).await?;
            joining.iter().for_each(Joining::confirm);
        }
        Ok(joining)
    }

    /// Returns the gauges and counters.
    pub fn stats(&self) -> Stats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.shared.counters;
        Stats {
            topics: read(&counters.topics),
            subscriptions: read(&counters.subscriptions),
            deliveries: read(&counters.deliveries),
            recoveries: read(&counters.recoveries),
            gaps: read(&counters.gaps),
            duplicates: read(&counters.duplicates),
            malformed: read(&self.listener.malformed),
        }
    }

    /// The bus that the hub listens to.
    pub fn bus(&self) -> &Arc<dyn Bus> {
        &self.bus
    }

    async fn subscribe(
        &self,
        topic: &Topic,
        kind: TopicKind,
        outbox: &Arc<Outbox>,
    ) -> (Subscription, bool) {
        loop {
            let active = self.active_topic(topic, kind);
            if let Some((subscriber, is_confirmed)) = active.subscribe(outbox) {
                Counters::add(&self.shared.counters.subscriptions, 1);
                return (Subscription::new(active, subscriber), is_confirmed);
            }
            // The topic is being left. The bus would apply a join that is sent now before that
            // leave.
            yield_now().await;
        }
    }

    fn active_topic(&self, topic: &Topic, kind: TopicKind) -> Arc<ActiveTopic> {
        let topics = &self.listener.topics;
        topics.get(topic).unwrap_or_else(|| {
            topics.get_or_insert_with(topic, || {
                Counters::add(&self.shared.counters.topics, 1);
                ActiveTopic::new(Arc::clone(topic), kind, &self.shared)
            })
        })
    }

    /// Leaves the topics that had no subscriber for [`HubConfig::linger`].
    fn leave_idle_topics(&self) {
        let mut left = Vec::new();
        {
            let mut idle = self.shared.idle.lock();
            while let Some(entry) =
                idle.pop_front_if(|entry| is_past(entry.since, self.shared.config.linger))
            {
                if self
                    .listener
                    .topics
                    .get(&entry.topic)
                    .is_some_and(|active| active.remove_if_idle(entry.epoch))
                {
                    left.push(entry.topic);
                }
            }
            idle.shrink_if_sparse();
        }
        if left.is_empty() {
            return;
        }
        // In this order: nobody can join a topic again before it is removed.
        self.bus.leave(&left);
        self.listener.topics.remove_all(&left);
        self.shared
            .counters
            .topics
            .fetch_sub(left.len() as u64, Ordering::Relaxed);
    }
}

impl std::fmt::Debug for Hub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hub")
            .field("bus", &self.bus)
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

async fn leave_idle_topics(hub: Weak<Hub>) {
    loop {
        let Some(pause) = hub.upgrade().map(|hub| hub.shared.config.linger / 4) else {
            return;
        };
        sleep(pause.clamp(Duration::from_millis(5), Duration::from_secs(1))).await;
        let Some(hub) = hub.upgrade() else { return };
        hub.leave_idle_topics();
    }
}
