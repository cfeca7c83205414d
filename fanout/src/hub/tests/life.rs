//! The life of topics and of the hub.

use async_trait::async_trait;

use super::*;
use crate::outbox::testing::Pipe;

#[tokio::test]
async fn topic_is_left_after_its_linger_unless_a_subscriber_returns() {
    let node = node();
    let reader = node.reader("a");
    let subscription = node.subscribe(&reader).await;
    drop(subscription);
    assert_eq!(
        (node.hub.stats().topics, node.hub.stats().subscriptions),
        (1, 0)
    );
    let subscription = node.subscribe(&reader).await;
    // Three times the linger.
    tokio::time::sleep(Duration::from_millis(120)).await;
    assert_eq!(node.hub.stats().topics, 1);
    node.commit("1");
    reader.sees(&["1 1"]).await;
    drop(subscription);
    eventually(
        || node.hub.stats().topics == 0,
        || "the topic to be left".into(),
    )
    .await;
    node.commit("2");
    let _subscription = node.subscribe(&reader).await;
    node.commit("3");
    reader.sees(&["1 1", "3 3"]).await;
}

#[tokio::test]
async fn memory_of_many_topics_is_freed_after_they_are_left() {
    let node = node();
    let reader = node.reader("a");
    let topics: Vec<(Topic, TopicKind)> = (0..5_000)
        .map(|n| (format!("topic {n}").into(), TopicKind::Logged))
        .collect();
    drop(node.hub.join_all(&topics, &reader.outbox).await.unwrap());
    let capacities = || {
        [
            node.hub.listener.topics.capacity(),
            node.hub.shared.idle.lock().capacity(),
        ]
    };
    assert!(capacities().iter().all(|capacity| *capacity >= 5_000));
    eventually(
        || capacities().iter().all(|capacity| *capacity < 1_000),
        || format!("capacity to be freed: {:?}", capacities()),
    )
    .await;
    assert_eq!(node.hub.stats().topics, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn subscribing_while_a_topic_is_left_never_loses_records() {
    let node = Arc::new(node_with(HubConfig {
        linger: Duration::ZERO,
        compare_period: Duration::from_secs(600),
        ..HubConfig::default()
    }));
    let tasks: Vec<_> = (0..4)
        .map(|_| {
            let node = Arc::clone(&node);
            tokio::spawn(async move {
                for round in 0..150 {
                    let reader = node.reader("a");
                    let subscription = node.subscribe(&reader).await;
                    node.pass(0, "mine", Control::None);
                    eventually(
                        || reader.pipe.texts().iter().any(|t| t == "0 mine"),
                        || format!("a record in round {round}"),
                    )
                    .await;
                    drop(subscription);
                    // Sometimes it returns after the topic was left, sometimes in the middle of
                    // that.
                    if round % 3 == 0 {
                        tokio::time::sleep(Duration::from_millis(3)).await;
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    eventually(
        || node.hub.stats().topics == 0,
        || "the topic to be left".into(),
    )
    .await;
    assert!(node.hub.listener.topics.all().is_empty());
}

#[derive(Debug)]
struct FailingBus;

#[async_trait]
impl Bus for FailingBus {
    async fn join(&self, _topics: &[Topic]) -> Result<(), BusError> {
        Err(BusError("down".into()))
    }
    fn leave(&self, _topics: &[Topic]) {}
    fn is_connected(&self) -> bool {
        false
    }
}

#[tokio::test]
async fn join_that_the_bus_refuses_registers_nothing() {
    let world = Arc::new(World::default());
    let hub = Hub::new(
        HubListener::new(),
        Arc::new(FailingBus),
        world,
        HubConfig::default(),
    );
    let outbox = Outbox::new(
        Pipe::new(0),
        FrameEncoding::Binary,
        OutboxLimits::new(1, Duration::MAX, usize::MAX),
    );
    let topics: Vec<(Topic, TopicKind)> = vec![
        ("a".into(), TopicKind::Logged),
        ("b".into(), TopicKind::Logged),
    ];
    assert!(hub.join_all(&topics, &outbox).await.is_err());
    assert_eq!(hub.stats().subscriptions, 0);
}

#[tokio::test]
async fn hub_ends_with_its_last_owner() {
    let node = node();
    let reader = node.reader("a");
    let subscription = node.subscribe(&reader).await;
    node.commit("1");
    reader.sees_last("1 1").await;
    let hub = Arc::downgrade(&node.hub);
    drop(node);
    eventually(|| hub.upgrade().is_none(), || "the hub's end".into()).await;
    drop(subscription);
}
