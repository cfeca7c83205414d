//! Recovery: records that the bus loses, repeats or invents are corrected from the log or reported
//! as a gap.

use super::*;
use crate::bus::Bus as _;
use crate::digest::{
    self, Digest, DigestReceiver, DigestRecorder, Doubt, LIFE_CHECK_AFTER, SILENCE,
};

#[tokio::test]
async fn missing_records_are_read_from_the_log() {
    let node = node();
    let reader = node.reader("a");
    let _subscription = node.subscribe(&reader).await;
    node.commit("1");
    reader.sees_last("1 1").await;
    for n in 2..=30 {
        node.lose(&n.to_string());
    }
    node.commit("31");
    reader.sees_last("31 31").await;
    node.commit("32");
    reader.sees_last("32 32").await;
    assert_eq!(reader.seqs(), (1..=32).collect::<Vec<_>>());
    assert_eq!(
        (node.hub.stats().gaps, node.hub.stats().recoveries > 0),
        (0, true)
    );
}

#[tokio::test]
async fn duplicates_are_dropped() {
    let node = node();
    let reader = node.reader("a");
    let _subscription = node.subscribe(&reader).await;
    let records: Vec<Record> = (1..=3).map(|n| node.lose(&n.to_string())).collect();
    for index in [0, 0, 1, 0, 1, 2, 2, 0] {
        node.bus.publish(TOPIC, records[index].encode());
    }
    node.commit("4");
    reader.sees(&["1 1", "2 2", "3 3", "4 4"]).await;
    assert_eq!(
        (node.hub.stats().duplicates, node.hub.stats().recoveries),
        (5, 0)
    );
}

#[tokio::test]
async fn reused_number_is_reported_as_gap() {
    let node = node();
    let reader = node.reader("a");
    let _subscription = node.subscribe(&reader).await;
    for text in ["x", "y", "lost"] {
        node.commit(text);
    }
    reader.sees_last("3 lost").await;
    // A failover loses the newest write and reuses its number.
    node.world.logs.lock().get_mut(TOPIC).unwrap().records.pop();
    node.commit("other");
    node.commit("z");
    reader.sees_last("Diverged 4").await;
    node.commit("on");
    reader
        .sees(&["1 x", "2 y", "3 lost", "Diverged 4", "5 on"])
        .await;
}

#[tokio::test]
async fn shorter_history_is_detected_and_followed() {
    let node = node();
    let reader = node.reader("a");
    let _subscription = node.subscribe(&reader).await;
    for n in 1..=9 {
        node.commit(&n.to_string());
    }
    reader.sees_last("9 9").await;
    node.world
        .logs
        .lock()
        .get_mut(TOPIC)
        .unwrap()
        .records
        .truncate(4);
    node.commit("five");
    reader.sees_last("Diverged 5").await;
    node.commit("six");
    reader.sees_last("6 six").await;
}

#[tokio::test]
async fn records_that_arrive_during_a_recovery_are_delivered_after_it_without_another_read() {
    let node = node();
    let reader = node.reader("a");
    let _subscription = node.subscribe(&reader).await;
    node.commit("1");
    reader.sees_last("1 1").await;
    node.lose("2");
    node.world.failing.store(true, Ordering::SeqCst);
    node.commit("3");
    eventually(|| node.hub.stats().recoveries > 0, || "a recovery".into()).await;
    (4..=20).for_each(|n| node.commit(&n.to_string()));
    node.world.failing.store(false, Ordering::SeqCst);
    reader.sees_last("20 20").await;
    let recoveries = node.hub.stats().recoveries;
    node.commit("21");
    reader.sees_last("21 21").await;
    assert_eq!(reader.seqs(), (1..=21).collect::<Vec<_>>());
    assert_eq!(
        node.hub.stats().recoveries,
        recoveries,
        "the recovery is over"
    );
}

#[tokio::test]
async fn pending_records_of_a_stuck_topic_are_bounded_and_none_is_lost() {
    let node = node();
    let reader = node.reader_with(
        "a",
        usize::MAX,
        FrameEncoding::Binary,
        &OutboxLimits::new(usize::MAX, Duration::MAX, usize::MAX),
    );
    let _subscription = node.subscribe(&reader).await;
    node.commit("1");
    reader.sees_last("1 1").await;
    node.lose("2");
    node.world.failing.store(true, Ordering::SeqCst);
    let body = "x".repeat(64 * 1024);
    (0..200).for_each(|_| node.commit(&body));
    let waiting = || {
        node.hub
            .listener
            .topics
            .get(TOPIC)
            .unwrap()
            .state
            .lock()
            .pending
            .bytes()
    };
    assert!(waiting() <= 4 << 20, "{} bytes wait", waiting());
    node.world.failing.store(false, Ordering::SeqCst);
    node.commit("last");
    reader.sees_last("203 last").await;
    assert_eq!(reader.seqs(), (1..=203).collect::<Vec<_>>());
}

#[tokio::test]
async fn trimmed_records_are_reported_as_gap() {
    let node = node();
    let reader = node.reader("a");
    let _subscription = node.subscribe(&reader).await;
    node.commit("1");
    reader.sees_last("1 1").await;
    (2..=10).for_each(|n| drop(node.lose(&n.to_string())));
    node.world.logs.lock().get_mut(TOPIC).unwrap().floor = 5;
    node.commit("11");
    reader.sees_last("Trimmed 11").await;
    node.commit("12");
    reader.sees(&["1 1", "Trimmed 11", "12 12"]).await;
    assert_eq!(node.hub.stats().gaps, 1);

    assert_eq!(*node.world.losses.lock(), ["a"]);

    let late = node.reader("b");
    let _late = node.resume(&late, 2).await;
    late.sees(&["Trimmed 12"]).await;
    assert_eq!(*node.world.losses.lock(), ["a", "b"]);
    node.commit("13");
    late.sees(&["Trimmed 12", "13 13"]).await;
}

#[tokio::test]
async fn recovery_retries_while_the_log_fails() {
    let node = node();
    let reader = node.reader("a");
    let _subscription = node.subscribe(&reader).await;
    node.commit("1");
    reader.sees_last("1 1").await;
    node.world.failing.store(true, Ordering::SeqCst);
    node.lose("2");
    node.commit("3");
    eventually(|| node.hub.stats().recoveries >= 3, || "attempts".into()).await;
    node.pass(0, "typing", Control::None);
    reader.sees_last("0 typing").await;
    node.commit("4");
    node.world.failing.store(false, Ordering::SeqCst);
    reader.sees(&["1 1", "0 typing", "2 2", "3 3", "4 4"]).await;
}

#[tokio::test]
async fn record_that_never_reaches_the_log_does_not_block_its_topic() {
    let node = node();
    let reader = node.reader("a");
    let _subscription = node.subscribe(&reader).await;
    node.commit("1");
    reader.sees_last("1 1").await;
    let ghost = Record {
        position: Position { seq: 7, at: 5_000 },
        before: 4_000,
        ..Record::default()
    };
    node.bus.publish(TOPIC, ghost.encode());
    eventually(|| node.hub.stats().recoveries >= 5, || "attempts".into()).await;
    node.commit("2");
    reader.sees(&["1 1", "2 2"]).await;
}

#[tokio::test]
async fn topics_are_compared_with_the_log_at_once_after_records_were_missed() {
    let node = node();
    let reader = node.reader("a");
    let _subscription = node.subscribe(&reader).await;
    node.commit("1");
    reader.sees_last("1 1").await;
    node.lose("2");
    node.world.failing.store(true, Ordering::SeqCst);
    node.missed(None);
    tokio::task::yield_now().await;
    node.world.failing.store(false, Ordering::SeqCst);
    reader.sees(&["1 1", "2 2"]).await;
    node.lose("3");
    node.missed(Some(&[TOPIC.into()]));
    reader.sees(&["1 1", "2 2", "3 3"]).await;
}

#[tokio::test]
async fn subscribers_are_reported_after_the_bus_may_have_lost_records_though_none_is_missing() {
    let node = node();
    let [alice, bob] = ["alice", "bob"].map(|name| node.reader(name));
    let _subscriptions = [node.subscribe(&alice).await, node.subscribe(&bob).await];
    node.commit("1");
    alice.sees(&["1 1"]).await;
    assert!(node.world.losses.lock().is_empty());
    node.missed(None);
    let reported = || {
        let mut losses = node.world.losses.lock().clone();
        losses.sort();
        losses == ["alice", "bob"]
    };
    eventually(reported, || "a report for each subscriber".into()).await;
    assert_eq!(node.hub.stats().gaps, 0);
}

#[tokio::test]
async fn unavailable_part_of_the_log_delays_no_other_topic() {
    let node = node_with(HubConfig {
        compare_period: Duration::from_secs(600),
        max_concurrent_reads: 2,
        ..HubConfig::default()
    });
    let (reader, waiting) = (node.reader("a"), node.reader("b"));
    let _subscription = node.subscribe(&reader).await;
    let mut stuck = Vec::new();
    for n in 0..10 {
        let topic: Topic = format!("away-{n}").into();
        node.world.stuck.lock().push(Arc::clone(&topic));
        let joining = node
            .hub
            .join(&topic, TopicKind::Logged, &waiting.outbox)
            .await
            .unwrap();
        stuck.push(joining.start(Position::default(), Position { seq: 1, at: 1 }));
    }
    // Detected by its successor, and by the comparison of heads.
    node.lose("1");
    node.commit("2");
    reader.sees_last("2 2").await;
    node.lose("3");
    node.missed(None);
    reader.sees(&["1 1", "2 2", "3 3"]).await;
}

#[tokio::test]
async fn heads_of_quiet_topics_are_compared_periodically() {
    let node = node_with(HubConfig {
        compare_period: Duration::from_millis(20),
        ..HubConfig::default()
    });
    let reader = node.reader("a");
    let _subscription = node.subscribe(&reader).await;
    node.lose("1");
    reader.sees(&["1 1"]).await;
}

#[tokio::test]
async fn lost_record_without_a_successor_is_found_by_the_digest_of_its_commit() {
    let node = node_with(HubConfig {
        compare_period: Duration::from_secs(600),
        has_digests: true,
        ..HubConfig::default()
    });
    node.bus.join(&digest::bucket_topics()).await.unwrap();
    let reader = node.reader("a");
    let _subscription = node.subscribe(&reader).await;
    node.commit("1");
    reader.sees(&["1 1"]).await;
    let lost = node.lose("2");
    let now = tokio::time::Instant::now();
    let publish = |recorder: DigestRecorder| {
        let (bucket, records) = recorder.last_round(now);
        for record in records {
            node.bus.publish(&bucket, record);
        }
    };
    let certain = DigestRecorder::new(1);
    certain.committed(TOPIC, lost.position, now);
    publish(certain);
    reader.sees(&["1 1", "2 2"]).await;
    node.lose("3");
    let uncertain = DigestRecorder::new(2);
    uncertain.uncertain(&TOPIC.into(), now);
    publish(uncertain);
    reader.sees(&["1 1", "2 2", "3 3"]).await;
    assert!(node.world.losses.lock().is_empty(), "nothing is missing");
}

#[tokio::test]
async fn silent_node_is_forgotten_when_its_lease_has_ended() {
    let node = node();
    let start = tokio::time::Instant::now();
    let mut receiver = DigestReceiver::new(start);
    for record in DigestRecorder::new(1).next_round(start).1 {
        let _ = receiver.receive(&Digest::decode(record).unwrap(), start);
    }
    node.world.alive.lock().push(1);
    let mut now = start + LIFE_CHECK_AFTER;
    let mut forgets = async |receiver: &mut DigestReceiver| {
        now += SILENCE;
        let forgotten = node.hub.forget_dead_publishers(receiver, now).await;
        (forgotten, receiver.tick(now))
    };
    assert_eq!(forgets(&mut receiver).await, (false, Doubt::AllTopics));
    node.world.alive.lock().clear();
    node.world.failing.store(true, Ordering::SeqCst);
    assert_eq!(forgets(&mut receiver).await, (false, Doubt::AllTopics));
    node.world.failing.store(false, Ordering::SeqCst);
    let reader = node.reader("a");
    let _subscription = node.subscribe(&reader).await;
    node.lose("1");
    assert_eq!(forgets(&mut receiver).await, (true, Doubt::None));
    node.hub.listener.suspects.notify_one();
    reader.sees(&["1 1"]).await;
    assert_eq!(forgets(&mut receiver).await, (false, Doubt::None));
}

#[tokio::test]
async fn malformed_record_is_dropped_and_the_log_read() {
    let node = node();
    let reader = node.reader("a");
    let _subscription = node.subscribe(&reader).await;
    node.lose("1");
    node.bus.publish(TOPIC, Bytes::from_static(&[9; 40]));
    reader.sees(&["1 1"]).await;
    assert_eq!(node.hub.stats().malformed, 1);
}
