//! Delivery: to whom, in which order, and at which cost to others.

use super::*;

#[test]
fn subscription_takes_sixteen_bytes() {
    assert_eq!(size_of::<Subscription>(), 16);
}

#[tokio::test]
async fn subscribers_receive_records_in_order_and_each_used_encoding_is_framed_once() {
    let node = node();
    let readers = [node.reader("a"), node.reader("b")];
    let first = node.subscribe(&readers[0]).await;
    let _second = node.subscribe(&readers[1]).await;
    for text in ["x", "y", "z"] {
        node.commit(text);
    }
    for reader in &readers {
        reader.sees(&["1 x", "2 y", "3 z"]).await;
    }
    assert_eq!(
        node.world
            .framed
            .each_ref()
            .map(|n| n.load(Ordering::SeqCst)),
        [3, 0]
    );
    drop(first);
    let text = node.reader_with("c", usize::MAX, FrameEncoding::Text, &node.limits);
    let _third = node.subscribe(&text).await;
    node.commit("w");
    text.sees(&["4 w"]).await;
    readers[1].sees(&["1 x", "2 y", "3 z", "4 w"]).await;
    assert_eq!(readers[0].pipe.texts().len(), 3);
    assert_eq!(
        node.world
            .framed
            .each_ref()
            .map(|n| n.load(Ordering::SeqCst)),
        [4, 1]
    );
    let stats = node.hub.stats();
    assert_eq!(
        (
            stats.topics,
            stats.subscriptions,
            stats.deliveries,
            stats.recoveries,
            stats.gaps,
            stats.duplicates
        ),
        (1, 2, 8, 0, 0, 0)
    );
}

#[tokio::test]
async fn pending_records_are_written_in_one_call() {
    let node = node();
    let reader = node.reader("a");
    let _subscription = node.subscribe(&reader).await;
    // No other task runs before the next await, so all of them wait for the broadcaster.
    for n in 0..100 {
        node.commit(&n.to_string());
    }
    reader.sees_last("100 99").await;
    assert_eq!(
        (reader.pipe.calls(), reader.seqs()),
        (1, (1..=100).collect())
    );
}

#[tokio::test]
async fn subscriber_that_starts_ahead_of_its_topic_receives_only_later_records() {
    let node = node();
    let (early, late) = (node.reader("a"), node.reader("b"));
    let _early = node.subscribe(&early).await;
    let joining = node.join(&late).await;
    for text in ["x", "y", "z"] {
        node.commit(text);
    }
    // The broadcaster has not run: the topic is at 0, the subscriber starts at 2.
    let _late = joining.start(node.position(2), node.position(2));
    node.pass(0, "p", Control::None);
    early.sees(&["1 x", "2 y", "3 z", "0 p"]).await;
    // Passing records do not wait for subscribers that catch up.
    late.sees(&["0 p", "3 z"]).await;
    node.commit("on");
    late.sees(&["0 p", "3 z", "4 on"]).await;
}

impl World {
    fn observed_by(&self, subject: &str) -> Vec<u64> {
        self.observed
            .lock()
            .iter()
            .filter(|(_, receiver)| receiver == subject)
            .map(|(seq, _)| *seq)
            .collect()
    }
}

#[tokio::test]
async fn source_observes_each_delivery_of_an_observed_record() {
    let node = node();
    let (alice, bob, carol) = (
        node.reader("alice"),
        node.reader("bob"),
        node.reader("carol"),
    );
    let _alice = node.subscribe(&alice).await;
    let joining = node.join(&bob).await;
    let _not_started = node.join(&carol).await;
    for text in ["x", "observed 2", "y", "observed 4"] {
        node.commit(text);
    }
    let _bob = joining.start(node.position(2), node.position(2));
    alice.sees_last("4 observed 4").await;
    bob.sees(&["3 y", "4 observed 4"]).await;
    eventually(
        || node.world.broadcast.lock().len() == 4,
        || "four records".into(),
    )
    .await;
    assert_eq!(
        ["alice", "bob", "carol"].map(|who| node.world.observed_by(who)),
        [vec![2, 4], vec![4], vec![]]
    );
}

#[tokio::test]
async fn source_observes_delivery_to_subscriber_that_catches_up_when_it_happens() {
    let node = node();
    node.lose("x");
    let (alice, bob) = (node.reader("alice"), node.reader("bob"));
    let _alice = node.subscribe(&alice).await;
    // The log cannot be read: bob keeps catching up, while alice is live.
    node.world.failing.store(true, Ordering::SeqCst);
    let _bob = node.resume(&bob, 0).await;
    node.commit("observed");
    alice.sees(&["2 observed"]).await;
    assert_eq!(
        (
            node.world.observed_by("alice"),
            node.world.observed_by("bob")
        ),
        (vec![2], vec![])
    );
    node.world.failing.store(false, Ordering::SeqCst);
    bob.sees(&["1 x", "2 observed"]).await;
    eventually(|| node.world.observed_by("bob") == [2], || "bob".into()).await;
}

#[tokio::test]
async fn records_read_by_a_recovery_are_delivered_but_not_reported_as_broadcast() {
    let node = node();
    let alice = node.reader("alice");
    let _alice = node.subscribe(&alice).await;
    node.commit("x");
    alice.sees_last("1 x").await;
    node.lose("observed");
    node.commit("observed");
    alice.sees(&["1 x", "2 observed", "3 observed"]).await;
    eventually(
        || node.world.observed_by("alice") == [2, 3],
        || "alice".into(),
    )
    .await;
    assert_eq!(*node.world.broadcast.lock(), [1]);
}

#[tokio::test]
async fn passing_record_skips_the_excepted_subject() {
    let node = node();
    let (author, other) = (node.reader("a"), node.reader("b"));
    let _author = node.subscribe(&author).await;
    let _other = node.subscribe(&other).await;
    node.commit("x");
    node.pass(1, "typing", Control::Except(Bytes::from_static(b"a")));
    node.pass(0, "read", Control::Except(Bytes::from_static(b"b")));
    node.commit("y");
    author.sees(&["1 x", "0 read", "2 y"]).await;
    other.sees(&["1 x", "0 typing", "2 y"]).await;
}

#[tokio::test]
async fn slow_reader_is_disconnected_and_delays_nobody() {
    let node = node();
    let limits = OutboxLimits::new(2_000, Duration::MAX, usize::MAX);
    let (slow, quick) = (
        node.reader_with("slow", 0, FrameEncoding::Binary, &limits),
        node.reader("quick"),
    );
    let (_slow, _quick) = (node.subscribe(&slow).await, node.subscribe(&quick).await);
    let owner = slow.drive();
    for n in 1..=500 {
        node.commit("0123456789");
        assert!(slow.outbox.queued_bytes() <= 2_000);
        if n % 20 == 0 {
            quick.sees_last(&format!("{n} 0123456789")).await;
        }
    }
    assert_eq!(owner.await.unwrap(), Reason::TooSlow(Excess::Bytes));
    assert_eq!(quick.seqs(), (1..=500).collect::<Vec<_>>());
    assert!(slow.pipe.texts().is_empty() && slow.outbox.queued_bytes() == 0);
}

#[tokio::test]
async fn droppable_frames_of_a_slow_reader_are_dropped_before_it_is_disconnected() {
    let node = node();
    let limits = OutboxLimits::new(120, Duration::MAX, usize::MAX);
    let slow = node.reader_with("slow", 0, FrameEncoding::Binary, &limits);
    let _slow = node.subscribe(&slow).await;
    for _ in 0..50 {
        node.pass(1, "typing", Control::None);
    }
    node.commit("x");
    node.commit("y");
    eventually(
        || node.hub.stats().deliveries == 52,
        || "52 deliveries".into(),
    )
    .await;
    slow.pipe.open(usize::MAX);
    let _owner = slow.drive();
    slow.sees_last("2 y").await;
    assert!(limits.counts().dropped > 30);
}

#[tokio::test]
async fn passing_topic_has_no_position() {
    let node = node();
    let reader = node.reader("a");
    let joining = node
        .hub
        .join(&"presence".into(), TopicKind::Passing, &reader.outbox)
        .await
        .unwrap();
    let subscription = joining.start(Position::default(), Position::default());
    for text in ["on", "off"] {
        node.bus.publish(
            "presence",
            Record::passing(0, Control::None, text.into()).encode(),
        );
    }
    reader.sees(&["0 on", "0 off"]).await;
    node.missed(None);
    node.bus.publish(
        "presence",
        Record::passing(0, evict("a"), Bytes::new()).encode(),
    );
    eventually(|| subscription.is_ended(), || "the eviction".into()).await;
    assert_eq!(node.world.reads.load(Ordering::SeqCst), 0);
}
