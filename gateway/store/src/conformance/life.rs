//! Expiry, purging, the clock.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{Bench, story::*};
use crate::{Commit, Conflict, Expected, Partition, PartitionHead, Position, Range, Require};

fn expiring(commit: Commit, after: Duration) -> Commit {
    Commit {
        expire: Some(after),
        ..commit
    }
}

pub(crate) async fn expired_partition_is_absent<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.store();
    let other = Partition::new("channel:other");
    commits(&*store, &other, commit().putting(MESSAGES, "m", "stays")).await;
    let all = commit()
        .putting(MESSAGES, "m", "hi")
        .putting(PEOPLE, "ann", "1")
        .putting(FACTS, "f", "1")
        .counting("size", 1)
        .appending("x");
    commits(&*store, &room(), expiring(all, Duration::from_millis(100))).await;
    eventually("the partition expires", async || {
        let now = read(
            &*store,
            &room(),
            &[(MESSAGES, "m"), (PEOPLE, "ann"), (FACTS, "f")],
        )
        .await;
        now.head == PartitionHead::default()
            && now.counters.is_empty()
            && now.documents == [None, None, None]
    })
    .await;
    assert_eq!(
        page(&*store, MESSAGES, Range::Changed(0), 10)
            .await
            .documents,
        []
    );
    assert_eq!(
        page(&*store, MESSAGES, Range::After(0), 10).await.documents,
        []
    );
    assert_eq!(
        page(&*store, PEOPLE, Range::Keys { after: None }, 10)
            .await
            .documents,
        []
    );
    assert_eq!(
        store
            .log(&room(), Position::default(), 10)
            .await
            .unwrap()
            .entries,
        []
    );
    // A commit after the expiry creates the partition again, without an expiry.
    let again = commits(
        &*store,
        &room(),
        commit()
            .requiring(MESSAGES, "m", Expected::Absent)
            .putting(MESSAGES, "m", "again"),
    )
    .await;
    assert_eq!(
        (
            again.first_seq,
            again.written[0].stamps.number,
            again.written[0].version
        ),
        (1, 1, 1)
    );
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(
        page(&*store, MESSAGES, Range::After(0), 10)
            .await
            .documents
            .len(),
        1
    );
    assert!(document(&*store, &other, MESSAGES, "m").await.is_some());
}

pub(crate) async fn later_commit_keeps_or_changes_the_expiry<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.store();
    let (left, moved) = (
        Partition::new("channel:left"),
        Partition::new("channel:moved"),
    );
    for partition in [&left, &moved] {
        commits(
            &*store,
            partition,
            expiring(commit().putting(PEOPLE, "ann", "1"), Duration::from_secs(2)),
        )
        .await;
    }
    commits(
        &*store,
        &left,
        commit()
            .putting(PEOPLE, "bob", "1")
            .putting(MESSAGES, "m", "1"),
    )
    .await;
    commits(
        &*store,
        &moved,
        expiring(
            commit().putting(PEOPLE, "bob", "1"),
            Duration::from_secs(3_600),
        ),
    )
    .await;
    commits(&*store, &moved, commit().putting(MESSAGES, "m", "1")).await;
    eventually("the time that was left stands", async || {
        read(
            &*store,
            &left,
            &[(PEOPLE, "ann"), (PEOPLE, "bob"), (MESSAGES, "m")],
        )
        .await
        .documents
            == [None, None, None]
    })
    .await;
    let found = read(
        &*store,
        &moved,
        &[(PEOPLE, "ann"), (PEOPLE, "bob"), (MESSAGES, "m")],
    )
    .await;
    assert!(
        found.documents.iter().all(Option::is_some),
        "the time that was moved is far"
    );
}

pub(crate) async fn purge_removes_a_table_in_steps<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.store();
    for table in [PEOPLE, FACTS] {
        let mut batch = commit().appending("x");
        for i in 0..25 {
            batch = batch.putting(table, &format!("{i}"), "1");
        }
        commits(&*store, &room(), batch).await;
    }
    let before = head(&*store, &room()).await;
    let mut bites = 0;
    while !purge_step(&*store, &room(), PEOPLE, 10).await {
        bites += 1;
        assert!(bites < 10, "it ends");
    }
    assert!(bites >= 2, "25 documents are no two bites of 10");
    assert_eq!(
        page(&*store, PEOPLE, Range::Keys { after: None }, 10)
            .await
            .documents,
        []
    );
    assert_eq!(document(&*store, &room(), PEOPLE, "7").await, None);
    assert!(document(&*store, &room(), FACTS, "7").await.is_some());
    while !purge_step(&*store, &room(), FACTS, 10).await {}
    assert_eq!(document(&*store, &room(), FACTS, "7").await, None);
    assert!(
        purge_step(&*store, &room(), PEOPLE, 10).await,
        "again is nothing"
    );
    assert!(purge_step(&*store, &Partition::new("channel:none"), MESSAGES, 10).await);
    assert_eq!(head(&*store, &room()).await, before);
}

pub(crate) async fn purge_removes_a_numbered_table_and_keeps_the_head<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.store();
    let mut batch = commit().putting(PEOPLE, "ann", "stays");
    for i in 0..25 {
        batch = batch.putting(MESSAGES, &format!("m{i}"), "hi");
    }
    commits(&*store, &room(), batch).await;
    commits(
        &*store,
        &room(),
        commit()
            .reacting("m1", "+1", 1)
            .touching(MESSAGES, "m1")
            .counting("size", 1),
    )
    .await;
    let before = read(&*store, &room(), &[(PEOPLE, "ann")]).await;
    let mut bites = 0;
    while !purge_step(&*store, &room(), MESSAGES, 10).await {
        bites += 1;
        assert!(bites < 10, "it ends");
    }
    for range in [Range::After(0), Range::Before(None), Range::Changed(0)] {
        let page = page(&*store, MESSAGES, range, 10).await;
        assert_eq!((page.documents, page.more), (vec![], false));
    }
    assert_eq!(document(&*store, &room(), MESSAGES, "m1").await, None);
    let after = read(&*store, &room(), &[(PEOPLE, "ann")]).await;
    assert_eq!(
        (after.head, after.documents, after.counters),
        (before.head, before.documents, before.counters)
    );
    assert_eq!(positions(&*store, &room()).await.len(), 26, "the log stays");
}

pub(crate) async fn purged_table_can_be_written_again<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.store();
    commits(
        &*store,
        &room(),
        commit()
            .putting(MESSAGES, "m", "hi")
            .putting(MESSAGES, "n", "hi"),
    )
    .await;
    commits(&*store, &room(), commit().reacting("m", "+1", 1)).await;
    while !purge_step(&*store, &room(), MESSAGES, 1).await {}
    let again = commits(
        &*store,
        &room(),
        commit()
            .requiring(MESSAGES, "m", Expected::Absent)
            .putting(MESSAGES, "m", "again"),
    )
    .await;
    assert_eq!(
        (again.written[0].version, again.written[0].stamps.number),
        (2, 3),
        "versions and numbers go on"
    );
    let found = page(&*store, MESSAGES, Range::Before(None), 5)
        .await
        .documents;
    assert_eq!((found.len(), &found[0].counts[..]), (1, &[][..]));
}

pub(crate) async fn purge_with_a_failed_precondition_removes_nothing<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.store();
    // The required document may be in any table, also in the purged one, and the purged table may
    // be empty.
    for (table, tomb) in [
        (PEOPLE, FACTS),
        (FACTS, PEOPLE),
        (MESSAGES, FACTS),
        (PEOPLE, MESSAGES),
        (FACTS, FACTS),
        (MESSAGES, MESSAGES),
    ] {
        let partition = Partition::new(format!("channel:{}:{}", table.name, tomb.name));
        let bite = async |is| {
            store
                .purge(
                    &partition,
                    table,
                    Some(Require {
                        table: tomb,
                        key: key("tomb"),
                        is,
                    }),
                    1,
                )
                .await
                .unwrap()
        };
        let conflict = Err(Conflict {
            require: vec![0],
            increment: vec![],
        });
        assert_eq!(
            bite(Expected::Present).await,
            conflict,
            "in a partition that never was"
        );
        assert_eq!(bite(Expected::Absent).await, Ok(true));

        let filled = commit()
            .putting(tomb, "tomb", "")
            .putting(table, "a", "1")
            .putting(table, "b", "1")
            .putting(table, "c", "1");
        let made = commits(&*store, &partition, filled).await.written[0];
        for is in [
            Expected::Absent,
            Expected::Version(made.version + 1),
            Expected::Changed(made.stamps.seq + 1),
        ] {
            assert_eq!(bite(is).await, conflict, "{is:?}");
        }
        let all = read(
            &*store,
            &partition,
            &[(table, "a"), (table, "b"), (table, "c"), (tomb, "tomb")],
        )
        .await;
        assert!(
            all.documents.iter().all(Option::is_some),
            "a conflict takes nothing"
        );
        if table == tomb {
            continue;
        }
        for is in [Expected::Present, Expected::Version(made.version)] {
            assert_eq!(bite(is).await, Ok(false), "{is:?}");
        }

        // Another job ends meanwhile, and the partition is filled again.
        if tomb != MESSAGES {
            commits(
                &*store,
                &partition,
                commit().deleting(tomb, "tomb").putting(table, "new", "1"),
            )
            .await;
            assert_eq!(bite(Expected::Present).await, conflict);
            assert_eq!(bite(Expected::Version(made.version)).await, conflict);
        }
        let again = commits(
            &*store,
            &partition,
            commit()
                .putting(tomb, "tomb", "again")
                .putting(table, "newer", "1"),
        )
        .await;
        assert!(again.written[0].version > made.version);
        assert_eq!(bite(Expected::Version(made.version)).await, conflict);
        assert!(
            read(&*store, &partition, &[(table, "newer")])
                .await
                .documents[0]
                .is_some()
        );
        while !bite(Expected::Version(again.written[0].version))
            .await
            .unwrap()
        {}
        assert_eq!(
            bite(Expected::Version(made.version)).await,
            conflict,
            "also when none is left"
        );
        assert_eq!(
            read(&*store, &partition, &[(table, "newer")])
                .await
                .documents,
            [None]
        );
    }
}

pub(crate) async fn clock_is_the_wall_clock<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.store();
    let wall = || {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_millis() as u64
    };
    let (before, now, after) = (wall(), store.now().await.unwrap(), wall());
    assert!((before..=after).contains(&now), "{before} {now} {after}");
    let at = commits(&*store, &room(), commit()).await.at;
    assert!((before..=wall()).contains(&at));
    bench.step_clock(1_000_000);
    assert!(store.now().await.unwrap() >= before + 1_000_000);
}
