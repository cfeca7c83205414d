//! The bus over real Redis servers: what every bus must do, and that no fault leaves a joined topic deaf or its gap untold.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

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
use fanout::{
    Topic,
    bus::{Bus, Listener, RedisBus, conformance, conformance::Recorder, redis::JOIN_TIMEOUT},
    redis::{
        Commands, Deployment, channel, slot,
        testing::{Cluster, Sentinel, Server, until},
    },
};
use parking_lot::Mutex;

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
            node.numbers(topic).iter().any(|heard| *heard > first)
        })
        .await;
        began.elapsed()
    }
}

/// A node's bus, and what it heard.
struct Node {
    bus: Arc<RedisBus>,
    heard: Arc<Heard>,
}

#[derive(Debug, Default)]
struct Heard {
    records: Recorder,
    missed: Mutex<HashSet<Topic>>,
    panics: AtomicBool,
}

impl Listener for Heard {
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
        let heard = Arc::<Heard>::default();
        Self {
            bus: RedisBus::open(deployment, heard.clone()),
            heard,
        }
    }

    async fn connected(deployment: &Deployment) -> Self {
        let node = Self::open(deployment);
        until("the bus is connected", || async { node.bus.is_connected() }).await;
        node
    }

    fn numbers(&self, topic: &str) -> Vec<u64> {
        self.heard
            .records
            .heard(topic)
            .iter()
            .map(|record| u64::from_be_bytes(record[..].try_into().unwrap()))
            .collect()
    }

    fn missed(&self) -> HashSet<Topic> {
        self.heard.missed.lock().clone()
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
        let bus = RedisBus::open(&self.1, listener);
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
async fn after_a_restart_all_topics_hear_again_and_the_gap_is_told() {
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
async fn a_hanging_server_is_noticed_and_heard_again() {
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
async fn a_join_that_fails_leaves_its_topics_not_joined_and_the_others_joined() {
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
        .command(&["PUBSUB", "CHANNELS", "chaos:*"])
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
async fn a_bus_opened_before_its_server_connects_when_it_comes() {
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
async fn a_listener_that_panics_costs_a_gap_and_not_the_bus() {
    let server = Server::start().await;
    let (node, publisher, topics) = (
        Node::connected(&server.deployment()).await,
        Publisher::new(&server.deployment()),
        topics(2),
    );
    node.bus.join(&topics).await.unwrap();
    node.heard.panics.store(true, Ordering::Relaxed);
    assert!(publisher.try_publish(&topics[0], b"any").await);
    node.is_told_of(&topics).await;
    publisher.is_heard(&node, &topics[0]).await;
}

#[tokio::test]
async fn a_failover_by_sentinels_is_followed() {
    let mut trio = Sentinel::start().await;
    let (node, publisher, topics) = (
        Node::connected(&trio.deployment()).await,
        Publisher::new(&trio.deployment()),
        topics(20),
    );
    node.bus.join(&topics).await.unwrap();
    trio.servers[0].kill9();
    let began = Instant::now();
    trio.failed_over(0).await;
    println!("Sentinel: failed over after {:?}", began.elapsed());
    node.is_told_of(&topics).await;
    println!(
        "Sentinel: joined at the new master after {:?}",
        began.elapsed()
    );
    publisher.is_heard(&node, &topics[0]).await;
}

#[tokio::test]
async fn a_master_that_hangs_through_its_failover_is_not_listened_to_when_it_comes_back() {
    let trio = Sentinel::start().await;
    let (node, publisher, topics) = (
        Node::connected(&trio.deployment()).await,
        Publisher::new(&trio.deployment()),
        topics(20),
    );
    node.bus.join(&topics).await.unwrap();
    trio.servers[0].stop();
    let began = Instant::now();
    trio.failed_over(0).await;
    trio.servers[0].cont();
    node.is_told_of(&topics).await;
    println!(
        "Sentinel, hanging master: joined at the new one after {:?}",
        began.elapsed()
    );
    publisher.is_heard(&node, &topics[0]).await;
    let at_new = trio.servers[1]
        .command(&["PUBSUB", "CHANNELS", "chaos:*"])
        .await
        .unwrap();
    assert_eq!(
        redis::from_redis_value::<Vec<String>>(at_new)
            .unwrap()
            .len(),
        20
    );
}

#[tokio::test]
async fn a_slot_that_moves_is_followed_and_only_its_topics_are_told_of_a_gap() {
    let cluster = Cluster::start(3).await;
    let (node, publisher, topics) = (
        Node::connected(&cluster.deployment()).await,
        Publisher::new(&cluster.deployment()),
        topics(200),
    );
    node.bus.join(&topics).await.unwrap();
    let moving = slot(&channel(&topics[0]));
    let from = cluster.owner(moving).await;
    let stopped = AtomicBool::new(false);
    let sending = async {
        let mut sent = 0;
        while !stopped.load(Ordering::Relaxed) {
            sent += u64::from(
                publisher
                    .try_publish(
                        &topics[0],
                        &publisher.last.fetch_add(1, Ordering::Relaxed).to_be_bytes(),
                    )
                    .await,
            );
        }
        sent
    };
    let migrating = async {
        until("records flow", || async {
            node.numbers(&topics[0]).len() > 50
        })
        .await;
        cluster.migrate(moving, (from + 1) % 3).await;
        let began = Instant::now();
        node.is_told_of(&topics[..1]).await;
        println!("slot: told {:?} after it had moved", began.elapsed());
        let before = node.numbers(&topics[0]).len();
        until("records flow again", || async {
            node.numbers(&topics[0]).len() > before + 50
        })
        .await;
        stopped.store(true, Ordering::Relaxed);
    };
    let (sent, ()) = tokio::join!(sending, migrating);
    let heard = node.numbers(&topics[0]);
    assert!(heard.is_sorted_by(|a, b| a < b), "in order, and none twice");
    println!(
        "slot: {} of {sent} records heard while it moved",
        heard.len()
    );
    let expected: HashSet<Topic> = topics
        .iter()
        .filter(|topic| slot(&channel(topic)) == moving)
        .cloned()
        .collect();
    assert_eq!(node.missed(), expected);
    assert!(node.bus.is_connected());
}

#[tokio::test]
async fn a_slot_that_moves_back_and_forth_is_followed() {
    let cluster = Cluster::start(3).await;
    let (node, publisher, topics) = (
        Node::connected(&cluster.deployment()).await,
        Publisher::new(&cluster.deployment()),
        topics(1),
    );
    node.bus.join(&topics).await.unwrap();
    let moving = slot(&channel(&topics[0]));
    for round in 0..6 {
        cluster.migrate(moving, round % 3).await;
    }
    publisher.is_heard(&node, &topics[0]).await;
}

#[tokio::test]
async fn a_restarted_shard_is_joined_again_and_the_others_are_left_alone() {
    let mut cluster = Cluster::start(3).await;
    let (node, publisher, topics) = (
        Node::connected(&cluster.deployment()).await,
        Publisher::new(&cluster.deployment()),
        topics(300),
    );
    node.bus.join(&topics).await.unwrap();
    let mut there = Vec::new();
    for topic in &topics {
        // The slots are shared out evenly and in order.
        if usize::from(slot(&channel(topic))) * 3 / 16_384 == 1 {
            there.push(topic.clone());
        }
    }
    cluster.masters[1].restart().await;
    let began = Instant::now();
    node.is_told_of(&there).await;
    println!(
        "shard: joined again {:?} after its restart",
        began.elapsed()
    );
    publisher.is_heard(&node, &there[0]).await;
    assert_eq!(node.missed(), there.into_iter().collect());
}

#[tokio::test]
async fn a_replica_that_takes_over_a_shard_is_listened_to() {
    let mut cluster = Cluster::start_with_replicas(3).await;
    let (node, publisher, topics) = (
        Node::connected(&cluster.deployment()).await,
        Publisher::new(&cluster.deployment()),
        topics(1),
    );
    node.bus.join(&topics).await.unwrap();
    let owner = cluster.owner(slot(&channel(&topics[0]))).await;
    cluster.masters[owner].kill9();
    let began = Instant::now();
    node.is_told_of(&topics).await;
    println!(
        "Cluster: joined at the new master {:?} after the old one's death",
        began.elapsed()
    );
    publisher.is_heard(&node, &topics[0]).await;
    until("it is connected without the dead one", || async {
        node.bus.is_connected()
    })
    .await;
}

/// Joins and leaves at random while `disturb` does its worst, then sees that the servers hold what is joined and nothing else.
async fn churn(deployment: &Deployment, servers: &[&Server], disturb: impl Future<Output = ()>) {
    let (node, topics) = (Node::connected(deployment).await, topics(60));
    let mut random = 1u64;
    let mut wanted = HashSet::new();
    let stopped = AtomicBool::new(false);
    let churning = async {
        while !stopped.load(Ordering::Relaxed) {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let some = &topics[usize::try_from(random >> 33).unwrap() % 50..]
                [..usize::try_from(random >> 60).unwrap() % 8 + 1];
            if random >> 32 & 1 == 0 {
                node.bus.leave(some);
                wanted.retain(|topic| !some.contains(topic));
            } else if node.bus.join(some).await.is_ok() {
                wanted.extend(some.iter().cloned());
            }
            tokio::task::yield_now().await;
        }
    };
    let disturbing = async {
        disturb.await;
        stopped.store(true, Ordering::Relaxed);
    };
    tokio::join!(churning, disturbing);
    let expected: HashSet<String> = wanted.iter().map(|topic| channel(topic)).collect();
    until("the servers hold what is joined", || async {
        let mut held = HashSet::new();
        for server in servers {
            for kind in ["CHANNELS", "SHARDCHANNELS"] {
                let Ok(channels) = server.command(&["PUBSUB", kind, "chaos:*"]).await else {
                    return false;
                };
                held.extend(redis::from_redis_value::<Vec<String>>(channels).unwrap());
            }
        }
        held == expected
    })
    .await;
    let publisher = Publisher::new(deployment);
    for topic in &wanted {
        publisher.is_heard(&node, topic).await;
    }
}

#[tokio::test]
async fn joins_and_leaves_through_cut_connections_end_as_asked() {
    let server = Server::start().await;
    churn(&server.deployment(), &[&server], async {
        for _ in 0..20 {
            tokio::time::sleep(Duration::from_millis(150)).await;
            server
                .command(&["CLIENT", "KILL", "TYPE", "pubsub"])
                .await
                .unwrap();
        }
    })
    .await;
}

#[tokio::test]
async fn joins_and_leaves_through_moving_slots_end_as_asked() {
    let cluster = Cluster::start(3).await;
    let servers: Vec<_> = cluster.masters.iter().collect();
    churn(&cluster.deployment(), &servers, async {
        for (round, topic) in topics(12).iter().enumerate() {
            cluster.migrate(slot(&channel(topic)), round % 3).await;
        }
    })
    .await;
}
