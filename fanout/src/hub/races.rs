//! Model checks of the hub: concurrent joins, leaves, evictions and publications in many
//! interleavings; see [`crate::sync`].
#![allow(clippy::unwrap_used, reason = "a check fails by panicking")]

use shuttle::future::{JoinHandle, spawn};

use super::testing::{Reader, TOPIC, TestNode, eventually, evict, node_with};
use super::*;
use crate::outbox::{OutboxLimits, Reason};
use crate::record::{Control, Record};
use crate::sync::races;
use crate::{FrameEncoding, Position};

/// A node whose topics do not linger, and that reads the log in short pages.
fn node() -> Arc<TestNode> {
    node_with_pages(2)
}

fn node_with_pages(page: usize) -> Arc<TestNode> {
    Arc::new(node_with(HubConfig {
        linger: Duration::ZERO,
        compare_period: Duration::from_secs(600),
        page_records: page,
        max_concurrent_reads: 2,
        ..HubConfig::default()
    }))
}

/// Commits records. The bus delivers those for which `delivers` returns true.
fn publisher(node: &Arc<TestNode>, records: u64, delivers: fn(u64) -> bool) -> JoinHandle<()> {
    let node = Arc::clone(node);
    spawn(async move {
        for n in 1..=records {
            if delivers(n) {
                node.commit("x");
            } else {
                node.lose("x");
            }
            yield_now().await;
        }
        node.missed(None);
    })
}

fn all(_: u64) -> bool {
    true
}

/// Waits for the last record, and checks that each record after `first` was received once and in
/// order.
async fn sees_all_after(node: &TestNode, reader: &Reader, first: u64) {
    let last = node.world.head(TOPIC).seq;
    let expected: Vec<u64> = (first + 1..=last).collect();
    eventually(
        || reader.seqs().len() >= expected.len(),
        || format!("{expected:?}, but saw {:?}", reader.seqs()),
    )
    .await;
    assert_eq!(reader.seqs(), expected);
}

#[test]
fn join_during_a_broadcast_receives_each_record_after_its_start_once() {
    races(|| async {
        let node = node();
        let (early, late) = (node.reader("a"), node.reader("b"));
        let _early = node.subscribe(&early).await;
        let publisher = publisher(&node, 4, all);
        let joining = node.join(&late).await;
        let head = node.world.head(TOPIC);
        let _late = joining.start(head, head);
        publisher.await.unwrap();
        node.commit("last");
        sees_all_after(&node, &early, 0).await;
        sees_all_after(&node, &late, head.seq).await;
    });
}

#[test]
fn resume_during_a_broadcast_receives_each_record_once() {
    races(|| async {
        let node = node();
        for _ in 0..3 {
            node.lose("x");
        }
        let reader = node.reader("a");
        let publisher = publisher(&node, 4, all);
        let _subscription = node.resume(&reader, 1).await;
        publisher.await.unwrap();
        node.commit("last");
        sees_all_after(&node, &reader, 1).await;
    });
}

#[test]
fn lost_records_are_recovered_from_the_log_in_order() {
    races(|| async {
        let node = node();
        let (live, resuming) = (node.reader("a"), node.reader("b"));
        let _live = node.subscribe(&live).await;
        let publisher = publisher(&node, 5, |n| n % 2 == 0);
        let _resuming = node.resume(&resuming, 0).await;
        publisher.await.unwrap();
        sees_all_after(&node, &live, 0).await;
        sees_all_after(&node, &resuming, 0).await;
        assert_eq!(node.hub.stats().gaps, 0);
    });
}

#[test]
fn replay_larger_than_the_outbox_waits_for_the_reader() {
    races(|| async {
        // All of it is one page, of which the outbox holds half.
        let node = node_with_pages(8);
        for _ in 0..6 {
            node.lose("a record of some length");
        }
        let limits = OutboxLimits::new(250, Duration::MAX, usize::MAX);
        let reader = Arc::new(node.reader_with("a", 0, FrameEncoding::Binary, &limits));
        let owner = spawn({
            let reader = Arc::clone(&reader);
            async move { reader.outbox.drive().await }
        });
        let peer = spawn({
            let reader = Arc::clone(&reader);
            async move {
                for _ in 0..12 {
                    reader.pipe.open(29);
                    assert!(reader.outbox.queued_bytes() <= 250);
                    yield_now().await;
                }
                reader.pipe.open(usize::MAX);
            }
        });
        let _subscription = node.resume(&reader, 0).await;
        node.commit("y");
        peer.await.unwrap();
        sees_all_after(&node, &reader, 0).await;
        reader.outbox.fail(Reason::Broken);
        assert_eq!(owner.await.unwrap(), Reason::Broken);
    });
}

#[test]
fn evicted_subject_receives_only_records_before_its_eviction() {
    races(|| async {
        let node = node();
        node.lose("x");
        let (live, behind, other) = (
            node.reader("gone"),
            node.reader("gone"),
            node.reader("other"),
        );
        let _other = node.resume(&other, 0).await;
        let live_subscription = node.subscribe(&live).await;
        let publisher = spawn({
            let node = Arc::clone(&node);
            async move {
                node.commit("x");
                node.commit_with("removed", evict("gone"));
                node.commit("secret");
            }
        });
        let joining = node.join(&behind).await;
        // Admitted at the first record.
        let (first, head) = (node.position(0), node.position(1));
        let behind_subscription = joining.start(first, head);
        publisher.await.unwrap();
        sees_all_after(&node, &other, 0).await;
        eventually(
            || live_subscription.is_ended() && behind_subscription.is_ended(),
            || "both to end".into(),
        )
        .await;
        node.commit("secret too");
        sees_all_after(&node, &other, 0).await;
        assert_eq!(live.seqs(), [2]);
        assert!(
            behind.seqs().len() <= 2
                && behind
                    .seqs()
                    .iter()
                    .copied()
                    .eq(1..=behind.seqs().len() as u64),
            "{:?}",
            behind.seqs()
        );
    });
}

#[test]
fn topic_left_and_joined_concurrently_delivers_records() {
    races(|| async {
        let node = node();
        let comers: Vec<JoinHandle<()>> = ["a", "b"]
            .into_iter()
            .map(|name| {
                let node = Arc::clone(&node);
                spawn(async move {
                    for _ in 0..2 {
                        let reader = node.reader(name);
                        let joining = node.join(&reader).await;
                        let head = node.world.head(TOPIC);
                        let _subscription = joining.start(head, head);
                        // Nothing else reads the log, so a topic that was not joined again would
                        // wait forever.
                        eventually(
                            || !reader.seqs().is_empty(),
                            || format!("what follows {}", head.seq),
                        )
                        .await;
                        assert_eq!(reader.seqs()[0], head.seq + 1);
                    }
                })
            })
            .collect();
        let publisher = spawn({
            let node = Arc::clone(&node);
            async move {
                loop {
                    node.commit("x");
                    yield_now().await;
                }
            }
        });
        for comer in comers {
            comer.await.unwrap();
        }
        publisher.abort();
        eventually(
            || node.hub.stats().subscriptions == 0 && node.hub.stats().topics == 0,
            || "the end of the topic".into(),
        )
        .await;
    });
}

#[test]
fn passing_record_published_during_a_hold_follows_the_reply() {
    races(|| async {
        let node = node();
        let reader = Arc::new(node.reader("a"));
        let owner = spawn({
            let reader = Arc::clone(&reader);
            async move { reader.outbox.drive().await }
        });
        let publisher = publisher(&node, 3, all);
        let joining = node.join(&reader).await;
        let head = node.world.head(TOPIC);
        let hold = reader.outbox.hold();
        reader
            .outbox
            .push(
                crate::outbox::testing::frame("0 reply"),
                crate::Class::Reply,
            )
            .unwrap();
        let _subscription = joining.start(head, head);
        yield_now().await;
        assert!(reader.pipe.texts().is_empty());
        node.pass(0, "typing", Control::None);
        drop(hold);
        publisher.await.unwrap();
        node.commit("last");
        let expected: Vec<u64> = std::iter::once(0)
            .chain(head.seq + 1..=node.world.head(TOPIC).seq)
            .collect();
        let durable = || {
            reader
                .pipe
                .texts()
                .into_iter()
                .filter(|t| t != "0 typing")
                .count()
        };
        // A subscriber that catches up may receive the last record from the log before the passing
        // one.
        let typing = || reader.pipe.texts().len() > durable();
        eventually(
            || durable() >= expected.len() && typing(),
            || format!("{expected:?}, but saw {:?}", reader.pipe.texts()),
        )
        .await;
        let (typing, rest): (Vec<_>, Vec<_>) = reader
            .pipe
            .texts()
            .into_iter()
            .partition(|text| text == "0 typing");
        assert_eq!((typing.len(), rest[0].as_str()), (1, "0 reply"));
        assert_eq!(
            rest.iter()
                .map(|text| text.split(' ').next().unwrap().parse().unwrap())
                .collect::<Vec<u64>>(),
            expected
        );
        reader.outbox.fail(Reason::Broken);
        owner.await.unwrap();
    });
}

#[test]
fn reused_numbers_are_reported_as_one_gap() {
    races(|| async {
        let node = node();
        let reader = node.reader("a");
        let _subscription = node.subscribe(&reader).await;
        node.commit("x");
        node.commit("lost in the failover");
        sees_all_after(&node, &reader, 0).await;
        node.world.logs.lock().get_mut(TOPIC).unwrap().records.pop();
        let publisher = publisher(&node, 3, all);
        publisher.await.unwrap();
        eventually(
            || {
                reader
                    .pipe
                    .texts()
                    .iter()
                    .any(|t| t.starts_with("Diverged"))
            },
            || "a gap".into(),
        )
        .await;
        node.commit("last");
        eventually(
            || reader.pipe.texts().last().is_some_and(|t| t == "5 last"),
            || format!("the last of {:?}", reader.pipe.texts()),
        )
        .await;
        let texts = reader.pipe.texts();
        let gaps: Vec<u64> = texts
            .iter()
            .filter_map(|t| t.strip_prefix("Diverged "))
            .map(|seq| seq.parse().unwrap())
            .collect();
        assert_eq!(gaps.len(), 1, "{texts:?}");
        let after: Vec<String> = texts
            .into_iter()
            .skip_while(|t| !t.starts_with("Diverged"))
            .skip(1)
            .collect();
        let seqs: Vec<u64> = after
            .iter()
            .map(|t| t.split(' ').next().unwrap().parse().unwrap())
            .collect();
        assert_eq!(seqs, (gaps[0] + 1..=5).collect::<Vec<u64>>());
    });
}

#[test]
fn start_and_resume_during_a_failover_end_with_the_surviving_history() {
    races(|| async {
        let node = node();
        for _ in 0..2 {
            node.lose("x");
        }
        let failover = spawn({
            let node = Arc::clone(&node);
            async move {
                node.lose("lost");
                yield_now().await;
                node.commit("lost too");
                yield_now().await;
                node.world
                    .logs
                    .lock()
                    .get_mut(TOPIC)
                    .unwrap()
                    .records
                    .truncate(2);
                for n in 0..3 {
                    node.commit(&format!("new {n}"));
                    yield_now().await;
                }
                node.missed(None);
            }
        });
        let (fresh, resuming) = (node.reader("a"), node.reader("b"));
        let _resuming = node.resume(&resuming, 1).await;
        let joining = node.join(&fresh).await;
        let head = node.world.head(TOPIC);
        yield_now().await;
        let _fresh = joining.start(head, head);
        failover.await.unwrap();
        node.commit("last");
        let stayed: Vec<String> = node.world.logs.lock()[TOPIC]
            .records
            .iter()
            .map(text_of)
            .collect();
        let ends = [
            stayed[stayed.len() - 1].clone(),
            format!("Diverged {}", stayed.len()),
        ];
        for (reader, start) in [(&fresh, head), (&resuming, node.position(1))] {
            eventually(
                || {
                    reader
                        .pipe
                        .texts()
                        .last()
                        .is_some_and(|text| ends.contains(text))
                },
                || format!("the last of {:?}", reader.pipe.texts()),
            )
            .await;
            let texts = reader.pipe.texts();
            let gap = texts.iter().rposition(|text| text.starts_with("Diverged"));
            let first = gap.map_or(start.seq, |gap| {
                texts[gap].trim_start_matches("Diverged ").parse().unwrap()
            });
            assert_eq!(
                texts[gap.map_or(0, |gap| gap + 1)..],
                stayed[first as usize..],
                "from {start:?} on: {texts:?}"
            );
            let stands = start == Position::default() || stayed_at(&node, start);
            assert!(
                gap.is_some() || stands,
                "{start:?} is not in the log any more, and no gap was reported: {texts:?}"
            );
        }
    });
}

fn text_of(record: &Record) -> String {
    format!(
        "{} {}",
        record.position.seq,
        String::from_utf8_lossy(&record.body)
    )
}

fn stayed_at(node: &TestNode, position: Position) -> bool {
    node.world.logs.lock()[TOPIC]
        .records
        .iter()
        .any(|record| record.position == position)
}
