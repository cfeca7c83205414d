//! The bus over real Redis servers: what every bus must do, and that no fault leaves a joined topic
//! deaf or its gap untold.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod churn;
mod failover;

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bytes::Bytes;
use chaos_redis::{Commands, Deployment, Names, slot};
use fanout::{
    Topic,
    bus::{Bus, Listener, RedisBus, conformance, conformance::Recorder, redis::JOIN_TIMEOUT},
};
use parking_lot::Mutex;
use redis_testing::{Cluster, Sentinel, Server, channel, until};

/// Publishes as the store does, through commands of the deployment.
struct Publisher {
    commands: Commands,
    last: AtomicU64,
}

impl Publisher {
    fn new(deployment: &Deployment) -> Self {
        Self {
            commands: Commands::open(deployment),
            last: AtomicU64::new(0),
        }
    }

    async fn try_publish(&self, topic: &str, record: &[u8]) -> bool {
        let mut publish = redis::cmd(self.commands.deployment().publish_command());
        publish.arg(channel(topic)).arg(record);
        publish.exec_async(&mut self.commands.clone()).await.is_ok()
    }

    /// Publishes fresh records until one of them arrives. Returns how long that took.
    async fn is_heard(&self, node: &Node, topic: &Topic) -> Duration {
        let began = Instant::now();
        let first = self.last.fetch_add(1, Ordering::Relaxed);
        until("a record arrives", || async {
            let number = self.last.fetch_add(1, Ordering::Relaxed);
            self.try_publish(topic, &number.to_be_bytes()).await;
            node.numbers(topic).iter().any(|received| *received > first)
        })
        .await;
        began.elapsed()
    }
}

/// A node's bus, and the records that it received.
struct Node {
    bus: Arc<RedisBus>,
    received: Arc<Received>,
}

#[derive(Debug, Default)]
struct Received {
    records: Recorder,
    missed: Mutex<HashSet<Topic>>,
    panics: AtomicBool,
}

impl Listener for Received {
    fn record(&self, topic: &str, record: Bytes) {
        assert!(
            !self.panics.swap(false, Ordering::Relaxed),
            "as the test asked for"
        );
        self.records.record(topic, record);
    }

    fn missed(&self, topics: Option<&[Topic]>) {
        self.missed.lock().extend(topics.unwrap().iter().cloned());
    }
}

impl Node {
    fn open(deployment: &Deployment) -> Self {
        let received = Arc::<Received>::default();
        Self {
            bus: RedisBus::open(deployment, Names::of(deployment), received.clone()),
            received,
        }
    }

    async fn connected(deployment: &Deployment) -> Self {
        let node = Self::open(deployment);
        until("the bus is connected", || async { node.bus.is_connected() }).await;
        node
    }

    fn numbers(&self, topic: &str) -> Vec<u64> {
        self.received
            .records
            .received(topic)
            .iter()
            .map(|record| u64::from_be_bytes(record[..].try_into().unwrap()))
            .collect()
    }

    fn missed(&self) -> HashSet<Topic> {
        self.received.missed.lock().clone()
    }

    async fn is_told_of(&self, topics: &[Topic]) {
        until("the gap is told", || async {
            topics.iter().all(|topic| self.missed().contains(topic))
        })
        .await;
    }
}

fn topics(count: usize) -> Vec<Topic> {
    (0..count).map(|n| format!("topic:{n}").into()).collect()
}

struct Rig(Publisher, Deployment);

impl Rig {
    fn of(deployment: Deployment) -> Self {
        Self(Publisher::new(&deployment), deployment)
    }
}

#[async_trait]
impl conformance::Rig for Rig {
    async fn bus(&self, listener: Arc<dyn Listener>) -> Arc<dyn Bus> {
        let bus = RedisBus::open(&self.1, Names::of(&self.1), listener);
        until("the bus is connected", || async { bus.is_connected() }).await;
        bus
    }

    async fn publish(&self, topic: &str, record: Bytes) {
        assert!(self.0.try_publish(topic, &record).await);
    }
}

#[tokio::test]
async fn a_single_server_is_a_bus() {
    let server = Server::start().await;
    conformance::suite(&Rig::of(server.deployment())).await;
}

#[tokio::test]
async fn a_sentinel_deployment_is_a_bus() {
    let trio = Sentinel::start().await;
    conformance::suite(&Rig::of(trio.deployment())).await;
}

#[tokio::test]
async fn a_cluster_is_a_bus() {
    let cluster = Cluster::start(3).await;
    conformance::suite(&Rig::of(cluster.deployment())).await;
}

#[tokio::test]
async fn a_server_with_a_password_is_joined() {
    let server = Server::start_with(&["--requirepass", "secret"]).await;
    let deployment = format!("redis://:secret@{}", server.address())
        .parse()
        .unwrap();
    let node = Node::open(&deployment);
    node.bus.join(&topics(1)).await.unwrap();
    Publisher::new(&deployment)
        .is_heard(&node, &topics(1)[0])
        .await;
    let wrong = Node::open(
        &format!("redis://:wrong@{}", server.address())
            .parse()
            .unwrap(),
    );
    let error = wrong.bus.join(&topics(1)).await.unwrap_err();
    assert!(error.to_string().contains("WRONGPASS"), "{error}");
}

#[tokio::test]
async fn topics_receive_again_after_a_restart_and_report_a_gap() {
    let mut server = Server::start().await;
    let (node, publisher, topics) = (
        Node::connected(&server.deployment()).await,
        Publisher::new(&server.deployment()),
        topics(1_000),
    );
    node.bus.join(&topics).await.unwrap();
    assert!(node.missed().is_empty(), "a first join misses nothing");
    server.kill9();
    until("the loss is noticed", || async { !node.bus.is_connected() }).await;
    server.restart().await;
    let began = Instant::now();
    node.is_told_of(&topics).await;
    println!(
        "restart: 1,000 topics joined again {:?} after Redis was back",
        began.elapsed()
    );
    publisher.is_heard(&node, &topics[999]).await;
    until("it says so", || async { node.bus.is_connected() }).await;
}

#[tokio::test]
async fn hanging_server_is_detected_and_topics_receive_again() {
    let server = Server::start().await;
    let (node, publisher, topics) = (
        Node::connected(&server.deployment()).await,
        Publisher::new(&server.deployment()),
        topics(10),
    );
    node.bus.join(&topics).await.unwrap();
    server.stop();
    let began = Instant::now();
    until("the hang is noticed", || async { !node.bus.is_connected() }).await;
    println!("hang: noticed after {:?}", began.elapsed());
    server.cont();
    let began = Instant::now();
    node.is_told_of(&topics).await;
    println!("hang: joined again after {:?}", began.elapsed());
    publisher.is_heard(&node, &topics[9]).await;
}

#[tokio::test]
async fn failed_join_leaves_its_topics_not_joined_and_others_joined() {
    let mut server = Server::start().await;
    let (node, publisher) = (
        Node::connected(&server.deployment()).await,
        Publisher::new(&server.deployment()),
    );
    let (kept, lost): (Topic, Topic) = ("kept".into(), "lost".into());
    node.bus.join(std::slice::from_ref(&kept)).await.unwrap();
    server.kill9();
    until("the loss is noticed", || async { !node.bus.is_connected() }).await;
    let began = Instant::now();
    node.bus
        .join(&[kept.clone(), lost.clone()])
        .await
        .unwrap_err();
    assert!(began.elapsed() < JOIN_TIMEOUT + Duration::from_secs(1));
    server.restart().await;
    publisher.is_heard(&node, &kept).await;
    let channels = server
        .command(&["PUBSUB", "CHANNELS", "chaos@0:*"])
        .await
        .unwrap();
    assert_eq!(
        redis::from_redis_value::<Vec<String>>(channels).unwrap(),
        [channel(&kept)]
    );
    node.bus.join(std::slice::from_ref(&lost)).await.unwrap();
    publisher.is_heard(&node, &lost).await;
}

#[tokio::test]
async fn bus_connects_to_a_server_that_starts_late() {
    let mut server = Server::start().await;
    server.kill9();
    let node = Node::open(&server.deployment());
    let topic = &topics(1)[0];
    let waiting = node.bus.join(std::slice::from_ref(topic));
    let coming = async {
        server.restart().await;
    };
    tokio::join!(waiting, coming).0.unwrap();
    Publisher::new(&server.deployment())
        .is_heard(&node, topic)
        .await;
    assert!(node.missed().is_empty());
}

#[tokio::test]
async fn panicking_listener_causes_only_a_gap() {
    let server = Server::start().await;
    let (node, publisher, topics) = (
        Node::connected(&server.deployment()).await,
        Publisher::new(&server.deployment()),
        topics(2),
    );
    node.bus.join(&topics).await.unwrap();
    node.received.panics.store(true, Ordering::Relaxed);
    assert!(publisher.try_publish(&topics[0], b"any").await);
    node.is_told_of(&topics).await;
    publisher.is_heard(&node, &topics[0]).await;
}
