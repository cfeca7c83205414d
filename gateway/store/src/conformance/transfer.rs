//! Transfer of partitions: reading, loading, listing and wiping.

use std::time::Duration;

use super::{
    Bench,
    partition_copy::{PIECE_ROWS, PartitionCopy, assert_equal, copy, fill, names},
    story::*,
};
use crate::{Commit, Expected, Keep, Mark, Partition, transfer::Exists};

pub(crate) async fn loaded_partition_equals_the_original<B: Bench>() {
    for keep in [
        ALL,
        Keep {
            events: 3,
            bytes: 0,
        },
    ] {
        let bench = B::start(keep).await;
        let store = bench.transfer();
        fill(&*store, &room()).await;
        let whole = PartitionCopy::read(&*store, &room()).await;
        assert_eq!(
            (
                whole.documents.len(),
                whole.outline.purged,
                whole.outline.expires
            ),
            (8, 0, None)
        );
        whole.load_into(&*store, &copy()).await;
        assert_eq!(PartitionCopy::read(&*store, &copy()).await, whole);
        assert_equal(&*store, &room(), &copy()).await;
    }
}

pub(crate) async fn loaded_partition_accepts_commits_like_the_original<B: Bench>() {
    let bench = B::start(Keep {
        events: 12,
        bytes: 400,
    })
    .await;
    let store = bench.transfer();
    fill(&*store, &room()).await;
    // Timestamps do not decrease even if the clock of the importing store is behind.
    bench.step_clock(-100_000);
    PartitionCopy::read(&*store, &room())
        .await
        .load_into(&*store, &copy())
        .await;
    let twice = async |commit: Commit| {
        let (one, other) = (
            commits(&*store, &room(), commit.clone()).await,
            commits(&*store, &copy(), commit).await,
        );
        assert_eq!(one, other);
    };
    twice(
        commit()
            .requiring(MESSAGES, "new", Expected::Absent)
            .putting(MESSAGES, "new", "5"),
    )
    .await;
    twice(
        commit()
            .putting(PEOPLE, "c", "again")
            .putting(PEOPLE, "new", "1")
            .putting(FACTS, "f", "again"),
    )
    .await;
    twice(
        commit()
            .marking(MESSAGES, "a", "edited", Mark::Edited)
            .counting("size", 1),
    )
    .await;
    twice(
        commit()
            .reacting("a", "👍", 1)
            .reacting("b", "👍", 1)
            .touching(MESSAGES, "b"),
    )
    .await;
    for n in 0..20 {
        twice(commit().appending(format!("event {n}"))).await;
    }
    assert_eq!(
        PartitionCopy::read(&*store, &copy()).await,
        PartitionCopy::read(&*store, &room()).await
    );
    assert_equal(&*store, &room(), &copy()).await;
}

pub(crate) async fn large_partition_is_loaded_in_pieces<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.transfer();
    for hundred in 0..25 {
        let mut batch = commit();
        for n in 100 * hundred..100 * (hundred + 1) {
            batch = batch.putting(MESSAGES, &format!("m{n}"), "hi").putting(
                PEOPLE,
                &format!("p{n}"),
                vec![7; 100],
            );
            batch = batch.putting(
                FACTS,
                &format!("f{n}"),
                "long enough that it does not lie in one lump with its neighbours".repeat(2),
            );
        }
        commits(&*store, &room(), batch).await;
    }
    let whole = PartitionCopy::read(&*store, &room()).await;
    assert_eq!((whole.documents.len(), whole.entries.len()), (7_500, 2_500));
    whole.load_into(&*store, &copy()).await;
    assert!(
        PartitionCopy::read(&*store, &copy()).await == whole,
        "not all came as it was"
    );
}

pub(crate) async fn purged_partition_is_loaded_unchanged<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.transfer();
    fill(&*store, &room()).await;
    assert!(!purge_step(&*store, &room(), MESSAGES, 2).await);
    let half = PartitionCopy::read(&*store, &room()).await;
    assert_eq!(half.outline.purged, 2);
    half.load_into(&*store, &copy()).await;
    assert_equal(&*store, &room(), &copy()).await;

    while !purge_step(&*store, &room(), MESSAGES, 10).await {}
    let (none, other) = (
        PartitionCopy::read(&*store, &room()).await,
        Partition::new("channel:other"),
    );
    assert_eq!(none.outline.purged, none.outline.head.number);
    none.load_into(&*store, &other).await;
    assert_equal(&*store, &room(), &other).await;
    bench.step_clock(-100_000);
    let again = commits(&*store, &other, commit().putting(MESSAGES, "a", "again"))
        .await
        .written[0];
    assert_eq!(
        again,
        commits(&*store, &room(), commit().putting(MESSAGES, "a", "again"))
            .await
            .written[0]
    );
    assert_eq!(again.stamps.number, 5, "numbers go on");
    assert_equal(&*store, &room(), &other).await;
}

pub(crate) async fn partly_loaded_partition_is_invisible<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.transfer();
    fill(&*store, &room()).await;
    let whole = PartitionCopy::read(&*store, &room()).await;
    let (pieces, last) = whole.pieces();
    for piece in pieces {
        store.load(&copy(), piece).await.unwrap().unwrap();
        assert_eq!(store.outline(&copy()).await.unwrap(), None);
        assert_eq!(names(&*store, "channel:").await, ["channel:room"]);
        assert_equal(&*store, &copy(), &Partition::new("channel:none")).await;
        for table in [PEOPLE, FACTS] {
            assert_eq!(
                store.scan(&copy(), table, None, PIECE_ROWS).await.unwrap(),
                (vec![], None)
            );
        }
    }
    store.load(&copy(), last).await.unwrap().unwrap();
    assert_equal(&*store, &room(), &copy()).await;
}

pub(crate) async fn load_does_not_overwrite_an_existing_partition<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.transfer();
    fill(&*store, &room()).await;
    commits(&*store, &copy(), commit().putting(PEOPLE, "own", "1")).await;
    let before = PartitionCopy::read(&*store, &copy()).await;
    let whole = PartitionCopy::read(&*store, &room()).await;
    let (pieces, last) = whole.pieces();
    for piece in pieces.into_iter().chain([last, whole.single_piece()]) {
        assert_eq!(store.load(&copy(), piece).await.unwrap(), Err(Exists));
    }
    assert_eq!(PartitionCopy::read(&*store, &copy()).await, before);
}

pub(crate) async fn loaded_partition_expires<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.transfer();
    let brief = commit()
        .putting(PEOPLE, "ann", "1")
        .putting(FACTS, "f", "1")
        .putting(MESSAGES, "m", "1");
    commits(
        &*store,
        &room(),
        Commit {
            expire: Some(Duration::from_millis(1_500)),
            ..brief
        },
    )
    .await;
    let whole = PartitionCopy::read(&*store, &room()).await;
    assert!(whole.outline.expires.unwrap() > store.now().await.unwrap());
    let (left, moved) = (
        Partition::new("channel:left"),
        Partition::new("channel:moved"),
    );
    for copy in [&left, &moved] {
        store
            .load(copy, whole.single_piece())
            .await
            .unwrap()
            .unwrap();
        assert_eq!(PartitionCopy::read(&*store, copy).await, whole);
    }
    let later = commit().putting(PEOPLE, "bob", "1");
    commits(
        &*store,
        &moved,
        Commit {
            expire: Some(Duration::from_secs(3_600)),
            ..later
        },
    )
    .await;
    eventually("what was loaded expires", async || {
        store.outline(&left).await.unwrap().is_none()
    })
    .await;
    assert_equal(&*store, &left, &Partition::new("channel:none")).await;
    commits(&*store, &left, commit().putting(PEOPLE, "cem", "1")).await;
    let recreated = read(
        &*store,
        &left,
        &[
            (PEOPLE, "ann"),
            (FACTS, "f"),
            (MESSAGES, "m"),
            (PEOPLE, "cem"),
        ],
    )
    .await;
    assert_eq!(
        recreated
            .documents
            .iter()
            .map(Option::is_some)
            .collect::<Vec<_>>(),
        [false, false, false, true],
        "nothing comes back"
    );
    let found = read(
        &*store,
        &moved,
        &[
            (PEOPLE, "ann"),
            (PEOPLE, "bob"),
            (FACTS, "f"),
            (MESSAGES, "m"),
        ],
    )
    .await;
    assert!(
        found.documents.iter().all(Option::is_some),
        "the time that was moved is far"
    );
}

pub(crate) async fn partitions_are_listed_by_prefix<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.transfer();
    let mut expected = Vec::new();
    for n in 0..1_200 {
        let name = format!("u:app:live:{n:04}");
        let facts = commit().putting(FACTS, "f", "1");
        commits(&*store, &Partition::new(name.as_str()), facts).await;
        expected.push(name);
    }
    for other in [
        "u:app:test:0001",
        "u:app2:live:0001",
        "c:app:live:0001",
        "u:*:live:1",
        "u",
    ] {
        commits(
            &*store,
            &Partition::new(other),
            commit().putting(MESSAGES, "m", "1"),
        )
        .await;
    }
    assert_eq!(names(&*store, "u:app:live:").await, expected);
    assert_eq!(
        names(&*store, "u:*:").await,
        ["u:*:live:1"],
        "a name is no pattern"
    );
    assert_eq!(names(&*store, "u:app:live:12").await, Vec::<String>::new());
    assert_eq!(names(&*store, "u:app:live:1199").await, ["u:app:live:1199"]);
    assert_eq!(names(&*store, "u").await.len(), expected.len() + 4);
}

pub(crate) async fn remove_partitions_removes_complete_and_partly_loaded_partitions_of_a_prefix<
    B: Bench,
>() {
    let bench = B::start(ALL).await;
    let store = bench.transfer();
    let [whole, half, expiring] =
        ["c:app:whole", "c:app:half", "c:app:expiring"].map(Partition::new);
    for partition in [&room(), &whole] {
        fill(&*store, partition).await;
    }
    let brief = commit().putting(PEOPLE, "ann", "1");
    commits(
        &*store,
        &expiring,
        Commit {
            expire: Some(Duration::from_secs(3_600)),
            ..brief
        },
    )
    .await;
    let before = PartitionCopy::read(&*store, &room()).await;
    for piece in before.pieces().0 {
        store.load(&half, piece).await.unwrap().unwrap();
    }
    let mut from = None;
    loop {
        from = store.remove_partitions("c:app:", from).await.unwrap();
        if from.is_none() {
            break;
        }
    }
    assert!(names(&*store, "c:").await.is_empty());
    assert_eq!(PartitionCopy::read(&*store, &room()).await, before);
    // Later loads do not see wiped entries.
    let mut one = before;
    one.documents.retain(|(_, document)| &*document.key == "a");
    one.outline.head.number = 1;
    for partition in [&whole, &half, &expiring] {
        one.load_into(&*store, partition).await;
        let loaded = PartitionCopy::read(&*store, partition).await;
        assert_eq!(
            (loaded.documents, loaded.entries),
            (one.documents.clone(), one.entries.clone())
        );
    }
}

pub(crate) async fn every_commit_updates_last_commit_at<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.transfer();
    fill(&*store, &room()).await;
    assert!(
        store
            .outline(&Partition::new("channel:none"))
            .await
            .unwrap()
            .is_none()
    );
    for change in [
        commit().putting(FACTS, "f", "1"),
        commit().counting("size", 1),
        commit().appending("x"),
        commit().deleting(PEOPLE, "a"),
    ] {
        let before = store.outline(&room()).await.unwrap().unwrap();
        bench.step_clock(10);
        let at = commits(&*store, &room(), change).await.at;
        let after = store.outline(&room()).await.unwrap().unwrap();
        assert!(
            after.last_commit_at == at && at > before.last_commit_at,
            "{before:?} {after:?}"
        );
    }
}
