//! Expiry, purging, the clock.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{Bench, story::*};
use crate::store::{Commit, Expected, Head, Partition, Position, Range};

fn expiring(commit: Commit, after: Duration) -> Commit {
    Commit { expire: Some(after), ..commit }
}

pub(crate) async fn an_expired_partition_never_was<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.store();
    let other = Partition::new("channel:other");
    done(&*store, &other, commit().putting(MESSAGES, "m", "stays")).await;
    let all = commit().putting(MESSAGES, "m", "hi").putting(PEOPLE, "ann", "1").putting(FACTS, "f", "1").counting("size", 1).telling("x");
    done(&*store, &room(), expiring(all, Duration::from_millis(100))).await;
    eventually("the partition expires", async || {
        let now = read(&*store, &room(), &[(MESSAGES, "m"), (PEOPLE, "ann"), (FACTS, "f")]).await;
        now.head == Head::default() && now.counters.is_empty() && now.documents == [None, None, None]
    })
    .await;
    assert_eq!(page(&*store, MESSAGES, Range::Changed(0), 10).await.documents, []);
    assert_eq!(page(&*store, MESSAGES, Range::After(0), 10).await.documents, []);
    assert_eq!(page(&*store, PEOPLE, Range::Keys { after: None }, 10).await.documents, []);
    assert_eq!(store.log(&room(), Position::default(), 10).await.unwrap().entries, []);
    // What comes after starts anew, and does not expire.
    let again = done(&*store, &room(), commit().requiring(MESSAGES, "m", Expected::Absent).putting(MESSAGES, "m", "again")).await;
    assert_eq!((again.first_seq, again.written[0].stamps.number, again.written[0].version), (1, 1, 1));
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(page(&*store, MESSAGES, Range::After(0), 10).await.documents.len(), 1);
    assert!(document(&*store, &other, MESSAGES, "m").await.is_some());
}

pub(crate) async fn a_later_commit_leaves_the_expiry_or_moves_it<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.store();
    let (left, moved) = (Partition::new("channel:left"), Partition::new("channel:moved"));
    for partition in [&left, &moved] {
        done(&*store, partition, expiring(commit().putting(PEOPLE, "ann", "1"), Duration::from_secs(2))).await;
    }
    done(&*store, &left, commit().putting(PEOPLE, "bob", "1").putting(MESSAGES, "m", "1")).await;
    done(&*store, &moved, expiring(commit().putting(PEOPLE, "bob", "1"), Duration::from_secs(3_600))).await;
    done(&*store, &moved, commit().putting(MESSAGES, "m", "1")).await;
    eventually("the time that was left stands", async || {
        read(&*store, &left, &[(PEOPLE, "ann"), (PEOPLE, "bob"), (MESSAGES, "m")]).await.documents == [None, None, None]
    })
    .await;
    let found = read(&*store, &moved, &[(PEOPLE, "ann"), (PEOPLE, "bob"), (MESSAGES, "m")]).await;
    assert!(found.documents.iter().all(Option::is_some), "the time that was moved is far");
}

pub(crate) async fn a_purge_takes_a_table_in_bites<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.store();
    for table in [PEOPLE, FACTS] {
        let mut batch = commit().telling("x");
        for i in 0..25 {
            batch = batch.putting(table, &format!("{i}"), "1");
        }
        done(&*store, &room(), batch).await;
    }
    let before = head(&*store, &room()).await;
    let mut bites = 0;
    while !store.purge(&room(), PEOPLE, 10).await.unwrap() {
        bites += 1;
        assert!(bites < 10, "it ends");
    }
    assert!(bites >= 2, "25 documents are no two bites of 10");
    assert_eq!(page(&*store, PEOPLE, Range::Keys { after: None }, 10).await.documents, []);
    assert_eq!(document(&*store, &room(), PEOPLE, "7").await, None);
    assert!(document(&*store, &room(), FACTS, "7").await.is_some());
    while !store.purge(&room(), FACTS, 10).await.unwrap() {}
    assert_eq!(document(&*store, &room(), FACTS, "7").await, None);
    assert!(store.purge(&room(), PEOPLE, 10).await.unwrap(), "again is nothing");
    assert!(store.purge(&Partition::new("channel:none"), MESSAGES, 10).await.unwrap());
    assert_eq!(head(&*store, &room()).await, before);
}

pub(crate) async fn a_purge_takes_a_numbered_table_and_keeps_the_head<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.store();
    let mut batch = commit().putting(PEOPLE, "ann", "stays");
    for i in 0..25 {
        batch = batch.putting(MESSAGES, &format!("m{i}"), "hi");
    }
    done(&*store, &room(), batch).await;
    done(&*store, &room(), commit().reacting("m1", "+1", 1).touching(MESSAGES, "m1").counting("size", 1)).await;
    let before = read(&*store, &room(), &[(PEOPLE, "ann")]).await;
    let mut bites = 0;
    while !store.purge(&room(), MESSAGES, 10).await.unwrap() {
        bites += 1;
        assert!(bites < 10, "it ends");
    }
    for range in [Range::After(0), Range::Before(None), Range::Changed(0)] {
        let page = page(&*store, MESSAGES, range, 10).await;
        assert_eq!((page.documents, page.more), (vec![], false));
    }
    assert_eq!(document(&*store, &room(), MESSAGES, "m1").await, None);
    let after = read(&*store, &room(), &[(PEOPLE, "ann")]).await;
    assert_eq!((after.head, after.documents, after.counters), (before.head, before.documents, before.counters));
    assert_eq!(positions(&*store, &room()).await.len(), 26, "the log stays");
}

pub(crate) async fn a_purged_table_can_be_written_again<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.store();
    done(&*store, &room(), commit().putting(MESSAGES, "m", "hi").putting(MESSAGES, "n", "hi")).await;
    done(&*store, &room(), commit().reacting("m", "+1", 1)).await;
    while !store.purge(&room(), MESSAGES, 1).await.unwrap() {}
    let again = done(&*store, &room(), commit().requiring(MESSAGES, "m", Expected::Absent).putting(MESSAGES, "m", "again")).await;
    assert_eq!((again.written[0].version, again.written[0].stamps.number), (2, 3), "versions and numbers go on");
    let found = page(&*store, MESSAGES, Range::Before(None), 5).await.documents;
    assert_eq!((found.len(), &found[0].counts[..]), (1, &[][..]));
}

pub(crate) async fn the_clock_is_the_wall_clock<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.store();
    let wall = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
    let (before, now, after) = (wall(), store.now().await.unwrap(), wall());
    assert!((before..=after).contains(&now), "{before} {now} {after}");
    let at = done(&*store, &room(), commit()).await.at;
    assert!((before..=wall()).contains(&at));
    bench.step_clock(1_000_000);
    assert!(store.now().await.unwrap() >= before + 1_000_000);
}
