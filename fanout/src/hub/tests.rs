//! What the hub promises, against a log in memory and a bus that loses, doubles and invents at will.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::atomic::AtomicU32;

use async_trait::async_trait;

use super::testing::{Node, Reader, TOPIC, World, eventually, evict, node, node_with};
use super::*;
use crate::Encoding;
use crate::outbox::testing::Pipe;
use crate::outbox::{Excess, Limits, Reason};
use crate::record::Control;

impl Reader {
    fn drive(&self) -> tokio::task::JoinHandle<Reason> {
        let outbox = Arc::clone(&self.outbox);
        tokio::spawn(async move { outbox.drive().await })
    }
}

#[test]
fn a_subscription_takes_sixteen_bytes() {
    assert_eq!(size_of::<Subscription>(), 16);
}

#[tokio::test]
async fn all_subscribers_are_told_in_order_and_each_encoding_is_made_once_if_somebody_listens() {
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
    assert_eq!(node.world.framed.each_ref().map(|n| n.load(Ordering::SeqCst)), [3, 0]);
    drop(first);
    let text = node.reader_with("c", usize::MAX, Encoding::Text, &node.limits);
    let _third = node.subscribe(&text).await;
    node.commit("w");
    text.sees(&["4 w"]).await;
    readers[1].sees(&["1 x", "2 y", "3 z", "4 w"]).await;
    assert_eq!(readers[0].pipe.texts().len(), 3);
    assert_eq!(node.world.framed.each_ref().map(|n| n.load(Ordering::SeqCst)), [4, 1]);
    let stats = node.hub.stats();
    assert_eq!((stats.topics, stats.subscriptions, stats.deliveries, stats.repairs, stats.gaps, stats.doubles), (1, 2, 8, 0, 0, 0));
}

#[tokio::test]
async fn records_that_wait_leave_in_one_call() {
    let node = node();
    let reader = node.reader("a");
    let _subscription = node.subscribe(&reader).await;
    // No other task runs before the next await, so all of them wait for the broadcaster.
    for n in 0..100 {
        node.commit(&n.to_string());
    }
    reader.sees_last("100 99").await;
    assert_eq!((reader.pipe.calls(), reader.seqs()), (1, (1..=100).collect()));
}

#[tokio::test]
async fn a_subscriber_that_starts_ahead_of_its_topic_is_told_only_what_stands_after_its_start() {
    let node = node();
    let (early, late) = (node.reader("a"), node.reader("b"));
    let _early = node.subscribe(&early).await;
    let joining = node.join(&late).await;
    for text in ["x", "y", "z"] {
        node.commit(text);
    }
    // The broadcaster has not run: the topic stands at 0, the subscriber starts at 2.
    let _late = joining.start(node.position(2), node.position(2));
    node.pass(0, "p", Control::None);
    early.sees(&["1 x", "2 y", "3 z", "0 p"]).await;
    // What passes does not wait for who catches up.
    late.sees(&["0 p", "3 z"]).await;
    node.commit("on");
    late.sees(&["0 p", "3 z", "4 on"]).await;
}

impl World {
    fn followed_by(&self, subject: &str) -> Vec<u64> {
        self.followed.lock().iter().filter(|(_, told)| told == subject).map(|(seq, _)| *seq).collect()
    }
}

#[tokio::test]
async fn the_source_hears_who_was_told_what_it_follows_and_of_nobody_who_was_not() {
    let node = node();
    let (alice, bob, carol) = (node.reader("alice"), node.reader("bob"), node.reader("carol"));
    let _alice = node.subscribe(&alice).await;
    let joining = node.join(&bob).await;
    let _not_started = node.join(&carol).await;
    for text in ["x", "followed 2", "y", "followed 4"] {
        node.commit(text);
    }
    let _bob = joining.start(node.position(2), node.position(2));
    alice.sees_last("4 followed 4").await;
    bob.sees(&["3 y", "4 followed 4"]).await;
    eventually(|| node.world.passed.lock().len() == 4, || "four records".into()).await;
    assert_eq!(["alice", "bob", "carol"].map(|who| node.world.followed_by(who)), [vec![2, 4], vec![4], vec![]]);
}

#[tokio::test]
async fn the_source_hears_when_a_subscriber_that_is_behind_is_told_and_not_before() {
    let node = node();
    node.lose("x");
    let (alice, bob) = (node.reader("alice"), node.reader("bob"));
    let _alice = node.subscribe(&alice).await;
    // The log cannot be read: bob stays behind, while alice is told.
    node.world.failing.store(true, Ordering::SeqCst);
    let _bob = node.resume(&bob, 0).await;
    node.commit("followed");
    alice.sees(&["2 followed"]).await;
    assert_eq!((node.world.followed_by("alice"), node.world.followed_by("bob")), (vec![2], vec![]));
    node.world.failing.store(false, Ordering::SeqCst);
    bob.sees(&["1 x", "2 followed"]).await;
    eventually(|| node.world.followed_by("bob") == [2], || "bob".into()).await;
}

#[tokio::test]
async fn what_a_repair_reads_is_told_but_has_not_passed() {
    let node = node();
    let alice = node.reader("alice");
    let _alice = node.subscribe(&alice).await;
    node.commit("x");
    alice.sees_last("1 x").await;
    node.lose("followed");
    node.commit("followed");
    alice.sees(&["1 x", "2 followed", "3 followed"]).await;
    eventually(|| node.world.followed_by("alice") == [2, 3], || "alice".into()).await;
    assert_eq!(*node.world.passed.lock(), [1]);
}

#[tokio::test]
async fn passing_records_skip_who_is_excepted() {
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
async fn a_slow_reader_is_too_slow_and_delays_nobody() {
    let node = node();
    let limits = Limits::new(2_000, Duration::MAX, usize::MAX);
    let (slow, quick) = (node.reader_with("slow", 0, Encoding::Binary, &limits), node.reader("quick"));
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
async fn what_a_slow_reader_may_miss_is_dropped_before_it_is_too_slow() {
    let node = node();
    let limits = Limits::new(120, Duration::MAX, usize::MAX);
    let slow = node.reader_with("slow", 0, Encoding::Binary, &limits);
    let _slow = node.subscribe(&slow).await;
    for _ in 0..50 {
        node.pass(1, "typing", Control::None);
    }
    node.commit("x");
    node.commit("y");
    eventually(|| node.hub.stats().deliveries == 52, || "52 deliveries".into()).await;
    slow.pipe.open(usize::MAX);
    let _owner = slow.drive();
    slow.sees_last("2 y").await;
    assert!(limits.counts().dropped > 30);
}

#[tokio::test]
async fn an_eviction_takes_effect_in_seq_order_within_a_batch() {
    let node = node();
    let (alice, bob) = (node.reader("alice"), node.reader("bob"));
    let (alices, bobs) = (node.subscribe(&alice).await, node.subscribe(&bob).await);
    node.commit("before");
    node.commit_with("bob is removed", evict("bob"));
    node.commit("after");
    node.pass(0, "passing", Control::None);
    alice.sees(&["1 before", "2 bob is removed", "3 after", "0 passing"]).await;
    bob.sees(&["1 before"]).await;
    assert!(bobs.is_ended() && !alices.is_ended());
    assert_eq!(node.hub.stats().subscriptions, 1);
    drop(bobs);
    assert_eq!(node.hub.stats().subscriptions, 1);
}

#[tokio::test]
async fn an_eviction_spares_who_was_let_in_knowing_of_it() {
    let node = node();
    let (alice, bob) = (node.reader("alice"), node.reader("bob"));
    let _alices = node.subscribe(&alice).await;
    let joining = node.join(&bob).await;
    node.commit_with("bob is removed", evict("bob"));
    node.commit("bob is added");
    alice.sees(&["1 bob is removed", "2 bob is added"]).await;
    // Bob's session reads that he is a participant again, at 2, and resumes from the very beginning.
    let bobs = joining.start(Position::default(), node.position(2));
    node.commit("hi");
    bob.sees(&["1 bob is removed", "2 bob is added", "3 hi"]).await;
    assert!(!bobs.is_ended());
}

#[tokio::test]
async fn an_eviction_ends_who_has_not_started_and_was_let_in_before() {
    let node = node();
    let (alice, bob) = (node.reader("alice"), node.reader("bob"));
    let _alices = node.subscribe(&alice).await;
    node.commit("x");
    let joining = node.join(&bob).await;
    let head = node.world.head(TOPIC);
    node.commit_with("bob is removed", evict("bob"));
    node.commit("secret");
    alice.sees_last("3 secret").await;
    let bobs = joining.start(head, head);
    assert!(bobs.is_ended());
    node.commit("more");
    alice.sees_last("4 more").await;
    assert!(bob.pipe.texts().is_empty());
    assert_eq!(node.hub.stats().subscriptions, 1);
}

#[tokio::test]
async fn an_eviction_ends_who_is_behind_and_its_pump_tells_nothing_of_later() {
    let node = node();
    for n in 1..=40 {
        node.lose(&n.to_string());
    }
    let limits = Limits::new(400, Duration::MAX, usize::MAX);
    let bob = node.reader_with("bob", 0, Encoding::Binary, &limits);
    let _owner = bob.drive();
    let bobs = node.resume(&bob, 0).await;
    // The record of the removal is in the log, and was lost on the bus: only the pump can see it.
    node.world.append(TOPIC, "bob is removed", evict("bob"));
    node.lose("secret");
    bob.pipe.open(usize::MAX);
    eventually(|| bobs.is_ended(), || "the end of the subscription".into()).await;
    assert_eq!(bob.seqs(), (1..=40).collect::<Vec<_>>());

    let carol = node.reader_with("carol", 0, Encoding::Binary, &limits);
    let _owner = carol.drive();
    let carols = node.resume(&carol, 0).await;
    // Here the bus tells the hub while the pump is far behind.
    node.commit_with("carol is removed", evict("carol"));
    eventually(|| carols.is_ended(), || "the end of the subscription".into()).await;
    carol.pipe.open(usize::MAX);
    eventually(|| carol.outbox.queued_bytes() == 0, || "the rest".into()).await;
    assert!(carol.seqs().iter().all(|seq| *seq <= 42));
}

#[tokio::test]
async fn a_close_ends_all_subscriptions_after_it_is_told() {
    let node = node();
    let (alice, bob) = (node.reader("alice"), node.reader("bob"));
    let (alices, bobs) = (node.subscribe(&alice).await, node.subscribe(&bob).await);
    node.commit("x");
    node.commit_with("deleted", Control::Close);
    node.commit("nobody hears it");
    alice.sees(&["1 x", "2 deleted"]).await;
    bob.sees(&["1 x", "2 deleted"]).await;
    assert!(alices.is_ended() && bobs.is_ended());
    eventually(|| node.hub.stats().topics == 0, || "the topic to be left".into()).await;
    assert_eq!((alice.pipe.texts().len(), node.hub.stats().subscriptions), (2, 0));
}

#[tokio::test]
async fn a_close_spares_who_was_let_in_after_it() {
    let node = node();
    let (alice, bob) = (node.reader("alice"), node.reader("bob"));
    let alices = node.subscribe(&alice).await;
    let joining = node.join(&bob).await;
    // The broadcaster has not run: the topic stands before the close, and bob starts in what was made anew under its name.
    node.commit_with("deleted", Control::Close);
    node.commit("made anew");
    let bobs = joining.start(node.position(2), node.position(2));
    node.commit("hi");
    node.pass(0, "p", Control::None);
    alice.sees(&["1 deleted"]).await;
    bob.sees(&["0 p", "3 hi"]).await;
    assert!(alices.is_ended() && !bobs.is_ended());
    node.commit("on");
    bob.sees(&["0 p", "3 hi", "4 on"]).await;
    assert_eq!(alice.pipe.texts().len(), 1);
}

#[tokio::test]
async fn a_hole_is_read_from_the_log() {
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
    assert_eq!((node.hub.stats().gaps, node.hub.stats().repairs > 0), (0, true));
}

#[tokio::test]
async fn doubles_are_dropped() {
    let node = node();
    let reader = node.reader("a");
    let _subscription = node.subscribe(&reader).await;
    let records: Vec<Record> = (1..=3).map(|n| node.lose(&n.to_string())).collect();
    for index in [0, 0, 1, 0, 1, 2, 2, 0] {
        node.bus.publish(TOPIC, records[index].encode());
    }
    node.commit("4");
    reader.sees(&["1 1", "2 2", "3 3", "4 4"]).await;
    assert_eq!((node.hub.stats().doubles, node.hub.stats().repairs), (5, 0));
}

#[tokio::test]
async fn a_number_that_was_given_anew_is_told_as_a_gap() {
    let node = node();
    let reader = node.reader("a");
    let _subscription = node.subscribe(&reader).await;
    for text in ["x", "y", "lost"] {
        node.commit(text);
    }
    reader.sees_last("3 lost").await;
    // A failover loses the newest write and gives its number again.
    node.world.logs.lock().get_mut(TOPIC).unwrap().records.pop();
    node.commit("other");
    node.commit("z");
    reader.sees_last("Diverged 4").await;
    node.commit("on");
    reader.sees(&["1 x", "2 y", "3 lost", "Diverged 4", "5 on"]).await;
}

#[tokio::test]
async fn a_shorter_history_is_noticed_and_followed() {
    let node = node();
    let reader = node.reader("a");
    let _subscription = node.subscribe(&reader).await;
    for n in 1..=9 {
        node.commit(&n.to_string());
    }
    reader.sees_last("9 9").await;
    node.world.logs.lock().get_mut(TOPIC).unwrap().records.truncate(4);
    node.commit("five");
    reader.sees_last("Diverged 5").await;
    node.commit("six");
    reader.sees_last("6 six").await;
}

#[tokio::test]
async fn what_was_deleted_before_a_resume_is_told_as_it_is_now_though_the_bus_is_late() {
    for is_late in [false, true] {
        let node = node();
        let live = node.reader("a");
        let _live = node.subscribe(&live).await;
        // Somebody who joins and does not start yet keeps recent records at hand.
        let waiting = node.reader("c");
        let _waiting = node.join(&waiting).await;
        let records = ["text", "deletion"].map(|text| node.lose(text));
        let publish = || records.iter().for_each(|record| node.bus.publish(TOPIC, record.encode()));
        if !is_late {
            publish();
            live.sees(&["1 text", "2 deletion"]).await;
        }
        node.world.logs.lock().get_mut(TOPIC).unwrap().records[0].body = Bytes::from_static(b"deleted");
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
async fn who_started_from_a_head_that_a_failover_took_back_is_told_so() {
    for (told, lost) in [(0, 3), (2, 3), (0, 1)] {
        let node = node();
        let (live, ahead) = (node.reader("a"), node.reader("b"));
        let _live = node.subscribe(&live).await;
        (1..=told).for_each(|n| node.commit(&n.to_string()));
        eventually(|| live.seqs().len() == told, || "what is told".into()).await;
        // The bus was late, and then there was a failover: the head that it was let in at was never told, and never will be.
        (0..lost).for_each(|_| drop(node.lose("lost")));
        let joining = node.join(&ahead).await;
        let head = node.world.head(TOPIC);
        let _ahead = joining.start(head, head);
        node.world.logs.lock().get_mut(TOPIC).unwrap().records.truncate(told);
        for n in 0..2 * lost {
            node.commit(&format!("other {n}"));
            yield_now().await;
        }
        eventually(|| ahead.pipe.texts().iter().any(|text| text.starts_with("Diverged")), || format!("a gap, told {told}, lost {lost}"))
            .await;
        node.commit("last");
        let last = format!("{} last", node.world.head(TOPIC).seq);
        ahead.sees_last(&last).await;
        live.sees_last(&last).await;
        let texts = ahead.pipe.texts();
        let gap: u64 = texts[0].strip_prefix("Diverged ").unwrap_or_else(|| panic!("{texts:?}")).parse().unwrap();
        let after: Vec<u64> = texts[1..].iter().map(|text| text.split(' ').next().unwrap().parse().unwrap()).collect();
        assert_eq!(after, (gap + 1..=node.world.head(TOPIC).seq).collect::<Vec<_>>(), "{texts:?}");
    }
}

#[tokio::test]
async fn what_comes_during_a_repair_is_told_after_it_without_another_read() {
    let node = node();
    let reader = node.reader("a");
    let _subscription = node.subscribe(&reader).await;
    node.commit("1");
    reader.sees_last("1 1").await;
    node.lose("2");
    node.world.failing.store(true, Ordering::SeqCst);
    node.commit("3");
    eventually(|| node.hub.stats().repairs > 0, || "a repair".into()).await;
    (4..=20).for_each(|n| node.commit(&n.to_string()));
    node.world.failing.store(false, Ordering::SeqCst);
    reader.sees_last("20 20").await;
    let repairs = node.hub.stats().repairs;
    node.commit("21");
    reader.sees_last("21 21").await;
    assert_eq!(reader.seqs(), (1..=21).collect::<Vec<_>>());
    assert_eq!(node.hub.stats().repairs, repairs, "it is over");
}

#[tokio::test]
async fn what_waits_for_a_stuck_topic_is_bounded_and_nothing_of_it_is_lost() {
    let node = node();
    let reader = node.reader_with("a", usize::MAX, Encoding::Binary, &Limits::new(usize::MAX, Duration::MAX, usize::MAX));
    let _subscription = node.subscribe(&reader).await;
    node.commit("1");
    reader.sees_last("1 1").await;
    node.lose("2");
    node.world.failing.store(true, Ordering::SeqCst);
    let body = "x".repeat(64 * 1024);
    (0..200).for_each(|_| node.commit(&body));
    let waiting = || node.hub.feeds.get(TOPIC).unwrap().state.lock().pending.bytes();
    assert!(waiting() <= 4 << 20, "{} bytes wait", waiting());
    node.world.failing.store(false, Ordering::SeqCst);
    node.commit("last");
    reader.sees_last("203 last").await;
    assert_eq!(reader.seqs(), (1..=203).collect::<Vec<_>>());
}

#[tokio::test]
async fn what_was_trimmed_is_told_as_a_gap() {
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

    let late = node.reader("b");
    let _late = node.resume(&late, 2).await;
    late.sees(&["Trimmed 12"]).await;
    node.commit("13");
    late.sees(&["Trimmed 12", "13 13"]).await;
}

#[tokio::test]
async fn who_was_removed_in_what_was_trimmed_is_told_nothing_of_it() {
    let node = node();
    let (alice, bob) = (node.reader("alice"), node.reader("bob"));
    let (alices, bobs) = (node.subscribe(&alice).await, node.subscribe(&bob).await);
    node.commit("1");
    bob.sees_last("1 1").await;
    let behind = node.reader("bob");
    let joining = node.join(&behind).await;
    let head = node.world.head(TOPIC);
    node.world.append(TOPIC, "bob is removed", evict("bob"));
    (3..=10).for_each(|n| drop(node.lose(&n.to_string())));
    node.world.strangers.lock().push(Bytes::from_static(b"bob"));
    node.world.logs.lock().get_mut(TOPIC).unwrap().floor = 5;
    let resumed = joining.start(Position::default(), head);
    eventually(|| resumed.is_ended(), || "the end of the one behind".into()).await;
    node.commit("11");
    alice.sees(&["1 1", "Trimmed 11"]).await;
    node.commit("12");
    alice.sees(&["1 1", "Trimmed 11", "12 12"]).await;
    assert_eq!((bob.pipe.texts(), behind.pipe.texts().len()), (vec!["1 1".to_owned()], 0));
    assert!(bobs.is_ended() && !alices.is_ended());
}

#[tokio::test]
async fn a_repair_outlasts_a_failing_log() {
    let node = node();
    let reader = node.reader("a");
    let _subscription = node.subscribe(&reader).await;
    node.commit("1");
    reader.sees_last("1 1").await;
    node.world.failing.store(true, Ordering::SeqCst);
    node.lose("2");
    node.commit("3");
    eventually(|| node.hub.stats().repairs >= 3, || "attempts".into()).await;
    node.pass(0, "typing", Control::None);
    reader.sees_last("0 typing").await;
    node.commit("4");
    node.world.failing.store(false, Ordering::SeqCst);
    reader.sees(&["1 1", "0 typing", "2 2", "3 3", "4 4"]).await;
}

#[tokio::test]
async fn an_announcement_that_the_log_never_has_does_not_hold_a_topic_up() {
    let node = node();
    let reader = node.reader("a");
    let _subscription = node.subscribe(&reader).await;
    node.commit("1");
    reader.sees_last("1 1").await;
    let ghost = Record { position: Position { seq: 7, at: 5_000 }, before: 4_000, ..Record::default() };
    node.bus.publish(TOPIC, ghost.encode());
    eventually(|| node.hub.stats().repairs >= 5, || "attempts".into()).await;
    node.commit("2");
    reader.sees(&["1 1", "2 2"]).await;
}

#[tokio::test]
async fn after_missing_something_all_topics_are_compared_with_the_log_at_once() {
    let node = node();
    let reader = node.reader("a");
    let _subscription = node.subscribe(&reader).await;
    node.commit("1");
    reader.sees_last("1 1").await;
    node.lose("2");
    node.world.failing.store(true, Ordering::SeqCst);
    node.hub.missed(None);
    tokio::task::yield_now().await;
    node.world.failing.store(false, Ordering::SeqCst);
    reader.sees(&["1 1", "2 2"]).await;
    node.lose("3");
    node.hub.missed(Some(&[TOPIC.into()]));
    reader.sees(&["1 1", "2 2", "3 3"]).await;
}

#[tokio::test]
async fn a_part_of_the_log_that_is_away_holds_up_no_other() {
    let node = node_with(Config { compare: Duration::from_secs(600), reads: 2, ..Config::default() });
    let (reader, waiting) = (node.reader("a"), node.reader("b"));
    let _subscription = node.subscribe(&reader).await;
    let mut stuck = Vec::new();
    for n in 0..10 {
        let topic: Topic = format!("away-{n}").into();
        node.world.stuck.lock().push(Arc::clone(&topic));
        let joining = node.hub.join(&topic, Kind::Logged, &waiting.outbox).await.unwrap();
        stuck.push(joining.start(Position::default(), Position { seq: 1, at: 1 }));
    }
    // Found by its successor, and by the comparison of heads.
    node.lose("1");
    node.commit("2");
    reader.sees_last("2 2").await;
    node.lose("3");
    node.hub.missed(None);
    reader.sees(&["1 1", "2 2", "3 3"]).await;
}

#[tokio::test]
async fn what_is_missed_between_reading_the_head_and_starting_is_found() {
    let node = node();
    let reader = node.reader("a");
    let joining = node.join(&reader).await;
    let head = node.world.head(TOPIC);
    node.lose("1");
    node.hub.missed(None);
    eventually(|| node.hub.stats().topics == 1, || "the topic".into()).await;
    let _subscription = joining.start(head, head);
    reader.sees(&["1 1"]).await;
}

#[tokio::test]
async fn the_heads_of_quiet_topics_are_compared_from_time_to_time() {
    let node = node_with(Config { compare: Duration::from_millis(20), ..Config::default() });
    let reader = node.reader("a");
    let _subscription = node.subscribe(&reader).await;
    node.lose("1");
    reader.sees(&["1 1"]).await;
}

#[tokio::test]
async fn who_resumes_gets_all_after_its_position_and_then_what_happens() {
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
async fn who_resumes_from_another_history_is_told_so_and_goes_on_from_the_head() {
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
async fn a_long_resume_is_paced_by_its_reader_and_never_fails_for_its_length() {
    let node = node();
    for n in 1..=2_000 {
        node.lose(&n.to_string());
    }
    let limits = Limits::new(600, Duration::MAX, usize::MAX);
    let reader = node.reader_with("a", 0, Encoding::Binary, &limits);
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
async fn who_subscribes_anew_waits_until_nothing_of_its_earlier_replay_can_come() {
    let node = node();
    (1..=4).for_each(|n| drop(node.lose(&n.to_string())));
    let reader = node.reader("a");
    node.world.failing.store(true, Ordering::SeqCst);
    let first = node.resume(&reader, 0).await;
    eventually(|| node.world.reads.load(Ordering::SeqCst) > 0, || "a read".into()).await;
    drop(first);
    let _second = node.subscribe(&reader).await;
    let state = || node.hub.feeds.get(TOPIC).unwrap();
    assert_eq!(state().state.lock().seats.unsettled(), 1, "the earlier one may be about to push");
    node.world.failing.store(false, Ordering::SeqCst);
    eventually(|| state().state.lock().seats.unsettled() == 0, || "the end of the earlier one".into()).await;
    assert!(state().state.lock().pumped.is_empty());
    node.commit("5");
    reader.sees(&["5 5"]).await;
}

#[tokio::test]
async fn many_resumes_of_one_connection_share_its_outbox() {
    let node = node();
    let topics: Vec<(Topic, Kind)> = (0..50).map(|n| (format!("room {n}").into(), Kind::Logged)).collect();
    for (topic, _) in &topics {
        (1..=30).for_each(|n| drop(node.world.append(topic, &n.to_string(), Control::None)));
    }
    let limits = Limits::new(500, Duration::MAX, usize::MAX);
    let reader = node.reader_with("a", 0, Encoding::Binary, &limits);
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
        tokio::time::sleep(Duration::from_micros(100)).await;
    }
    assert_eq!((reader.outbox.is_over(), subscriptions.len()), (None, 50));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn joins_and_resumes_during_a_storm_see_a_stream_without_hole_or_double() {
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
                    let from = if (round + task) % 3 == 0 { head.seq / 2 } else { head.seq };
                    let cursor = node.position_or_default(from);
                    let subscription = joining.start(cursor, head);
                    joined.fetch_add(1, Ordering::SeqCst);
                    if round % 4 == 0 {
                        kept.push((reader, from, subscription));
                    } else {
                        tokio::time::sleep(Duration::from_micros(300)).await;
                        drop(subscription);
                        let seqs = reader.seqs();
                        assert!(seqs.iter().zip(from + 1..).all(|(seq, expected)| *seq == expected), "from {from}: {seqs:?}");
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
    assert_eq!((kept.len(), joined.load(Ordering::SeqCst), node.hub.stats().gaps), (80, 320, 0));
    assert_eq!(node.hub.stats().subscriptions, 81);
}

impl Node {
    fn position_or_default(&self, seq: u64) -> Position {
        if seq == 0 { Position::default() } else { self.position(seq) }
    }
}

#[tokio::test]
async fn who_resubscribes_while_a_batch_is_under_way_is_told_nothing_twice() {
    let node = node();
    let others: Vec<_> = (0..1_000).map(|_| node.reader("other")).collect();
    let mut subscriptions = Vec::new();
    for other in &others {
        subscriptions.push(node.subscribe(other).await);
    }
    let reader = node.reader("a");
    let subscription = node.subscribe(&reader).await;
    node.commit("1");
    // The broadcaster rests between strides, before it comes to the last seat.
    eventually(|| !others[0].pipe.texts().is_empty(), || "the first".into()).await;
    drop(subscription);
    let joining = node.join(&reader).await;
    let _subscription = joining.start(node.position(1), node.position(1));
    node.commit("2");
    reader.sees_last("2 2").await;
    assert!(reader.seqs() == [1, 2] || reader.seqs() == [2], "{:?}", reader.seqs());
}

#[tokio::test]
async fn who_is_let_in_again_while_the_batch_of_its_eviction_is_under_way_is_told_in_order() {
    let node = node();
    let others: Vec<_> = (0..5_000).map(|_| node.reader("other")).collect();
    let mut subscriptions = Vec::new();
    for other in &others {
        subscriptions.push(node.subscribe(other).await);
    }
    let bob = node.reader("bob");
    let before = node.subscribe(&bob).await;
    node.commit("x");
    node.commit_with("bob is removed", evict("bob"));
    // The broadcaster rests between strides, before it comes to the last seat.
    while others[0].pipe.texts().is_empty() {
        tokio::task::yield_now().await;
    }
    assert!(before.is_ended() && bob.pipe.texts().is_empty());
    let joining = node.join(&bob).await;
    node.commit("bob is added");
    let _again = joining.start(node.position(1), node.position(3));
    bob.sees(&["1 x", "2 bob is removed", "3 bob is added"]).await;
}

#[tokio::test]
async fn a_topic_is_left_some_time_after_its_last_subscriber_unless_somebody_comes_back() {
    let node = node();
    let reader = node.reader("a");
    let subscription = node.subscribe(&reader).await;
    drop(subscription);
    assert_eq!((node.hub.stats().topics, node.hub.stats().subscriptions), (1, 0));
    let subscription = node.subscribe(&reader).await;
    tokio::time::sleep(Duration::from_millis(120)).await;
    assert_eq!(node.hub.stats().topics, 1);
    node.commit("1");
    reader.sees(&["1 1"]).await;
    drop(subscription);
    eventually(|| node.hub.stats().topics == 0, || "the topic to be left".into()).await;
    node.commit("2");
    let _subscription = node.subscribe(&reader).await;
    node.commit("3");
    reader.sees(&["1 1", "3 3"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn comings_and_goings_around_the_linger_never_lose_the_topic() {
    let node = Arc::new(node_with(Config { linger: Duration::ZERO, compare: Duration::from_secs(600), ..Config::default() }));
    let tasks: Vec<_> = (0..4)
        .map(|_| {
            let node = Arc::clone(&node);
            tokio::spawn(async move {
                for round in 0..150 {
                    let reader = node.reader("a");
                    let subscription = node.subscribe(&reader).await;
                    node.pass(0, "mine", Control::None);
                    eventually(|| reader.pipe.texts().iter().any(|t| t == "0 mine"), || format!("a record in round {round}")).await;
                    drop(subscription);
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
    eventually(|| node.hub.stats().topics == 0, || "the topic to be left".into()).await;
    assert!(node.hub.feeds.all().is_empty());
}

#[tokio::test]
async fn passing_topics_have_no_position() {
    let node = node();
    let reader = node.reader("a");
    let joining = node.hub.join(&"presence".into(), Kind::Passing, &reader.outbox).await.unwrap();
    let subscription = joining.start(Position::default(), Position::default());
    for text in ["on", "off"] {
        node.bus.publish("presence", Record::passing(0, Control::None, text.into()).encode());
    }
    reader.sees(&["0 on", "0 off"]).await;
    node.hub.missed(None);
    node.bus.publish("presence", Record::passing(0, evict("a"), Bytes::new()).encode());
    eventually(|| subscription.is_ended(), || "the eviction".into()).await;
    assert_eq!(node.world.reads.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn what_is_no_record_is_dropped_and_the_log_read() {
    let node = node();
    let reader = node.reader("a");
    let _subscription = node.subscribe(&reader).await;
    node.lose("1");
    node.bus.publish(TOPIC, Bytes::from_static(&[9; 40]));
    reader.sees(&["1 1"]).await;
    assert_eq!(node.hub.stats().malformed, 1);
}

#[derive(Debug)]
struct DeafBus;

#[async_trait]
impl Bus for DeafBus {
    async fn join(&self, _topics: &[Topic]) -> Result<(), BusError> {
        Err(BusError("down".into()))
    }
    fn leave(&self, _topics: &[Topic]) {}
    fn is_connected(&self) -> bool {
        false
    }
}

#[tokio::test]
async fn a_join_that_the_bus_refuses_registers_nothing() {
    let world = Arc::new(World::default());
    let hub = Hub::new(Arc::new(DeafBus), world, Config::default());
    let outbox = Outbox::new(Pipe::new(0), Encoding::Binary, Limits::new(1, Duration::MAX, usize::MAX));
    let topics: Vec<(Topic, Kind)> = vec![("a".into(), Kind::Logged), ("b".into(), Kind::Logged)];
    assert!(hub.join_all(&topics, &outbox).await.is_err());
    assert_eq!(hub.stats().subscriptions, 0);
}

#[tokio::test]
async fn a_hub_without_owners_ends() {
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
