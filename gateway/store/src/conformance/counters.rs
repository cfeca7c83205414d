//! Counters of partitions and of documents.

use std::sync::Arc;

use super::{Bench, story::*};
use crate::{Commit, Conflict, Counter, Increment, Mark};

fn bounded(counter: Counter, by: i64, max: Option<u64>, max_names: Option<u64>) -> Commit {
    Commit {
        increment: vec![Increment {
            counter,
            by,
            max,
            max_names,
        }],
        ..Commit::default()
    }
}

fn reaction(name: &str, emoji: &str) -> Counter {
    Counter::Document {
        table: MESSAGES,
        key: key(name),
        name: Arc::from(emoji),
    }
}

pub(crate) async fn counters_add_up_and_are_removed_at_zero<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.store();
    commits(&*store, &room(), commit().putting(MESSAGES, "m", "hi")).await;
    assert_eq!(
        commits(
            &*store,
            &room(),
            commit().counting("size", 2).reacting("m", "+1", 3)
        )
        .await
        .counts,
        [2, 3]
    );
    assert_eq!(
        commits(
            &*store,
            &room(),
            commit().counting("size", 1).reacting("m", "+1", -1)
        )
        .await
        .counts,
        [3, 2]
    );
    let now = read(&*store, &room(), &[(MESSAGES, "m")]).await;
    assert_eq!(now.counters, [("size".to_owned(), 3)]);
    assert_eq!(
        now.documents[0].as_ref().unwrap().counts,
        [("+1".to_owned(), 2)]
    );
    assert_eq!(
        commits(
            &*store,
            &room(),
            commit().counting("size", -3).reacting("m", "+1", -2)
        )
        .await
        .counts,
        [0, 0]
    );
    let now = read(&*store, &room(), &[(MESSAGES, "m")]).await;
    assert_eq!(now.counters, []);
    assert_eq!(now.documents[0].as_ref().unwrap().counts, []);
    assert_eq!(
        now.documents[0].as_ref().unwrap().version,
        1,
        "counting is no put"
    );
}

pub(crate) async fn counters_do_not_fall_below_zero<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.store();
    commits(
        &*store,
        &room(),
        commit().putting(MESSAGES, "m", "hi").counting("size", 1),
    )
    .await;
    assert_eq!(
        commits(
            &*store,
            &room(),
            commit().counting("size", -5).reacting("m", "+1", -1)
        )
        .await
        .counts,
        [0, 0]
    );
    assert_eq!(
        commits(
            &*store,
            &room(),
            commit().counting("size", 1).reacting("m", "+1", 1)
        )
        .await
        .counts,
        [1, 1]
    );
}

pub(crate) async fn counter_above_its_max_is_a_conflict<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.store();
    commits(&*store, &room(), commit().putting(MESSAGES, "m", "hi")).await;
    for counter in [Counter::Partition("size"), reaction("m", "+1")] {
        for count in 1..=2 {
            assert_eq!(
                commits(&*store, &room(), bounded(counter.clone(), 1, Some(2), None))
                    .await
                    .counts,
                [count]
            );
        }
        let conflict =
            conflicts(&*store, &room(), bounded(counter.clone(), 1, Some(2), None)).await;
        assert_eq!(
            conflict,
            Conflict {
                require: vec![],
                increment: vec![0]
            }
        );
        commits(
            &*store,
            &room(),
            bounded(counter.clone(), -1, Some(2), None),
        )
        .await;
        assert_eq!(
            commits(&*store, &room(), bounded(counter, 1, Some(2), None))
                .await
                .counts,
            [2]
        );
    }
}

pub(crate) async fn max_also_applies_to_decrements<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.store();
    commits(&*store, &room(), commit().putting(MESSAGES, "m", "hi")).await;
    for counter in [Counter::Partition("size"), reaction("m", "+1")] {
        commits(&*store, &room(), bounded(counter.clone(), 3, None, None)).await;
        for (by, max) in [(-1, 0), (-2, 0), (-1, 1)] {
            let conflict = conflicts(
                &*store,
                &room(),
                bounded(counter.clone(), by, Some(max), None),
            )
            .await;
            assert_eq!(
                conflict,
                Conflict {
                    require: vec![],
                    increment: vec![0]
                },
                "{by} {max}"
            );
        }
        assert_eq!(
            commits(
                &*store,
                &room(),
                bounded(counter.clone(), -1, Some(2), None)
            )
            .await
            .counts,
            [2]
        );
        assert_eq!(
            commits(
                &*store,
                &room(),
                bounded(counter.clone(), -2, Some(0), None)
            )
            .await
            .counts,
            [0]
        );
        assert_eq!(
            commits(&*store, &room(), bounded(counter, -1, Some(0), None))
                .await
                .counts,
            [0]
        );
    }
}

pub(crate) async fn document_has_at_most_max_names_counters<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.store();
    commits(
        &*store,
        &room(),
        commit()
            .putting(MESSAGES, "m", "hi")
            .putting(MESSAGES, "n", "ho"),
    )
    .await;
    for emoji in ["a", "b"] {
        commits(
            &*store,
            &room(),
            bounded(reaction("m", emoji), 1, None, Some(2)),
        )
        .await;
    }
    let conflict = conflicts(
        &*store,
        &room(),
        bounded(reaction("m", "c"), 1, None, Some(2)),
    )
    .await;
    assert_eq!(conflict.increment, [0]);
    commits(
        &*store,
        &room(),
        bounded(reaction("m", "a"), 1, None, Some(2)),
    )
    .await;
    commits(
        &*store,
        &room(),
        bounded(reaction("n", "c"), 1, None, Some(2)),
    )
    .await;
    // A removed name does not count.
    commits(
        &*store,
        &room(),
        bounded(reaction("m", "b"), -1, None, Some(2)),
    )
    .await;
    commits(
        &*store,
        &room(),
        bounded(reaction("m", "c"), 1, None, Some(2)),
    )
    .await;
    let counts = document(&*store, &room(), MESSAGES, "m")
        .await
        .unwrap()
        .counts;
    assert_eq!(counts, [("a".to_owned(), 2), ("c".to_owned(), 1)]);
}

pub(crate) async fn increments_of_a_commit_apply_in_order<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.store();
    commits(&*store, &room(), commit().putting(MESSAGES, "m", "hi")).await;
    let both = commit()
        .counting("size", 1)
        .reacting("m", "+1", 1)
        .counting("size", 1)
        .reacting("m", "+1", -1)
        .counting("other", 5);
    assert_eq!(
        commits(&*store, &room(), both).await.counts,
        [1, 1, 2, 0, 5]
    );
    let mut beyond = commit().counting("size", 1).counting("size", 1);
    beyond.increment[1].max = Some(3);
    assert_eq!(conflicts(&*store, &room(), beyond).await.increment, [1]);
    let mut names = commit().reacting("m", "a", 1).reacting("m", "b", 1);
    names.increment[0].max_names = Some(1);
    names.increment[1].max_names = Some(1);
    assert_eq!(conflicts(&*store, &room(), names).await.increment, [1]);
    assert_eq!(read(&*store, &room(), &[]).await.counter("size"), 2);
    assert_eq!(
        document(&*store, &room(), MESSAGES, "m")
            .await
            .unwrap()
            .counts,
        []
    );
}

pub(crate) async fn increment_of_an_absent_document_is_a_conflict<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.store();
    assert_eq!(
        conflicts(
            &*store,
            &room(),
            commit().counting("size", 1).reacting("none", "+1", 1)
        )
        .await
        .increment,
        [1]
    );
    assert_eq!(read(&*store, &room(), &[]).await.counters, []);
}

pub(crate) async fn deleted_mark_drops_the_counters<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.store();
    let mut listener = bench.listen(&room().topic()).await;
    commits(
        &*store,
        &room(),
        commit()
            .putting(MESSAGES, "m", "hi")
            .putting(MESSAGES, "n", "ho"),
    )
    .await;
    commits(
        &*store,
        &room(),
        commit().reacting("m", "+1", 1).reacting("n", "+1", 1),
    )
    .await;
    commits(
        &*store,
        &room(),
        commit().marking(MESSAGES, "m", "", Mark::Deleted),
    )
    .await;
    assert_eq!(
        document(&*store, &room(), MESSAGES, "m")
            .await
            .unwrap()
            .counts,
        []
    );
    assert_eq!(
        document(&*store, &room(), MESSAGES, "n")
            .await
            .unwrap()
            .counts,
        [("+1".to_owned(), 1)]
    );
    assert_eq!(
        records_until_end(&*store, &room(), &mut listener).await[2].counts,
        None
    );
}

pub(crate) async fn counters_of_a_document_are_in_byte_order<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.store();
    commits(&*store, &room(), commit().putting(MESSAGES, "m", "hi")).await;
    let names = [
        "👍🏽",
        "é",
        "a b",
        "Z",
        "z",
        "{x}",
        "\u{fe0f}",
        "0",
        "10",
        "9",
        "名",
        "*[?]",
        &"ß".repeat(32),
    ];
    for name in names {
        commits(&*store, &room(), commit().reacting("m", name, 2)).await;
    }
    let mut sorted = names.map(|name| (name.to_owned(), 2));
    sorted.sort();
    assert_eq!(
        document(&*store, &room(), MESSAGES, "m")
            .await
            .unwrap()
            .counts,
        sorted
    );
}

pub(crate) async fn large_counters_are_exact<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.store();
    let large = (1i64 << 53) - 2;
    commits(&*store, &room(), commit().putting(MESSAGES, "m", "hi")).await;
    commits(
        &*store,
        &room(),
        commit().counting("size", large).reacting("m", "+1", large),
    )
    .await;
    let counts = commits(
        &*store,
        &room(),
        commit().counting("size", 1).reacting("m", "+1", 1),
    )
    .await
    .counts;
    assert_eq!(counts, [large as u64 + 1; 2]);
    let now = read(&*store, &room(), &[(MESSAGES, "m")]).await;
    assert_eq!(now.counter("size"), large as u64 + 1);
    assert_eq!(
        now.documents[0].as_ref().unwrap().counts,
        [("+1".to_owned(), large as u64 + 1)]
    );
}

pub(crate) async fn edit_keeps_the_counters<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.store();
    commits(&*store, &room(), commit().putting(MESSAGES, "m", "hi")).await;
    commits(&*store, &room(), commit().reacting("m", "+1", 2)).await;
    commits(
        &*store,
        &room(),
        commit()
            .marking(MESSAGES, "m", "ho", Mark::Edited)
            .reacting("m", "-1", 1),
    )
    .await;
    let found = document(&*store, &room(), MESSAGES, "m").await.unwrap();
    assert_eq!(
        (found.version, found.counts),
        (2, vec![("+1".to_owned(), 2), ("-1".to_owned(), 1)])
    );
}
