//! Puts, touches and deletions, and the outcome of a commit.

use super::{Bench, story::*};
use crate::{Counter, EventSlot, Expected, Increment, Mark, Outcome, Stamps, Write, Written};

pub(crate) async fn put_increments_version_and_keeps_created_at<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.store();
    for table in [MESSAGES, PEOPLE, FACTS] {
        let made = commits(&*store, &room(), commit().putting(table, "x", "1")).await;
        assert_eq!(made.written[0].version, 1);
        assert_eq!(made.written[0].stamps.created_at, made.at);
        bench.step_clock(50);
        for version in 2..5 {
            let put = commits(
                &*store,
                &room(),
                commit().putting(table, "x", format!("{version}")),
            )
            .await;
            assert!(put.at >= made.at + 50);
            assert_eq!(put.written[0].version, version);
            assert_eq!(put.written[0].stamps.created_at, made.at);
            let found = document(&*store, &room(), table, "x").await.unwrap();
            assert_eq!(
                (found.version, found.stamps, &*found.key),
                (version, put.written[0].stamps, "x")
            );
            assert_eq!(found.value, format!("{version}"));
        }
    }
}

pub(crate) async fn marks_set_their_timestamp_and_later_puts_keep_it<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.store();
    let made = commits(&*store, &room(), commit().putting(MESSAGES, "m", "a")).await;
    assert_eq!(
        made.written[0].stamps,
        Stamps {
            number: 1,
            seq: 1,
            created_at: made.at,
            edited_at: 0,
            deleted_at: 0
        }
    );
    bench.step_clock(10);
    let edited = commits(
        &*store,
        &room(),
        commit().marking(MESSAGES, "m", "b", Mark::Edited),
    )
    .await;
    assert_eq!(
        edited.written[0].stamps,
        Stamps {
            seq: 2,
            edited_at: edited.at,
            ..made.written[0].stamps
        }
    );
    bench.step_clock(10);
    let plain = commits(&*store, &room(), commit().putting(MESSAGES, "m", "c")).await;
    assert_eq!(
        plain.written[0].stamps,
        Stamps {
            seq: 3,
            ..edited.written[0].stamps
        }
    );
    bench.step_clock(10);
    let deleted = commits(
        &*store,
        &room(),
        commit().marking(MESSAGES, "m", "", Mark::Deleted),
    )
    .await;
    assert_eq!(
        deleted.written[0].stamps,
        Stamps {
            seq: 4,
            deleted_at: deleted.at,
            ..edited.written[0].stamps
        }
    );
    assert_eq!(deleted.written[0].version, 4);
    assert_eq!(
        document(&*store, &room(), MESSAGES, "m")
            .await
            .unwrap()
            .stamps,
        deleted.written[0].stamps
    );

    let person = commits(
        &*store,
        &room(),
        commit().marking(PEOPLE, "ann", "1", Mark::Edited),
    )
    .await;
    assert_eq!(
        person.written[0].stamps,
        Stamps {
            created_at: person.at,
            edited_at: person.at,
            ..Stamps::default()
        }
    );
}

pub(crate) async fn put_without_event_keeps_seq<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.store();
    let mut with_event = commit().putting(PEOPLE, "ann", "1").appending("ann");
    let Write::Put { event, .. } = &mut with_event.write[0] else {
        unreachable!()
    };
    *event = Some(EventSlot::nth(0));
    let with_event = commits(&*store, &room(), with_event).await;
    assert_eq!(with_event.written[0].stamps.seq, 1);
    let quiet = commits(
        &*store,
        &room(),
        commit().putting(PEOPLE, "ann", "2").appending("other"),
    )
    .await;
    assert_eq!(quiet.written[0].stamps.seq, 1);
    assert_eq!(
        document(&*store, &room(), PEOPLE, "ann")
            .await
            .unwrap()
            .stamps
            .seq,
        1
    );
}

pub(crate) async fn document_created_after_deletion_is_new<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.store();
    for table in [PEOPLE, FACTS] {
        let made = commits(
            &*store,
            &room(),
            commit().marking(table, "x", "1", Mark::Edited),
        )
        .await;
        let gone = commits(&*store, &room(), commit().deleting(table, "x")).await;
        assert_eq!(gone.written, [Written::default()]);
        assert_eq!(document(&*store, &room(), table, "x").await, None);
        bench.step_clock(10);
        let again = commits(
            &*store,
            &room(),
            commit()
                .requiring(table, "x", Expected::Absent)
                .putting(table, "x", "2"),
        )
        .await;
        assert_eq!(
            again.written[0].stamps,
            Stamps {
                created_at: again.at,
                ..Stamps::default()
            }
        );
        assert!(again.written[0].version > made.written[0].version);
    }
}

pub(crate) async fn recreated_document_never_reuses_a_version<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.store();
    for table in [PEOPLE, FACTS] {
        let mut seen = std::collections::HashSet::new();
        let mut last = 0;
        for life in 0..3 {
            // Each life is shorter, so that the number of lives does not imply the version.
            for _ in life..4 {
                let put = commits(&*store, &room(), commit().putting(table, "x", "1")).await;
                let version = put.written[0].version;
                assert!(
                    version > last && seen.insert(version),
                    "{version} after {last}"
                );
                assert_eq!(
                    document(&*store, &room(), table, "x")
                        .await
                        .unwrap()
                        .version,
                    version
                );
                last = version;
            }
            if life == 1 {
                while !purge_step(&*store, &room(), table, 10).await {}
            } else {
                commits(
                    &*store,
                    &room(),
                    commit()
                        .deleting(table, "x")
                        .deleting(table, "none")
                        .putting(table, "y", "1"),
                )
                .await;
                commits(&*store, &room(), commit().deleting(table, "y")).await;
            }
        }
        commits(&*store, &room(), commit().putting(table, "x", "again")).await;
        for version in seen {
            conflicts(
                &*store,
                &room(),
                commit().requiring(table, "x", Expected::Version(version)),
            )
            .await;
        }
    }
    // Only a purge removes numbered documents.
    commits(&*store, &room(), commit().putting(MESSAGES, "m", "1")).await;
    let last = commits(&*store, &room(), commit().putting(MESSAGES, "m", "2")).await;
    while !purge_step(&*store, &room(), MESSAGES, 10).await {}
    let again = commits(&*store, &room(), commit().putting(MESSAGES, "m", "3")).await;
    assert!(again.written[0].version > last.written[0].version);
}

pub(crate) async fn deleting_or_touching_an_absent_document_has_no_effect<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.store();
    let outcome = commits(
        &*store,
        &room(),
        commit()
            .deleting(PEOPLE, "none")
            .deleting(FACTS, "none")
            .touching(MESSAGES, "none"),
    )
    .await;
    assert_eq!(outcome.written, [Written::default(); 3]);
    assert_eq!(document(&*store, &room(), MESSAGES, "none").await, None);
    assert_eq!(head(&*store, &room()).await.number, 0);
}

pub(crate) async fn touch_sets_seq_and_keeps_version<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.store();
    let made = commits(
        &*store,
        &room(),
        commit()
            .putting(MESSAGES, "m", "hi")
            .putting(MESSAGES, "n", "ho"),
    )
    .await;
    bench.step_clock(10);
    let touched = commits(
        &*store,
        &room(),
        commit().appending("other").touching(MESSAGES, "m"),
    )
    .await;
    let expected = Written {
        version: 1,
        stamps: Stamps {
            seq: 4,
            ..made.written[0].stamps
        },
    };
    assert_eq!(
        (touched.first_seq, &touched.written[..]),
        (3, &[expected][..])
    );
    let found = document(&*store, &room(), MESSAGES, "m").await.unwrap();
    assert_eq!(
        (found.version, found.stamps, &found.value[..]),
        (1, expected.stamps, &b"hi"[..])
    );
}

pub(crate) async fn new_documents_are_numbered_in_order_of_writes<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.store();
    let first = commits(
        &*store,
        &room(),
        commit()
            .putting(MESSAGES, "c", "")
            .putting(MESSAGES, "a", "")
            .putting(MESSAGES, "b", ""),
    )
    .await;
    assert_eq!(
        first
            .written
            .iter()
            .map(|w| w.stamps.number)
            .collect::<Vec<_>>(),
        [1, 2, 3]
    );
    let second = commits(
        &*store,
        &room(),
        commit()
            .putting(MESSAGES, "a", "")
            .putting(MESSAGES, "d", ""),
    )
    .await;
    assert_eq!(
        second
            .written
            .iter()
            .map(|w| w.stamps.number)
            .collect::<Vec<_>>(),
        [2, 4]
    );
    assert_eq!(head(&*store, &room()).await.number, 4);
    let other = commits(&*store, &room(), commit().putting(PEOPLE, "ann", "")).await;
    assert_eq!(
        other.written[0].stamps.number, 0,
        "only numbered tables number"
    );
}

pub(crate) async fn commit_without_events_keeps_the_head<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.store();
    assert_eq!(
        commits(&*store, &room(), commit().putting(PEOPLE, "ann", "1"))
            .await
            .first_seq,
        0
    );
    commits(&*store, &room(), commit().appending("one").appending("two")).await;
    let before = head(&*store, &room()).await;
    bench.step_clock(10);
    let quiet = commits(
        &*store,
        &room(),
        commit()
            .putting(PEOPLE, "ann", "2")
            .deleting(FACTS, "x")
            .counting("size", 1),
    )
    .await;
    assert_eq!(quiet.first_seq, 2);
    assert!(quiet.at >= before.at + 10);
    assert_eq!(head(&*store, &room()).await, before);
}

pub(crate) async fn outcome_lists_every_write_in_order<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.store();
    commits(
        &*store,
        &room(),
        commit()
            .putting(PEOPLE, "ann", "1")
            .putting(PEOPLE, "bob", "1")
            .putting(MESSAGES, "m", "1"),
    )
    .await;
    let all = commit()
        .putting(PEOPLE, "ann", "2")
        .touching(MESSAGES, "m")
        .deleting(PEOPLE, "bob")
        .putting(FACTS, "f", "1")
        .counting("size", 2)
        .reacting("m", "+1", 1)
        .appending("last");
    let outcome = commits(&*store, &room(), all).await;
    assert_eq!(
        outcome
            .written
            .iter()
            .map(|w| w.version)
            .collect::<Vec<_>>(),
        [2, 1, 0, 2]
    );
    assert_eq!(outcome.counts, [2, 1]);
    assert_eq!(outcome.first_seq, 2);
    assert_eq!(head(&*store, &room()).await.seq, 3);
}

pub(crate) async fn empty_commit_does_nothing<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.store();
    let Outcome {
        at,
        first_seq,
        written,
        counts,
    } = commits(&*store, &room(), commit()).await;
    assert!(at > 0);
    assert_eq!((first_seq, written, counts), (0, vec![], vec![]));
    assert_eq!(head(&*store, &room()).await, Default::default());

    // A commit without writes only checks.
    let mut limit = commit();
    limit.increment.push(Increment {
        counter: Counter::Partition("size"),
        by: 0,
        max: Some(0),
        max_names: None,
    });
    assert_eq!(commits(&*store, &room(), limit).await.counts, [0]);
}
