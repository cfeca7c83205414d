//! Preconditions and conflicts.

use super::{Bench, story::*};
use crate::{Commit, Conflict, Expected};

fn requiring(table: crate::Table, name: &str, is: Expected) -> Commit {
    commit().requiring(table, name, is)
}

pub(crate) async fn absent_document_satisfies_only_absent<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.store();
    for table in [MESSAGES, PEOPLE, FACTS] {
        commits(&*store, &room(), requiring(table, "none", Expected::Absent)).await;
        for is in [
            Expected::Present,
            Expected::Version(0),
            Expected::Version(1),
            Expected::Changed(0),
            Expected::Changed(1),
        ] {
            let conflict = conflicts(&*store, &room(), requiring(table, "none", is)).await;
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

pub(crate) async fn present_document_satisfies_present_and_its_version<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.store();
    for table in [MESSAGES, PEOPLE, FACTS] {
        commits(&*store, &room(), commit().putting(table, "one", "a")).await;
        commits(&*store, &room(), commit().putting(table, "one", "b")).await;
        for is in [Expected::Present, Expected::Version(2)] {
            commits(&*store, &room(), requiring(table, "one", is)).await;
        }
        for is in [
            Expected::Absent,
            Expected::Version(1),
            Expected::Version(3),
            Expected::Version(0),
        ] {
            conflicts(&*store, &room(), requiring(table, "one", is)).await;
        }
        // Preconditions apply to the state before the commit's own writes.
        commits(
            &*store,
            &room(),
            commit()
                .requiring(table, "one", Expected::Version(2))
                .putting(table, "one", "c"),
        )
        .await;
        commits(
            &*store,
            &room(),
            commit()
                .requiring(table, "two", Expected::Absent)
                .putting(table, "two", "a"),
        )
        .await;
    }
}

pub(crate) async fn changed_requires_the_last_event_including_touches<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.store();
    let made = commits(&*store, &room(), commit().putting(MESSAGES, "m", "hi"))
        .await
        .first_seq;
    commits(
        &*store,
        &room(),
        requiring(MESSAGES, "m", Expected::Changed(made)),
    )
    .await;
    let touched = commits(&*store, &room(), commit().touching(MESSAGES, "m"))
        .await
        .first_seq;
    conflicts(
        &*store,
        &room(),
        requiring(MESSAGES, "m", Expected::Changed(made)),
    )
    .await;
    commits(
        &*store,
        &room(),
        requiring(MESSAGES, "m", Expected::Changed(touched)),
    )
    .await;
    commits(
        &*store,
        &room(),
        requiring(MESSAGES, "m", Expected::Version(1)),
    )
    .await;
}

pub(crate) async fn conflict_changes_nothing_and_returns_every_failure<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.store();
    commits(
        &*store,
        &room(),
        commit()
            .putting(MESSAGES, "m", "hi")
            .putting(PEOPLE, "ann", "1")
            .putting(FACTS, "f", "1")
            .counting("size", 3),
    )
    .await;
    commits(&*store, &room(), commit().reacting("m", "+1", 1)).await;
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
        .appending("told");
    attempt.increment[1].max_names = Some(1);
    attempt.increment[2].max = Some(3);
    let conflict = conflicts(&*store, &room(), attempt).await;
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

    // The conflict used up no number and no seq.
    let next = commits(&*store, &room(), commit().putting(MESSAGES, "n", "new")).await;
    assert_eq!(
        (next.first_seq, next.written[0].stamps.number),
        (before.head.seq + 1, before.head.number + 1)
    );
}
