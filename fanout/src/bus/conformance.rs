//! What every bus must do, as functions for tests: [`suite`] runs them all against a [`Rig`].
//!
//! The functions panic where the bus breaks a promise. Each uses topics of its own and waits with a deadline, never by sleeping for luck.

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

/// The bus at hand, as the suite needs it.
#[async_trait]
pub trait Rig: Send + Sync {
    /// One more node: a connected bus that tells `listener` what arrives.
    async fn bus(&self, listener: Arc<dyn Listener>) -> Arc<dyn Bus>;

    /// Publishes to all nodes, and returns when the record is on its way. Calls one after the other come from one publisher.
    async fn publish(&self, topic: &str, record: Bytes);
}

/// A listener that writes down what it hears.
#[derive(Debug, Default)]
pub struct Recorder {
    heard: Mutex<HashMap<String, Vec<Bytes>>>,
    missed: AtomicU64,
    changed: Notify,
}

impl Recorder {
    /// One that has heard nothing.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// What was heard on a topic so far, in order.
    pub fn heard(&self, topic: &str) -> Vec<Bytes> {
        self.heard.lock().get(topic).cloned().unwrap_or_default()
    }

    /// How often the bus said that records may have been missed.
    pub fn missed(&self) -> u64 {
        self.missed.load(Ordering::SeqCst)
    }

    /// Waits until `done` holds.
    ///
    /// # Panics
    /// When it does not hold within 20 seconds; `what` is named then.
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
                "waited in vain for: {what}"
            );
        }
    }
}

impl Listener for Recorder {
    fn record(&self, topic: &str, record: Bytes) {
        self.heard
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

/// Runs everything below.
pub async fn suite(rig: &dyn Rig) {
    records_of_a_joined_topic_arrive_in_order(rig).await;
    other_topics_are_not_heard(rig).await;
    every_node_that_joined_hears(rig).await;
    leaving_stops_the_records(rig).await;
    joining_again_after_leaving_works_at_once(rig).await;
    joining_twice_delivers_once(rig).await;
    concurrent_joins_are_confirmed_only_when_records_arrive(rig).await;
    a_thousand_topics_join_quickly(rig).await;
    any_bytes_pass_unchanged(rig).await;
}

/// What is published after the confirmation arrives, all of it, in the order published.
pub async fn records_of_a_joined_topic_arrive_in_order(rig: &dyn Rig) {
    let (recorder, bus, topic) = node(rig).await;
    bus.join(&[Arc::clone(&topic)]).await.expect("join");
    for n in 0..500 {
        rig.publish(&topic, number(n)).await;
    }
    recorder
        .until("500 records", |r| r.heard(&topic).len() >= 500)
        .await;
    assert_eq!(
        recorder.heard(&topic),
        (0..500).map(number).collect::<Vec<_>>()
    );
}

/// A topic that was not joined is not heard.
pub async fn other_topics_are_not_heard(rig: &dyn Rig) {
    let (recorder, bus, topic) = node(rig).await;
    let other = fresh("other");
    bus.join(&[Arc::clone(&topic)]).await.expect("join");
    rig.publish(&other, number(1)).await;
    rig.publish(&topic, number(2)).await;
    recorder
        .until("the record", |r| !r.heard(&topic).is_empty())
        .await;
    assert!(recorder.heard(&other).is_empty());
}

/// Each of two nodes hears a record once.
pub async fn every_node_that_joined_hears(rig: &dyn Rig) {
    let (first, first_bus, topic) = node(rig).await;
    let second = Recorder::new();
    let second_bus = rig.bus(Arc::<Recorder>::clone(&second)).await;
    first_bus.join(&[Arc::clone(&topic)]).await.expect("join");
    second_bus.join(&[Arc::clone(&topic)]).await.expect("join");
    rig.publish(&topic, number(7)).await;
    for recorder in [first, second] {
        recorder
            .until("the record on both nodes", |r| !r.heard(&topic).is_empty())
            .await;
        assert_eq!(recorder.heard(&topic), [number(7)]);
    }
}

/// After a leave the records stop within a moment.
pub async fn leaving_stops_the_records(rig: &dyn Rig) {
    let (recorder, bus, topic) = node(rig).await;
    let beacon = fresh("beacon");
    bus.join(&[Arc::clone(&topic), Arc::clone(&beacon)])
        .await
        .expect("join");
    bus.leave(&[Arc::clone(&topic)]);
    let deadline = Instant::now() + DEADLINE;
    let mut silent = 0;
    for n in 0.. {
        let before = recorder.heard(&topic).len();
        rig.publish(&topic, number(n)).await;
        rig.publish(&beacon, number(n)).await;
        recorder
            .until("the beacon", |r| {
                r.heard(&beacon).len() > usize::try_from(n).expect("few")
            })
            .await;
        silent = if recorder.heard(&topic).len() == before {
            silent + 1
        } else {
            0
        };
        if silent == 5 {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "records still arrive on a topic that was left"
        );
    }
}

/// A join right after a leave wins.
pub async fn joining_again_after_leaving_works_at_once(rig: &dyn Rig) {
    let (recorder, bus, topic) = node(rig).await;
    for round in 0..20 {
        bus.join(&[Arc::clone(&topic)]).await.expect("join");
        rig.publish(&topic, number(round)).await;
        recorder
            .until("the record after joining again", |r| {
                r.heard(&topic).last() == Some(&number(round))
            })
            .await;
        bus.leave(&[Arc::clone(&topic)]);
    }
    assert_eq!(
        recorder.heard(&topic),
        (0..20).map(number).collect::<Vec<_>>()
    );
}

/// A topic that was joined twice delivers each record once.
pub async fn joining_twice_delivers_once(rig: &dyn Rig) {
    let (recorder, bus, topic) = node(rig).await;
    bus.join(&[Arc::clone(&topic), Arc::clone(&topic)])
        .await
        .expect("join");
    bus.join(&[Arc::clone(&topic)]).await.expect("join");
    for n in 0..10 {
        rig.publish(&topic, number(n)).await;
    }
    recorder
        .until("ten records", |r| r.heard(&topic).len() >= 10)
        .await;
    rig.publish(&topic, number(10)).await;
    recorder
        .until("one more", |r| r.heard(&topic).last() == Some(&number(10)))
        .await;
    assert_eq!(
        recorder.heard(&topic),
        (0..=10).map(number).collect::<Vec<_>>()
    );
}

/// Of several joins of one topic under way at once, each that returned can rely on it.
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
            .until("the record of every join", |r| r.heard(&topic).len() >= 8)
            .await;
    }
}

/// A thousand topics in one join are a matter of round trips, not of a thousand waits.
pub async fn a_thousand_topics_join_quickly(rig: &dyn Rig) {
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
            topics.iter().all(|t| r.heard(t).len() == 1)
        })
        .await;
}

/// Records are opaque: empty ones, all byte values, large ones.
pub async fn any_bytes_pass_unchanged(rig: &dyn Rig) {
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
        .until("all records", |r| r.heard(&topic).len() >= records.len())
        .await;
    assert_eq!(recorder.heard(&topic), records);
}

async fn node(rig: &dyn Rig) -> (Arc<Recorder>, Arc<dyn Bus>, Topic) {
    let recorder = Recorder::new();
    let bus = rig.bus(Arc::<Recorder>::clone(&recorder)).await;
    (recorder, bus, fresh("topic"))
}

/// A topic that no other test uses, also on a server that outlives the test.
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
