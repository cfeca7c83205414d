//! The end of subscriptions: evictions and closes take effect in the order of the log.

use super::*;

#[tokio::test]
async fn eviction_takes_effect_in_seq_order_within_a_batch() {
    let node = node();
    let (alice, bob) = (node.reader("alice"), node.reader("bob"));
    let (alices, bobs) = (node.subscribe(&alice).await, node.subscribe(&bob).await);
    node.commit("before");
    node.commit_with("bob is removed", evict("bob"));
    node.commit("after");
    node.pass(0, "passing", Control::None);
    alice
        .sees(&["1 before", "2 bob is removed", "3 after", "0 passing"])
        .await;
    bob.sees(&["1 before"]).await;
    assert!(bobs.is_ended() && !alices.is_ended());
    let notices = [&bob, &alice].map(|reader| reader.outbox.take_ended_subscription());
    assert_eq!(notices, [true, false], "the owner of an ended one is told");
    assert!(!bob.outbox.take_ended_subscription(), "once");
    assert_eq!(node.hub.stats().subscriptions, 1);
    drop(bobs);
    assert_eq!(node.hub.stats().subscriptions, 1);
}

#[tokio::test]
async fn eviction_does_not_end_subscription_admitted_after_it() {
    let node = node();
    let (alice, bob) = (node.reader("alice"), node.reader("bob"));
    let _alices = node.subscribe(&alice).await;
    let joining = node.join(&bob).await;
    node.commit_with("bob is removed", evict("bob"));
    node.commit("bob is added");
    alice.sees(&["1 bob is removed", "2 bob is added"]).await;
    // Bob's session reads that he is a participant again, at 2, and resumes from the very
    // beginning.
    let bobs = joining.start(Position::default(), node.position(2));
    node.commit("hi");
    bob.sees(&["1 bob is removed", "2 bob is added", "3 hi"])
        .await;
    assert!(!bobs.is_ended());
}

#[tokio::test]
async fn eviction_ends_subscription_admitted_before_it_and_not_started() {
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
    assert!(bobs.is_ended() && bob.outbox.take_ended_subscription());
    node.commit("more");
    alice.sees_last("4 more").await;
    assert!(bob.pipe.texts().is_empty());
    assert_eq!(node.hub.stats().subscriptions, 1);
}

#[tokio::test]
async fn eviction_ends_subscription_that_catches_up_without_later_records() {
    let node = node();
    for n in 1..=40 {
        node.lose(&n.to_string());
    }
    let limits = OutboxLimits::new(400, Duration::MAX, usize::MAX);
    let bob = node.reader_with("bob", 0, FrameEncoding::Binary, &limits);
    let _owner = bob.drive();
    let bobs = node.resume(&bob, 0).await;
    // The bus lost the record of the removal: only the catch-up task can see it.
    node.world.append(TOPIC, "bob is removed", evict("bob"));
    node.lose("secret");
    bob.pipe.open(usize::MAX);
    eventually(|| bobs.is_ended(), || "the end of the subscription".into()).await;
    eventually(
        || bob.outbox.take_ended_subscription(),
        || "the notice".into(),
    )
    .await;
    assert_eq!(bob.seqs(), (1..=40).collect::<Vec<_>>());

    let carol = node.reader_with("carol", 0, FrameEncoding::Binary, &limits);
    let _owner = carol.drive();
    let carols = node.resume(&carol, 0).await;
    // Here the hub receives the record from the bus before the catch-up task reaches it.
    node.commit_with("carol is removed", evict("carol"));
    eventually(
        || carols.is_ended(),
        || "the end of the subscription".into(),
    )
    .await;
    carol.pipe.open(usize::MAX);
    eventually(|| carol.outbox.queued_bytes() == 0, || "the rest".into()).await;
    assert!(carol.seqs().iter().all(|seq| *seq <= 42));
}

#[tokio::test]
async fn close_ends_all_subscriptions_after_its_delivery() {
    let node = node();
    let (alice, bob) = (node.reader("alice"), node.reader("bob"));
    let (alices, bobs) = (node.subscribe(&alice).await, node.subscribe(&bob).await);
    node.commit("x");
    node.commit_with("deleted", Control::Close);
    node.commit("nobody hears it");
    alice.sees(&["1 x", "2 deleted"]).await;
    bob.sees(&["1 x", "2 deleted"]).await;
    assert!(alices.is_ended() && bobs.is_ended());
    eventually(
        || node.hub.stats().topics == 0,
        || "the topic to be left".into(),
    )
    .await;
    assert_eq!(
        (alice.pipe.texts().len(), node.hub.stats().subscriptions),
        (2, 0)
    );
}

#[tokio::test]
async fn close_does_not_end_subscription_admitted_after_it() {
    let node = node();
    let (alice, bob) = (node.reader("alice"), node.reader("bob"));
    let alices = node.subscribe(&alice).await;
    let joining = node.join(&bob).await;
    // The broadcaster has not run: the topic is before the close, and bob starts in the new topic
    // of the same name.
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
async fn subject_removed_within_a_trimmed_gap_receives_nothing() {
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
    node.world
        .removed_subjects
        .lock()
        .push(Bytes::from_static(b"bob"));
    node.world.logs.lock().get_mut(TOPIC).unwrap().floor = 5;
    let resumed = joining.start(Position::default(), head);
    eventually(
        || resumed.is_ended(),
        || "the end of the one that catches up".into(),
    )
    .await;
    node.commit("11");
    alice.sees(&["1 1", "Trimmed 11"]).await;
    node.commit("12");
    alice.sees(&["1 1", "Trimmed 11", "12 12"]).await;
    assert_eq!(
        (bob.pipe.texts(), behind.pipe.texts().len()),
        (vec!["1 1".to_owned()], 0)
    );
    assert!(bobs.is_ended() && !alices.is_ended());
}

#[tokio::test]
async fn subject_readmitted_during_the_broadcast_of_its_eviction_receives_all_in_order() {
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
    // The broadcaster yields before it reaches the last subscriber.
    while others[0].pipe.texts().is_empty() {
        tokio::task::yield_now().await;
    }
    assert!(before.is_ended() && bob.pipe.texts().is_empty());
    let joining = node.join(&bob).await;
    node.commit("bob is added");
    let _again = joining.start(node.position(1), node.position(3));
    bob.sees(&["1 x", "2 bob is removed", "3 bob is added"])
        .await;
}
