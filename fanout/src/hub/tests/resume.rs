//! Subscribing and resuming: no record is missing or repeated.

use std::sync::atomic::AtomicU32;

use super::*;

#[tokio::test]
async fn resume_delivers_current_state_even_if_the_bus_is_late() {
    for is_late in [false, true] {
        let node = node();
        let live = node.reader("a");
        let _live = node.subscribe(&live).await;
        // A subscriber that has not started yet makes the topic keep recent records.
        let waiting = node.reader("c");
        let _waiting = node.join(&waiting).await;
        let records = ["text", "deletion"].map(|text| node.lose(text));
        let publish = || {
            records
                .iter()
                .for_each(|record| node.bus.publish(TOPIC, record.encode()))
        };
        if !is_late {
            publish();
            live.sees(&["1 text", "2 deletion"]).await;
        }
        node.world.logs.lock().get_mut(TOPIC).unwrap().records[0].body =
            Bytes::from_static(b"deleted");
        let resuming = node.reader("b");
        let _resuming = node.resume(&resuming, 0).await;
        if is_late {
            publish();
        }
        node.commit("last");
        live.sees(&["1 text", "2 deletion", "3 last"]).await;
        resuming.sees(&["1 deleted", "2 deletion", "3 last"]).await;
    }
}

#[tokio::test]
async fn subscriber_that_started_at_a_head_lost_in_a_failover_receives_a_gap() {
    for (delivered, lost) in [(0, 3), (2, 3), (0, 1)] {
        let node = node();
        let (live, ahead) = (node.reader("a"), node.reader("b"));
        let _live = node.subscribe(&live).await;
        (1..=delivered).for_each(|n| node.commit(&n.to_string()));
        eventually(|| live.seqs().len() == delivered, || "the records".into()).await;
        // The bus is late, and then a failover loses the head at which the subscriber was admitted.
        (0..lost).for_each(|_| drop(node.lose("lost")));
        let joining = node.join(&ahead).await;
        let head = node.world.head(TOPIC);
        let _ahead = joining.start(head, head);
        node.world
            .logs
            .lock()
            .get_mut(TOPIC)
            .unwrap()
            .records
            .truncate(delivered);
        for n in 0..2 * lost {
            node.commit(&format!("other {n}"));
            yield_now().await;
        }
        eventually(
            || {
                ahead
                    .pipe
                    .texts()
                    .iter()
                    .any(|text| text.starts_with("Diverged"))
            },
            || format!("a gap, delivered {delivered}, lost {lost}"),
        )
        .await;
        node.commit("last");
        let last = format!("{} last", node.world.head(TOPIC).seq);
        ahead.sees_last(&last).await;
        live.sees_last(&last).await;
        let texts = ahead.pipe.texts();
        let gap: u64 = texts[0]
            .strip_prefix("Diverged ")
            .unwrap_or_else(|| panic!("{texts:?}"))
            .parse()
            .unwrap();
        let after: Vec<u64> = texts[1..]
            .iter()
            .map(|text| text.split(' ').next().unwrap().parse().unwrap())
            .collect();
        assert_eq!(
            after,
            (gap + 1..=node.world.head(TOPIC).seq).collect::<Vec<_>>(),
            "{texts:?}"
        );
    }
}

#[tokio::test]
async fn record_missed_between_reading_the_head_and_starting_is_recovered() {
    let node = node();
    let reader = node.reader("a");
    let joining = node.join(&reader).await;
    let head = node.world.head(TOPIC);
    node.lose("1");
    node.missed(None);
    eventually(|| node.hub.stats().topics == 1, || "the topic".into()).await;
    let _subscription = joining.start(head, head);
    reader.sees(&["1 1"]).await;
}

#[tokio::test]
async fn resume_delivers_all_after_the_position_and_then_live_records() {
    let node = node();
    for n in 1..=50 {
        node.lose(&n.to_string());
    }
    let reader = node.reader("a");
    let _subscription = node.resume(&reader, 20).await;
    node.commit("51");
    reader.sees_last("51 51").await;
    node.commit("52");
    reader.sees_last("52 52").await;
    assert_eq!(reader.seqs(), (21..=52).collect::<Vec<_>>());
}

#[tokio::test]
async fn resume_from_another_history_reports_a_gap_and_continues_at_the_head() {
    let node = node();
    (1..=5).for_each(|n| drop(node.lose(&n.to_string())));
    let reader = node.reader("a");
    let joining = node.join(&reader).await;
    let _subscription = joining.start(Position { seq: 900, at: 1 }, node.world.head(TOPIC));
    reader.sees(&["Diverged 5"]).await;
    node.commit("6");
    reader.sees(&["Diverged 5", "6 6"]).await;
}

#[tokio::test]
async fn long_resume_is_paced_by_its_reader_and_does_not_exceed_the_outbox() {
    let node = node();
    for n in 1..=2_000 {
        node.lose(&n.to_string());
    }
    let limits = OutboxLimits::new(600, Duration::MAX, usize::MAX);
    let reader = node.reader_with("a", 0, FrameEncoding::Binary, &limits);
    let _owner = reader.drive();
    let _subscription = node.resume(&reader, 0).await;
    while reader.pipe.frames().len() < 2_000 {
        reader.pipe.open(300);
        tokio::task::yield_now().await;
        assert!(reader.outbox.queued_bytes() <= 600);
    }
    assert_eq!(reader.seqs(), (1..=2_000).collect::<Vec<_>>());
    assert!(node.world.reads.load(Ordering::SeqCst) >= 2_000 / 7);
}

#[tokio::test]
async fn new_subscription_waits_until_the_earlier_catch_up_has_ended() {
    let node = node();
    (1..=4).for_each(|n| drop(node.lose(&n.to_string())));
    let reader = node.reader("a");
    node.world.failing.store(true, Ordering::SeqCst);
    let first = node.resume(&reader, 0).await;
    eventually(
        || node.world.reads.load(Ordering::SeqCst) > 0,
        || "a read".into(),
    )
    .await;
    drop(first);
    let _second = node.subscribe(&reader).await;
    let state = || node.hub.listener.topics.get(TOPIC).unwrap();
    assert_eq!(
        state().state.lock().subscribers.not_live(),
        1,
        "the earlier catch-up may be about to push"
    );
    node.world.failing.store(false, Ordering::SeqCst);
    eventually(
        || state().state.lock().subscribers.not_live() == 0,
        || "the end of the earlier one".into(),
    )
    .await;
    assert!(state().state.lock().removed_with_task.is_empty());
    node.commit("5");
    reader.sees(&["5 5"]).await;
}

#[tokio::test]
async fn resumes_of_one_connection_share_its_outbox() {
    let node = node();
    let topics: Vec<(Topic, TopicKind)> = (0..50)
        .map(|n| (format!("room {n}").into(), TopicKind::Logged))
        .collect();
    for (topic, _) in &topics {
        (1..=30).for_each(|n| drop(node.world.append(topic, &n.to_string(), Control::None)));
    }
    let limits = OutboxLimits::new(500, Duration::MAX, usize::MAX);
    let reader = node.reader_with("a", 0, FrameEncoding::Binary, &limits);
    let _owner = reader.drive();
    let joining = node.hub.join_all(&topics, &reader.outbox).await.unwrap();
    let subscriptions: Vec<_> = joining
        .into_iter()
        .map(|j| {
            let head = node.world.head(j.topic());
            j.start(Position::default(), head)
        })
        .collect();
    while reader.pipe.frames().len() < 1_500 {
        reader.pipe.open(100);
        tokio::task::yield_now().await;
    }
    assert_eq!(
        (reader.outbox.end_reason(), subscriptions.len()),
        (None, 50)
    );
}

#[tokio::test]
async fn resume_with_unavailable_log_delays_no_other_of_its_connection() {
    let node = node();
    (1..=30).for_each(|n| drop(node.lose(&n.to_string())));
    let reader = node.reader("a");
    let away: Topic = "away".into();
    (1..=3).for_each(|n| {
        drop(
            node.world
                .append(&away, &format!("away {n}"), Control::None),
        )
    });
    node.world.stuck.lock().push(Arc::clone(&away));
    let joining = node
        .hub
        .join(&away, TopicKind::Logged, &reader.outbox)
        .await
        .unwrap();
    let _away = joining.start(Position::default(), node.world.head(&away));
    eventually(
        || node.world.reads.load(Ordering::SeqCst) > 0,
        || "a read that waits".into(),
    )
    .await;
    let _here = node.resume(&reader, 0).await;
    reader.sees_last("30 30").await;
    node.commit("31");
    reader.sees_last("31 31").await;
    assert_eq!(reader.seqs(), (1..=31).collect::<Vec<_>>());
    // The log is available again, and answers the original request.
    node.world.stuck.lock().clear();
    node.world.unstuck.notify_waiters();
    reader.sees_last("3 away 3").await;
    assert_eq!(reader.seqs()[31..], [1, 2, 3]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn joins_and_resumes_under_load_receive_each_record_once() {
    const EVENTS: u64 = 3_000;
    let node = Arc::new(node());
    let stay = node.reader("stay");
    let _stay = node.subscribe(&stay).await;
    let publisher = std::thread::spawn({
        let node = Arc::clone(&node);
        move || {
            for n in 1..=EVENTS {
                // One in fifty is lost on the bus, one in thirty comes twice.
                let record = node.lose("x");
                if n % 50 != 0 {
                    node.bus.publish(TOPIC, record.encode());
                }
                if n % 30 == 0 {
                    node.bus.publish(TOPIC, record.encode());
                }
                // Keep publishing while others subscribe.
                if n % 10 == 0 {
                    std::thread::sleep(Duration::from_micros(200));
                }
            }
            node.commit("end");
        }
    });
    let joined = Arc::new(AtomicU32::new(0));
    let tasks: Vec<_> = (0..8u64)
        .map(|task| {
            let (node, joined) = (Arc::clone(&node), Arc::clone(&joined));
            tokio::spawn(async move {
                let mut kept = Vec::new();
                for round in 0..40u64 {
                    let reader = node.reader("a");
                    let joining = node.join(&reader).await;
                    let head = node.world.head(TOPIC);
                    let from = if (round + task) % 3 == 0 {
                        head.seq / 2
                    } else {
                        head.seq
                    };
                    let cursor = node.position_or_default(from);
                    let subscription = joining.start(cursor, head);
                    joined.fetch_add(1, Ordering::SeqCst);
                    if round % 4 == 0 {
                        kept.push((reader, from, subscription));
                    } else {
                        tokio::time::sleep(Duration::from_micros(300)).await;
                        drop(subscription);
                        let seqs = reader.seqs();
                        assert!(
                            seqs.iter()
                                .zip(from + 1..)
                                .all(|(seq, expected)| *seq == expected),
                            "from {from}: {seqs:?}"
                        );
                    }
                }
                kept
            })
        })
        .collect();
    let mut kept = Vec::new();
    for task in tasks {
        kept.extend(task.await.unwrap());
    }
    publisher.join().unwrap();
    let end = format!("{} end", EVENTS + 1);
    stay.sees_last(&end).await;
    assert_eq!(stay.seqs(), (1..=EVENTS + 1).collect::<Vec<_>>());
    for (reader, from, subscription) in &kept {
        reader.sees_last(&end).await;
        assert_eq!(reader.seqs(), (from + 1..=EVENTS + 1).collect::<Vec<_>>());
        assert!(!subscription.is_ended());
    }
    assert_eq!(
        (
            kept.len(),
            joined.load(Ordering::SeqCst),
            node.hub.stats().gaps
        ),
        (80, 320, 0)
    );
    assert_eq!(node.hub.stats().subscriptions, 81);
}

impl TestNode {
    fn position_or_default(&self, seq: u64) -> Position {
        if seq == 0 {
            Position::default()
        } else {
            self.position(seq)
        }
    }
}

#[tokio::test]
async fn resubscribing_during_a_broadcast_repeats_no_record() {
    let node = node();
    let others: Vec<_> = (0..1_000).map(|_| node.reader("other")).collect();
    let mut subscriptions = Vec::new();
    for other in &others {
        subscriptions.push(node.subscribe(other).await);
    }
    let reader = node.reader("a");
    let subscription = node.subscribe(&reader).await;
    node.commit("1");
    // The broadcaster yields before it reaches the last subscriber.
    eventually(|| !others[0].pipe.texts().is_empty(), || "the first".into()).await;
    drop(subscription);
    let joining = node.join(&reader).await;
    let _subscription = joining.start(node.position(1), node.position(1));
    node.commit("2");
    reader.sees_last("2 2").await;
    assert!(
        reader.seqs() == [1, 2] || reader.seqs() == [2],
        "{:?}",
        reader.seqs()
    );
}

#[tokio::test]
async fn stalled_reader_holds_no_page_of_the_log() {
    let node = node_with(HubConfig {
        page_records: 1_000,
        page_bytes: 4_000,
        compare_period: Duration::from_secs(600),
        ..HubConfig::default()
    });
    let text = "x".repeat(1_000);
    (1..=50).for_each(|_| drop(node.lose(&text)));
    let limits = OutboxLimits::new(20_000, Duration::MAX, usize::MAX);
    let reader = node.reader_with("a", 0, FrameEncoding::Binary, &limits);
    let _owner = reader.drive();
    let _subscription = node.resume(&reader, 0).await;
    eventually(
        || reader.outbox.queued_bytes() > 6_000,
        || "the first pages".into(),
    )
    .await;
    sleep(Duration::from_millis(50)).await;
    let framed = node.world.framed[FrameEncoding::Binary as usize].load(Ordering::SeqCst);
    assert!(
        framed <= 10,
        "{framed} records were framed for a reader that reads nothing"
    );
    assert!(reader.outbox.queued_bytes() <= 20_000);
    reader.pipe.open(usize::MAX);
    eventually(|| reader.seqs().len() == 50, || "all".into()).await;
    assert_eq!(reader.seqs(), (1..=50).collect::<Vec<_>>());
    let framed = node.world.framed[FrameEncoding::Binary as usize].load(Ordering::SeqCst);
    assert!(
        framed < 60,
        "{framed} records were framed, but frames without room are rare"
    );
}

#[tokio::test]
async fn record_larger_than_half_of_the_outbox_waits_until_it_is_empty() {
    let node = node();
    let large = "x".repeat(400);
    for n in 1..=20 {
        node.lose(if n % 3 == 0 { &large } else { "small" });
    }
    let limits = OutboxLimits::new(600, Duration::MAX, usize::MAX);
    let reader = node.reader_with("a", 0, FrameEncoding::Binary, &limits);
    let _owner = reader.drive();
    let _subscription = node.resume(&reader, 0).await;
    while reader.pipe.frames().len() < 20 {
        reader.pipe.open(50);
        tokio::task::yield_now().await;
        assert!(reader.outbox.queued_bytes() <= 600);
    }
    assert_eq!(reader.seqs(), (1..=20).collect::<Vec<_>>());
}
