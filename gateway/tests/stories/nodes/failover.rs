//! Nodes while Redis fails over, moves slots, restarts or hangs.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn moving_a_slot_loses_and_duplicates_nothing() {
    let world = World::with(StoreKind::Cluster, 2, &NO_LIMIT).await;
    let general = world
        .channel("group", "general", &["alice", "bob", "carol"])
        .await;
    let mut listeners = [
        world.listener(0, "carol", Encoding::MessagePack).await,
        world.listener(1, "carol", Encoding::Json).await,
    ];
    let (stop, count) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
    );
    let mut sending = Vec::new();
    for (node, name) in [(0, "alice"), (1, "bob")] {
        let mut person = world.listener(node, name, Encoding::MessagePack).await;
        let (channel, stop, count) = (general.clone(), stop.clone(), count.clone());
        sending.push(tokio::spawn(async move {
            let mut sent = Vec::new();
            for number in 0.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                sent.push(
                    person
                        .sends_counting(&channel, (node as u64) << 32 | number, &count)
                        .await,
                );
                // The events are ignored, but a session is served only while it is read.
                while person.events.try_next_frame().is_some() {}
                person.heard.clear();
            }
            sent
        }));
    }
    let StoreProcess::Cluster(cluster, _) = &world.store_process else {
        unreachable!()
    };
    let topic = format!("c:{}:live:{general}", world.app);
    let slot = slot(&testing::channel(&topic));
    // While a slot moves, Redis refuses scripts with a missing key.
    // Sends are retried, and succeed after the move.
    let traffic = async |answers: usize| {
        let before = count.load(Ordering::Relaxed);
        until("messages are tried", || async {
            count.load(Ordering::Relaxed) >= before + answers
        })
        .await;
    };
    for _ in 0..2 {
        let from = cluster.owner(slot).await;
        let to = (from + 1) % 3;
        cluster.begin_migration(slot, from, to).await;
        traffic(2).await;
        cluster.move_keys(slot, from, to).await;
        traffic(2).await;
        cluster.finish_migration(slot, from, to).await;
        traffic(40).await;
    }
    stop.store(true, Ordering::Relaxed);
    let mut sent = Vec::new();
    for sender in sending {
        sent.extend(sender.await.unwrap());
    }
    sent.sort_by_key(|message| message.number);
    let stored = world.whole_channel(&listeners[0], &general).await;
    assert_eq!(
        stored.len(),
        sent.len(),
        "every message that was acknowledged, and no other"
    );
    for message in &sent {
        assert_eq!(stored.get(&message.id), Some(message));
    }
    for listener in &mut listeners {
        assert_eq!(listener.collects(sent.len()).await, sent);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sentinels_failover_is_survived_by_sessions_on_both_nodes() {
    let mut world = World::with(StoreKind::Sentinel, 2, &NO_LIMIT).await;
    let general = world.channel("group", "general", &["alice", "bob"]).await;
    let alice = world.listener(0, "alice", Encoding::MessagePack).await;
    let mut bob = world.listener(1, "bob", Encoding::Json).await;
    let before = alice.sends_surely(&general, 1).await;
    assert_eq!(bob.collects(1).await, std::slice::from_ref(&before));
    let StoreProcess::Sentinel(trio, _) = &mut world.store_process else {
        unreachable!()
    };
    let master = trio.master().await;
    // Data that the replica has not received is lost with the master, so the story waits for it.
    let caught_up = || async {
        format!(
            "{:?}",
            trio.servers[master]
                .command(&["WAIT", "1", "1000"])
                .await
                .unwrap()
        )
        .contains('1')
    };
    until("the replica has caught up", caught_up).await;
    trio.servers[master].kill9();
    // A failover that ends within a send's deadline is bridged: the message is stored, and
    // the retry finds it.
    alice.is_answered_in_time(&general, 2).await;
    trio.failed_over(master).await;
    let mut after = Vec::new();
    for id in 2..12 {
        after.push(alice.sends_surely(&general, id).await);
    }
    assert_eq!(after[0].number, before.number + 1);
    assert_eq!(bob.collects(10).await, after);
    assert_eq!(world.whole_channel(&bob, &general).await.len(), 11);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_redis_wait_a_failover_loses_no_acknowledged_message() {
    let flags = [
        NO_LIMIT[0],
        NO_LIMIT[1],
        "--redis-wait",
        "1",
        "--redis-wait-timeout",
        "700ms",
    ];
    let mut world = World::with(StoreKind::Sentinel, 1, &flags).await;
    let general = world.channel("group", "general", &["alice", "bob"]).await;
    let alice = world.listener(0, "alice", Encoding::MessagePack).await;
    let mut bob = world.listener(0, "bob", Encoding::MessagePack).await;
    let mut sent = vec![alice.sends_surely(&general, 1).await];

    let StoreProcess::Sentinel(trio, _) = &world.store_process else {
        unreachable!()
    };
    let master = trio.master().await;
    let replica = 1 - master;
    trio.servers[replica].stop();
    // The master has stored it, but it is not acknowledged: neither the first time nor when
    // a retry finds it.
    alice.is_told_that_the_store_is_away(&general, 2).await;
    alice.is_told_that_the_store_is_away(&general, 2).await;
    // Nor for another session, which reads it first.
    let elsewhere = world.listener(0, "alice", Encoding::Json).await;
    elsewhere.is_told_that_the_store_is_away(&general, 2).await;
    let StoreProcess::Sentinel(trio, _) = &world.store_process else {
        unreachable!()
    };
    trio.servers[replica].cont();
    for id in 2..40 {
        sent.push(alice.sends_surely(&general, id).await);
    }
    assert!(
        sent.iter().map(|message| message.number).eq(1..=39),
        "what was there already is there once"
    );
    // The replica has no time to catch up.
    let StoreProcess::Sentinel(trio, _) = &mut world.store_process else {
        unreachable!()
    };
    trio.servers[master].kill9();
    trio.failed_over(master).await;
    // The new master has no replica to wait for. Reads do not wait.
    let stored = {
        let mut stored = BTreeMap::new();
        until("the node follows the failover", || async {
            world.metric(0, "chaos_ready").await == 1.0 && world.readiness(0).await == 200
        })
        .await;
        stored.extend(world.whole_channel(&alice, &general).await);
        stored
    };
    for message in &sent {
        assert_eq!(stored.get(&message.id), Some(message), "acknowledged");
    }
    assert_eq!(bob.collects(sent.len()).await, sent);
    alice.is_told_that_the_store_is_away(&general, 40).await;
    // The same holds for other operations, even if a retry finds them done.
    let unconfirmed = |error: RequestError| {
        assert_eq!(
            error.refusal().map(|error| error.code),
            Some(ErrorCode::Unavailable),
            "{error}"
        );
    };
    for _ in 0..2 {
        unconfirmed(
            alice
                .session
                .call::<ReactionAdd>((&general, &sent[1].id, "+1"), ())
                .await
                .unwrap_err(),
        );
        unconfirmed(
            alice
                .session
                .call::<ReadMark>(
                    &general,
                    MarkRead {
                        number: sent[2].number,
                        user_id: None,
                    },
                )
                .await
                .unwrap_err(),
        );
        unconfirmed(
            alice
                .session
                .call::<MessageDelete>((&general, &sent[0].id), ())
                .await
                .unwrap_err(),
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_survive_a_redis_outage_without_loss() {
    let mut world = World::with(StoreKind::Redis, 2, &NO_LIMIT).await;
    let general = world.channel("group", "general", &["alice", "bob"]).await;
    let alice = world.listener(0, "alice", Encoding::MessagePack).await;
    let mut listeners = [
        world.listener(0, "bob", Encoding::Json).await,
        world.listener(1, "bob", Encoding::MessagePack).await,
    ];
    let mut sent = vec![alice.sends_surely(&general, 1).await];

    world.are_ready(true).await;
    world.redis().kill9();
    alice.is_told_that_the_store_is_away(&general, 2).await;
    listeners[1]
        .is_told_that_the_store_is_away(&general, 3)
        .await;
    world.are_ready(false).await;
    world.redis().restart().await;
    for id in 2..12 {
        sent.push(alice.sends_surely(&general, id).await);
    }

    world.are_ready(true).await;
    let token = world.token("alice").await;
    world.redis().stop();
    // A connect now fails because of the store, not the token.
    let connector = Connector::new(&world.url(0), Encoding::Json).unwrap();
    match connector
        .connect(&Connect {
            token,
            ..Connect::default()
        })
        .await
    {
        Err(ConnectError::Refused { error, closed }) => {
            assert_eq!(
                (error.code, closed.code),
                (ErrorCode::Unavailable, Some(4012))
            );
            assert!(
                closed.reason.starts_with("the store cannot be reached"),
                "{}",
                closed.reason
            );
            assert!(closed.retry_after().is_some(), "{}", closed.reason);
        }
        other => panic!("{:?}", other.err()),
    }
    let first = SendMessage {
        message_id: Some(MessageId::from_bits(12)),
        text: Some("first in line".into()),
        ..Default::default()
    };
    let first = alice
        .session
        .begin::<MessageSend>(&general, &first)
        .await
        .unwrap();
    alice.session.call::<Ping>((), ()).await.unwrap();
    // Queued sends, too.
    futures_util::future::join_all(
        (13..17).map(|id| alice.is_told_that_the_store_is_away(&general, id)),
    )
    .await;
    let error = first.reply().await.unwrap_err();
    assert_eq!(
        error.refusal().map(|error| error.code),
        Some(ErrorCode::Unavailable),
        "{error}"
    );
    world.are_ready(false).await;
    world.redis().cont();
    for id in 12..22 {
        sent.push(alice.sends_surely(&general, id).await);
    }
    for listener in &mut listeners {
        assert_eq!(
            listener.collects(sent.len()).await,
            sent,
            "{}",
            listener.name
        );
    }
    world.are_ready(true).await;
    assert_eq!(
        world.whole_channel(&alice, &general).await.len(),
        sent.len()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_over_a_cluster_are_ready_while_any_shard_is_there() {
    let mut world = World::with(StoreKind::Cluster, 2, &NO_LIMIT).await;
    world.are_ready(true).await;
    for shard in 0..3 {
        let StoreProcess::Cluster(cluster, _) = &mut world.store_process else {
            unreachable!()
        };
        for server in &cluster.masters {
            let partial = ["CONFIG", "SET", "cluster-require-full-coverage", "no"];
            server.command(&partial).await.unwrap();
        }
        cluster.masters[shard].kill9();
        until("both nodes notice the loss", || async {
            world.metric(0, "chaos_bus_connected").await == 0.0
                && world.metric(1, "chaos_bus_connected").await == 0.0
        })
        .await;
        // Longer than any result is reused, and than a shard has to answer.
        let end = Instant::now() + Duration::from_secs(4);
        while Instant::now() < end {
            for node in 0..2 {
                assert_eq!(world.readiness(node).await, 200, "without shard {shard}");
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let StoreProcess::Cluster(cluster, _) = &mut world.store_process else {
            unreachable!()
        };
        cluster.masters[shard].restart().await;
        cluster.whole().await;
        until("both nodes are connected to all shards", || async {
            world.metric(0, "chaos_bus_connected").await == 1.0
                && world.metric(1, "chaos_bus_connected").await == 1.0
        })
        .await;
        world.are_ready(true).await;
    }
    let StoreProcess::Cluster(cluster, _) = &world.store_process else {
        unreachable!()
    };
    for server in &cluster.masters {
        server.stop();
    }
    world.are_ready(false).await;
    for server in &cluster.masters {
        server.cont();
    }
    world.are_ready(true).await;
}
