//! Requirements and writes.

use bytes::Bytes;

use super::{Bench, story::*};
use crate::store::{
    Commit, Conflict, Counter, Expected, Increment, Mark, Outcome, Partition, Stamps, Write,
    Written,
};

fn requiring(table: crate::store::Table, name: &str, is: Expected) -> Commit {
    commit().requiring(table, name, is)
}

pub(crate) async fn an_absent_document_meets_absent_alone<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.store();
    for table in [MESSAGES, PEOPLE, FACTS] {
        done(&*store, &room(), requiring(table, "none", Expected::Absent)).await;
        for is in [
            Expected::Present,
            Expected::Version(0),
            Expected::Version(1),
            Expected::Changed(0),
            Expected::Changed(1),
        ] {
            let conflict = refused(&*store, &room(), requiring(table, "none", is)).await;
            assert_eq!(
                conflict,
                Conflict {
                    require: vec![0],
                    increment: vec![]
                },
                "{is:?}"
            );
        }
    }
}

pub(crate) async fn a_present_document_meets_present_and_its_own_version<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.store();
    for table in [MESSAGES, PEOPLE, FACTS] {
        done(&*store, &room(), commit().putting(table, "one", "a")).await;
        done(&*store, &room(), commit().putting(table, "one", "b")).await;
        for is in [Expected::Present, Expected::Version(2)] {
            done(&*store, &room(), requiring(table, "one", is)).await;
        }
        for is in [
            Expected::Absent,
            Expected::Version(1),
            Expected::Version(3),
            Expected::Version(0),
        ] {
            refused(&*store, &room(), requiring(table, "one", is)).await;
        }
        // What is required is the state before the commit's own writes.
        done(
            &*store,
            &room(),
            commit()
                .requiring(table, "one", Expected::Version(2))
                .putting(table, "one", "c"),
        )
        .await;
        done(
            &*store,
            &room(),
            commit()
                .requiring(table, "two", Expected::Absent)
                .putting(table, "two", "a"),
        )
        .await;
    }
}

pub(crate) async fn changed_asks_for_the_last_event_and_so_counts_touches<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.store();
    let made = done(&*store, &room(), commit().putting(MESSAGES, "m", "hi"))
        .await
        .first_seq;
    done(
        &*store,
        &room(),
        requiring(MESSAGES, "m", Expected::Changed(made)),
    )
    .await;
    let touched = done(&*store, &room(), commit().touching(MESSAGES, "m"))
        .await
        .first_seq;
    refused(
        &*store,
        &room(),
        requiring(MESSAGES, "m", Expected::Changed(made)),
    )
    .await;
    done(
        &*store,
        &room(),
        requiring(MESSAGES, "m", Expected::Changed(touched)),
    )
    .await;
    done(
        &*store,
        &room(),
        requiring(MESSAGES, "m", Expected::Version(1)),
    )
    .await;
}

pub(crate) async fn a_conflict_changes_nothing_and_names_every_failure<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.store();
    done(
        &*store,
        &room(),
        commit()
            .putting(MESSAGES, "m", "hi")
            .putting(PEOPLE, "ann", "1")
            .putting(FACTS, "f", "1")
            .counting("size", 3),
    )
    .await;
    done(&*store, &room(), commit().reacting("m", "+1", 1)).await;
    let asked = [
        (MESSAGES, "m"),
        (PEOPLE, "ann"),
        (FACTS, "f"),
        (PEOPLE, "bob"),
    ];
    let before = read(&*store, &room(), &asked).await;

    let mut attempt = commit()
        .requiring(PEOPLE, "ann", Expected::Present)
        .requiring(PEOPLE, "bob", Expected::Present)
        .requiring(MESSAGES, "m", Expected::Version(1))
        .requiring(MESSAGES, "m", Expected::Absent)
        .requiring(FACTS, "f", Expected::Version(9))
        .counting("size", 1)
        .reacting("m", "-1", 1)
        .counting("size", 1)
        .putting(MESSAGES, "m", "changed")
        .putting(MESSAGES, "n", "new")
        .putting(PEOPLE, "bob", "new")
        .deleting(PEOPLE, "ann")
        .telling("told");
    attempt.increment[1].max_names = Some(1);
    attempt.increment[2].max = Some(3);
    let conflict = refused(&*store, &room(), attempt).await;
    assert_eq!(
        conflict,
        Conflict {
            require: vec![1, 3, 4],
            increment: vec![1, 2]
        }
    );

    let after = read(&*store, &room(), &asked).await;
    assert_eq!(after.documents, before.documents);
    assert_eq!(after.head, before.head);
    assert_eq!(after.counters, before.counters);
    assert_eq!(positions(&*store, &room()).await.len(), 1);

    // The numbers and seqs that it would have taken are taken by the next.
    let next = done(&*store, &room(), commit().putting(MESSAGES, "n", "new")).await;
    assert_eq!(
        (next.first_seq, next.written[0].stamps.number),
        (before.head.seq + 1, before.head.number + 1)
    );
}

pub(crate) async fn a_put_counts_versions_and_keeps_when_it_was_made<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.store();
    for table in [MESSAGES, PEOPLE, FACTS] {
        let made = done(&*store, &room(), commit().putting(table, "x", "1")).await;
        assert_eq!(made.written[0].version, 1);
        assert_eq!(made.written[0].stamps.created_at, made.at);
        bench.step_clock(50);
        for version in 2..5 {
            let put = done(
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

pub(crate) async fn marks_set_their_instant_and_later_puts_keep_it<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.store();
    let made = done(&*store, &room(), commit().putting(MESSAGES, "m", "a")).await;
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
    let edited = done(
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
    let plain = done(&*store, &room(), commit().putting(MESSAGES, "m", "c")).await;
    assert_eq!(
        plain.written[0].stamps,
        Stamps {
            seq: 3,
            ..edited.written[0].stamps
        }
    );
    bench.step_clock(10);
    let deleted = done(
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

    let person = done(
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

pub(crate) async fn a_put_without_an_event_keeps_the_seq<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.store();
    let mut told = commit().putting(PEOPLE, "ann", "1").telling("ann");
    let Write::Put { event, .. } = &mut told.write[0] else {
        unreachable!()
    };
    *event = Some(0);
    let told = done(&*store, &room(), told).await;
    assert_eq!(told.written[0].stamps.seq, 1);
    let quiet = done(
        &*store,
        &room(),
        commit().putting(PEOPLE, "ann", "2").telling("other"),
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

pub(crate) async fn a_document_made_again_after_its_deletion_is_new<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.store();
    for table in [PEOPLE, FACTS] {
        let made = done(
            &*store,
            &room(),
            commit().marking(table, "x", "1", Mark::Edited),
        )
        .await;
        let gone = done(&*store, &room(), commit().deleting(table, "x")).await;
        assert_eq!(gone.written, [Written::default()]);
        assert_eq!(document(&*store, &room(), table, "x").await, None);
        bench.step_clock(10);
        let again = done(
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

pub(crate) async fn a_document_made_again_has_no_version_of_an_earlier_life<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.store();
    for table in [PEOPLE, FACTS] {
        let mut seen = std::collections::HashSet::new();
        let mut last = 0;
        for life in 0..3 {
            // Ever shorter lives: how many there were does not tell how far one got.
            for _ in life..4 {
                let put = done(&*store, &room(), commit().putting(table, "x", "1")).await;
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
                while !purged(&*store, &room(), table, 10).await {}
            } else {
                done(
                    &*store,
                    &room(),
                    commit()
                        .deleting(table, "x")
                        .deleting(table, "none")
                        .putting(table, "y", "1"),
                )
                .await;
                done(&*store, &room(), commit().deleting(table, "y")).await;
            }
        }
        done(&*store, &room(), commit().putting(table, "x", "again")).await;
        for version in seen {
            refused(
                &*store,
                &room(),
                requiring(table, "x", Expected::Version(version)),
            )
            .await;
        }
    }
    // Numbered documents go by purging alone.
    done(&*store, &room(), commit().putting(MESSAGES, "m", "1")).await;
    let last = done(&*store, &room(), commit().putting(MESSAGES, "m", "2")).await;
    while !purged(&*store, &room(), MESSAGES, 10).await {}
    let again = done(&*store, &room(), commit().putting(MESSAGES, "m", "3")).await;
    assert!(again.written[0].version > last.written[0].version);
}

pub(crate) async fn deleting_or_touching_what_is_absent_is_nothing<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.store();
    let outcome = done(
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

pub(crate) async fn a_touch_sets_the_seq_and_leaves_the_version<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.store();
    let made = done(
        &*store,
        &room(),
        commit()
            .putting(MESSAGES, "m", "hi")
            .putting(MESSAGES, "n", "ho"),
    )
    .await;
    bench.step_clock(10);
    let touched = done(
        &*store,
        &room(),
        commit().telling("other").touching(MESSAGES, "m"),
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

pub(crate) async fn new_documents_are_numbered_in_the_order_of_the_writes<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.store();
    let first = done(
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
    let second = done(
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
    let other = done(&*store, &room(), commit().putting(PEOPLE, "ann", "")).await;
    assert_eq!(
        other.written[0].stamps.number, 0,
        "only numbered tables number"
    );
}

pub(crate) async fn a_commit_without_events_leaves_the_head<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.store();
    assert_eq!(
        done(&*store, &room(), commit().putting(PEOPLE, "ann", "1"))
            .await
            .first_seq,
        0
    );
    done(&*store, &room(), commit().telling("one").telling("two")).await;
    let before = head(&*store, &room()).await;
    bench.step_clock(10);
    let quiet = done(
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

pub(crate) async fn an_outcome_tells_of_every_write_in_order<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.store();
    done(
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
        .telling("last");
    let outcome = done(&*store, &room(), all).await;
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

pub(crate) async fn equal_keys_in_other_tables_and_partitions_are_other_documents<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.store();
    let (other, longer) = (
        Partition::new("channel:roo"),
        Partition::new("channel:room:m"),
    );
    done(
        &*store,
        &room(),
        commit()
            .putting(PEOPLE, "x", "person")
            .putting(FACTS, "x", "fact")
            .putting(MESSAGES, "x", "message"),
    )
    .await;
    done(&*store, &other, commit().putting(PEOPLE, "x", "other")).await;
    done(&*store, &longer, commit().putting(FACTS, "x", "longer")).await;
    let here = read(
        &*store,
        &room(),
        &[(PEOPLE, "x"), (FACTS, "x"), (MESSAGES, "x")],
    )
    .await;
    let values: Vec<_> = here
        .documents
        .into_iter()
        .map(|d| d.unwrap().value)
        .collect();
    assert_eq!(values, ["person", "fact", "message"]);
    let there = read(
        &*store,
        &other,
        &[(PEOPLE, "x"), (FACTS, "x"), (MESSAGES, "x")],
    )
    .await;
    assert_eq!(
        there
            .documents
            .into_iter()
            .map(|d| d.map(|d| d.value))
            .collect::<Vec<_>>(),
        [Some(Bytes::from("other")), None, None]
    );
    done(&*store, &other, commit().deleting(PEOPLE, "x")).await;
    assert!(document(&*store, &room(), PEOPLE, "x").await.is_some());
    assert_eq!(
        document(&*store, &longer, FACTS, "x").await.unwrap().value,
        "longer"
    );
}

pub(crate) async fn any_bytes_come_back_as_they_were<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.store();
    let every: Vec<u8> = (0..=255).chain((0..=255).rev()).collect();
    for (name, value) in [
        ("every", Bytes::from(every)),
        ("empty", Bytes::new()),
        ("zero", Bytes::from_static(&[0])),
        ("text", Bytes::from("1.5e3")),
    ] {
        for table in [MESSAGES, PEOPLE, FACTS] {
            done(
                &*store,
                &room(),
                commit().putting(table, name, value.clone()),
            )
            .await;
            assert_eq!(
                document(&*store, &room(), table, name).await.unwrap().value,
                value
            );
        }
    }
}

pub(crate) async fn values_of_64_kib_come_back_as_they_were<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.store();
    let value: Bytes = (0..64 * 1024)
        .map(|i: u32| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let mut batch = commit();
    for i in 0..8 {
        batch = batch
            .putting(MESSAGES, &format!("m{i}"), value.clone())
            .putting(PEOPLE, &format!("p{i}"), value.clone());
    }
    done(&*store, &room(), batch).await;
    for i in 0..8 {
        assert_eq!(
            document(&*store, &room(), MESSAGES, &format!("m{i}"))
                .await
                .unwrap()
                .value,
            value
        );
        assert_eq!(
            document(&*store, &room(), PEOPLE, &format!("p{i}"))
                .await
                .unwrap()
                .value,
            value
        );
    }
}

pub(crate) async fn keys_may_be_any_unicode_up_to_256_bytes<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.store();
    let long = "ü".repeat(128);
    for name in [
        "Zoë",
        "名前",
        "👩‍👩‍👧",
        "with space",
        "a:b/c*?[x]%\\'\"",
        "0",
        "",
        &long,
    ] {
        for table in [MESSAGES, PEOPLE, FACTS] {
            done(
                &*store,
                &room(),
                commit().requiring(table, name, Expected::Absent).putting(
                    table,
                    name,
                    name.to_owned(),
                ),
            )
            .await;
            let found = document(&*store, &room(), table, name).await.unwrap();
            assert_eq!((&*found.key, &found.value[..]), (name, name.as_bytes()));
        }
    }
    assert_eq!(head(&*store, &room()).await.number, 8);
}

pub(crate) async fn an_empty_commit_does_nothing<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.store();
    let Outcome {
        at,
        first_seq,
        written,
        counts,
    } = done(&*store, &room(), commit()).await;
    assert!(at > 0);
    assert_eq!((first_seq, written, counts), (0, vec![], vec![]));
    assert_eq!(head(&*store, &room()).await, Default::default());

    // Requirements alone are a check.
    let mut limit = commit();
    limit.increment.push(Increment {
        counter: Counter::Partition("size"),
        by: 0,
        max: Some(0),
        max_names: None,
    });
    assert_eq!(done(&*store, &room(), limit).await.counts, [0]);
}
