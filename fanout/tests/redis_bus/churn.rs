//! Joins and leaves while connections and slots change.

use super::*;

/// Joins and leaves at random while `disturb` runs. Then checks that the servers hold exactly the
/// subscriptions of joined topics.
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
                let Ok(channels) = server.command(&["PUBSUB", kind, "chaos@0:*"]).await else {
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
