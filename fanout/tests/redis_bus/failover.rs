//! Failovers, moving slots and restarted shards.

use super::*;

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
async fn master_that_hangs_through_a_failover_is_not_used_afterwards() {
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
        .command(&["PUBSUB", "CHANNELS", "chaos@0:*"])
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
async fn moving_slot_is_followed_and_only_its_topics_report_a_gap() {
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
    let received = node.numbers(&topics[0]);
    assert!(
        received.is_sorted_by(|a, b| a < b),
        "in order, and none twice"
    );
    println!(
        "slot: {} of {sent} records received while it moved",
        received.len()
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
async fn restarted_shard_is_joined_again_and_others_are_unaffected() {
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
    cluster.masters[1].kill9();
    until("the loss is noticed", || async { !node.bus.is_connected() }).await;
    assert!(node.bus.is_partly_connected());
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
async fn replica_that_takes_over_a_shard_is_used() {
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
