//! The conformance suite of buses: [`suite`] runs all checks against a [`Rig`].
//!
//! Each check uses its own topics, and panics if the bus violates its contract.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{Bus, Listener};
use crate::Topic;

const DEADLINE: Duration = Duration::from_secs(20);

/// The bus under test.
#[async_trait]
pub trait Rig: Send + Sync {
    /// Adds a node: a connected bus with `listener`.
    async fn bus(&self, listener: Arc<dyn Listener>) -> Arc<dyn Bus>;

    /// Publishes to all nodes as one publisher.
    async fn publish(&self, topic: &str, record: Bytes);
}

/// A listener that collects the records that arrive.
#[derive(Debug, Default)]
pub struct Recorder {
    received: Mutex<HashMap<String, Vec<Bytes>>>,
    missed: AtomicU64,
    changed: Notify,
}

impl Recorder {
    /// A recorder without records.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Returns the records of a topic so far, in order.
    pub fn received(&self, topic: &str) -> Vec<Bytes> {
        self.received.lock().get(topic).cloned().unwrap_or_default()
    }

    /// Returns how often the bus reported that records may have been missed.
    pub fn missed(&self) -> u64 {
        self.missed.load(Ordering::SeqCst)
    }

    /// Waits until `done` holds.
    ///
    /// # Panics
    /// If it does not hold within 20 seconds. The message contains `what`.
    pub async fn until(&self, what: &str, done: impl Fn(&Self) -> bool) {
        let deadline = tokio::time::Instant::now() + DEADLINE;
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if done(self) {
                return;
            }
            assert!(
                tokio::time::timeout_at(deadline, changed).await.is_ok() || done(self),
                "timed out waiting for: {what}"
            );
        }
    }
}

impl Listener for Recorder {
    fn record(&self, topic: &str, record: Bytes) {
        self.received
            .lock()
            .entry(topic.to_owned())
            .or_default()
            .push(record);
        self.changed.notify_waiters();
    }

    fn missed(&self, _topics: Option<&[Topic]>) {
        self.missed.fetch_add(1, Ordering::SeqCst);
        self.changed.notify_waiters();
    }
}

/// Runs all checks.
pub async fn suite(rig: &dyn Rig) {
    joined_topic_delivers_records_in_order(rig).await;
    other_topics_are_not_delivered(rig).await;
    record_reaches_every_node_that_joined(rig).await;
    leave_stops_delivery(rig).await;
    join_after_leave_takes_effect_at_once(rig).await;
    topic_joined_twice_delivers_once(rig).await;
    concurrent_joins_are_confirmed_only_when_records_arrive(rig).await;
    thousand_topics_join_within_five_seconds(rig).await;
    arbitrary_bytes_pass_unchanged(rig).await;
}

/// All records published after the confirmation arrive, in the order published.
pub async fn joined_topic_delivers_records_in_order(rig: &dyn Rig) {
    let (recorder, bus, topic) = node(rig).await;
    bus.join(&[Arc::clone(&topic)]).await.expect("join");
    for n in 0..500 {
        rig.publish(&topic, number(n)).await;
    }
    recorder
        .until("500 records", |r| r.received(&topic).len() >= 500)
        .await;
    assert_eq!(
        recorder.received(&topic),
        (0..500).map(number).collect::<Vec<_>>()
    );
}

/// Records of a topic that was not joined do not arrive.
pub async fn other_topics_are_not_delivered(rig: &dyn Rig) {
    let (recorder, bus, topic) = node(rig).await;
    let other = fresh("other");
    bus.join(&[Arc::clone(&topic)]).await.expect("join");
    rig.publish(&other, number(1)).await;
    rig.publish(&topic, number(2)).await;
    recorder
        .until("the record", |r| !r.received(&topic).is_empty())
        .await;
    assert!(recorder.received(&other).is_empty());
}

/// Each of two nodes receives a record once.
pub async fn record_reaches_every_node_that_joined(rig: &dyn Rig) {
    let (first, first_bus, topic) = node(rig).await;
    let second = Recorder::new();
    let second_bus = rig.bus(Arc::<Recorder>::clone(&second)).await;
    first_bus.join(&[Arc::clone(&topic)]).await.expect("join");
    second_bus.join(&[Arc::clone(&topic)]).await.expect("join");
    rig.publish(&topic, number(7)).await;
    for recorder in [first, second] {
        recorder
            .until("the record on both nodes", |r| {
                !r.received(&topic).is_empty()
            })
            .await;
        assert_eq!(recorder.received(&topic), [number(7)]);
    }
}

/// Soon after a leave no records arrive.
pub async fn leave_stops_delivery(rig: &dyn Rig) {
    let (recorder, bus, topic) = node(rig).await;
    let beacon = fresh("beacon");
    bus.join(&[Arc::clone(&topic), Arc::clone(&beacon)])
        .await
        .expect("join");
    bus.leave(&[Arc::clone(&topic)]);
    let deadline = Instant::now() + DEADLINE;
    let mut silent = 0;
    for n in 0.. {
        let before = recorder.received(&topic).len();
        rig.publish(&topic, number(n)).await;
        rig.publish(&beacon, number(n)).await;
        recorder
            .until("the beacon", |r| {
                r.received(&beacon).len() > usize::try_from(n).expect("few")
            })
            .await;
        silent = if recorder.received(&topic).len() == before {
            silent + 1
        } else {
            0
        };
        if silent == 5 {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "records still arrive on a topic after leaving it"
        );
    }
}

/// A join right after a leave is effective.
pub async fn join_after_leave_takes_effect_at_once(rig: &dyn Rig) {
    let (recorder, bus, topic) = node(rig).await;
    for round in 0..20 {
        bus.join(&[Arc::clone(&topic)]).await.expect("join");
        rig.publish(&topic, number(round)).await;
        recorder
            .until("the record after joining again", |r| {
                r.received(&topic).last() == Some(&number(round))
            })
            .await;
        bus.leave(&[Arc::clone(&topic)]);
    }
    assert_eq!(
        recorder.received(&topic),
        (0..20).map(number).collect::<Vec<_>>()
    );
}

/// A topic that was joined twice delivers each record once.
pub async fn topic_joined_twice_delivers_once(rig: &dyn Rig) {
    let (recorder, bus, topic) = node(rig).await;
    bus.join(&[Arc::clone(&topic), Arc::clone(&topic)])
        .await
        .expect("join");
    bus.join(&[Arc::clone(&topic)]).await.expect("join");
    for n in 0..10 {
        rig.publish(&topic, number(n)).await;
    }
    recorder
        .until("ten records", |r| r.received(&topic).len() >= 10)
        .await;
    rig.publish(&topic, number(10)).await;
    recorder
        .until("one more", |r| {
            r.received(&topic).last() == Some(&number(10))
        })
        .await;
    assert_eq!(
        recorder.received(&topic),
        (0..=10).map(number).collect::<Vec<_>>()
    );
}

/// Each of several concurrent joins of one topic receives the records published after it returned.
pub async fn concurrent_joins_are_confirmed_only_when_records_arrive(rig: &dyn Rig) {
    for _ in 0..20 {
        let (recorder, bus, topic) = node(rig).await;
        let joins = (0..8u64).map(|n| {
            let (bus, topic) = (Arc::clone(&bus), Arc::clone(&topic));
            async move {
                bus.join(&[Arc::clone(&topic)]).await.expect("join");
                rig.publish(&topic, number(n)).await;
            }
        });
        futures_util::future::join_all(joins).await;
        recorder
            .until("the record of every join", |r| {
                r.received(&topic).len() >= 8
            })
            .await;
    }
}

/// A join of many topics does not wait for each of them in turn.
pub async fn thousand_topics_join_within_five_seconds(rig: &dyn Rig) {
    let (recorder, bus, _) = node(rig).await;
    let topics: Vec<Topic> = (0..1_000).map(|_| fresh("many")).collect();
    let started = Instant::now();
    bus.join(&topics).await.expect("join");
    assert!(
        started.elapsed() < Duration::from_secs(5),
        "a thousand topics took {:?}",
        started.elapsed()
    );
    for topic in &topics {
        rig.publish(topic, number(1)).await;
    }
    recorder
        .until("a record on each", |r| {
            topics.iter().all(|t| r.received(t).len() == 1)
        })
        .await;
}

/// Records are opaque: empty, with all byte values, large.
pub async fn arbitrary_bytes_pass_unchanged(rig: &dyn Rig) {
    let (recorder, bus, topic) = node(rig).await;
    bus.join(&[Arc::clone(&topic)]).await.expect("join");
    let records = [
        Bytes::new(),
        (0..=255u8).collect::<Bytes>(),
        Bytes::from(vec![0x5a; 200_000]),
        Bytes::from_static(b"\r\n$-1\r\n"),
    ];
    for record in &records {
        rig.publish(&topic, record.clone()).await;
    }
    recorder
        .until("all records", |r| r.received(&topic).len() >= records.len())
        .await;
    assert_eq!(recorder.received(&topic), records);
}

async fn node(rig: &dyn Rig) -> (Arc<Recorder>, Arc<dyn Bus>, Topic) {
    let recorder = Recorder::new();
    let bus = rig.bus(Arc::<Recorder>::clone(&recorder)).await;
    (recorder, bus, fresh("topic"))
}

/// Returns a topic that no other test uses, also on a shared server.
fn fresh(kind: &str) -> Topic {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!(
        "conformance:{}:{kind}:{}",
        std::process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    )
    .into()
}

fn number(n: u64) -> Bytes {
    Bytes::copy_from_slice(&n.to_be_bytes())
}
