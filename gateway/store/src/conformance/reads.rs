//! Snapshots.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use super::{Bench, story::*};
use crate::{Partition, PartitionHead, Position, Range, Read, Store, Table};

pub(crate) async fn absent_partition_is_all_zero<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.store();
    let read = Read {
        partition: room(),
        documents: vec![(PEOPLE, key("ann")), (MESSAGES, key("m"))],
        newest: Some(MESSAGES),
    };
    let snapshot = store.read(vec![read]).await.unwrap().pop().unwrap();
    assert_eq!(
        (
            snapshot.head,
            snapshot.counters,
            snapshot.documents,
            snapshot.newest
        ),
        (PartitionHead::default(), vec![], vec![None, None], None)
    );
    for (table, range) in [
        (PEOPLE, Range::Keys { after: None }),
        (MESSAGES, Range::Before(None)),
        (MESSAGES, Range::After(0)),
        (MESSAGES, Range::Changed(0)),
    ] {
        let (page, head) = store.page(&room(), table, range, 10).await.unwrap();
        assert_eq!(
            (page.documents, page.more, head),
            (vec![], false, PartitionHead::default())
        );
    }
    let log = store.log(&room(), Position::default(), 10).await.unwrap();
    assert_eq!((log.entries, log.head), (vec![], PartitionHead::default()));
    assert_eq!(store.read(vec![]).await.unwrap().len(), 0);
}

pub(crate) async fn heads_are_those_of_the_logs<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.store();
    let absent = Partition::new("c:absent");
    for seq in 1..=3 {
        commits(&*store, &room(), commit().appending("e")).await;
        let heads = store.heads(&[absent.clone(), room()]).await;
        let heads: Vec<Position> = heads.into_iter().map(Result::unwrap).collect();
        let log = store.log(&room(), Position::default(), 10).await.unwrap();
        assert_eq!(heads, [Position::default(), log.head.position()]);
        assert_eq!(heads[1].seq, seq);
    }
}

pub(crate) async fn documents_are_returned_in_requested_order<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.store();
    commits(
        &*store,
        &room(),
        commit()
            .putting(PEOPLE, "a", "1")
            .putting(FACTS, "b", "2")
            .putting(MESSAGES, "c", "3"),
    )
    .await;
    let asked = [
        (MESSAGES, "c"),
        (PEOPLE, "none"),
        (PEOPLE, "a"),
        (FACTS, "b"),
        (MESSAGES, "c"),
        (MESSAGES, "none"),
    ];
    let found = read(&*store, &room(), &asked).await.documents;
    let keys: Vec<_> = found
        .iter()
        .map(|d| d.as_ref().map(|d| d.key.to_string()))
        .collect();
    assert_eq!(
        keys,
        [Some("c"), None, Some("a"), Some("b"), Some("c"), None].map(|k| k.map(str::to_owned))
    );
}

pub(crate) async fn several_partitions_are_read_together<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.store();
    let partitions: Vec<_> = (0..50)
        .map(|i| Partition::new(format!("channel:{i}")))
        .collect();
    for (i, partition) in partitions.iter().enumerate() {
        let mut batch = commit().putting(PEOPLE, "ann", format!("{i}"));
        for _ in 0..i {
            batch = batch.appending("x");
        }
        commits(&*store, partition, batch).await;
    }
    let reads = partitions.iter().rev().map(|p| Read {
        partition: p.clone(),
        documents: vec![(PEOPLE, key("ann"))],
        newest: None,
    });
    let snapshots = store.read(reads.collect()).await.unwrap();
    for (i, snapshot) in snapshots.into_iter().rev().enumerate() {
        assert_eq!(snapshot.head.seq, i as u64);
        assert_eq!(
            snapshot.documents[0].as_ref().unwrap().value,
            format!("{i}")
        );
    }
}

pub(crate) async fn newest_document_has_the_highest_number<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.store();
    let newest = async || {
        let read = Read {
            partition: room(),
            documents: vec![],
            newest: Some(MESSAGES),
        };
        store.read(vec![read]).await.unwrap().pop().unwrap().newest
    };
    commits(&*store, &room(), commit().putting(PEOPLE, "ann", "1")).await;
    assert_eq!(newest().await, None);
    for name in ["z", "m", "a"] {
        commits(
            &*store,
            &room(),
            commit().putting(MESSAGES, name, name.to_owned()),
        )
        .await;
        assert_eq!(*newest().await.unwrap().key, *name);
    }
    commits(
        &*store,
        &room(),
        commit()
            .putting(MESSAGES, "z", "edited")
            .reacting("a", "+1", 1),
    )
    .await;
    let found = newest().await.unwrap();
    assert_eq!(
        (&*found.key, found.stamps.number, found.counts),
        ("a", 3, vec![("+1".to_owned(), 1)])
    );
}

/// Repeats a commit that increases the log, the numbered table and a counter by one each.
fn commit_repeatedly(
    store: Arc<dyn Store>,
    until: Arc<AtomicBool>,
) -> tokio::task::JoinHandle<u64> {
    tokio::spawn(async move {
        let mut count = 0u64;
        while !until.load(Ordering::Relaxed) || count < 20 {
            count += 1;
            let value = count.to_string();
            let all = commit()
                .putting(PEOPLE, "ann", value.clone())
                .putting(FACTS, "f", value.clone())
                .putting(MESSAGES, &format!("m{count}"), value)
                .counting("size", 1);
            commits(&*store, &room(), all).await;
        }
        count
    })
}

pub(crate) async fn snapshot_is_consistent_during_commits<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.store();
    let until = Arc::new(AtomicBool::new(false));
    let writer = commit_repeatedly(store.clone(), until.clone());
    for _ in 0..200 {
        let read = Read {
            partition: room(),
            documents: vec![(FACTS, key("f")), (PEOPLE, key("ann"))],
            newest: Some(MESSAGES),
        };
        let snapshot = store.read(vec![read]).await.unwrap().pop().unwrap();
        let count = snapshot.head.seq;
        assert_eq!(
            (snapshot.head.number, snapshot.counter("size")),
            (count, count)
        );
        for document in snapshot.documents.into_iter().chain([snapshot.newest]) {
            let value = document.map_or(0, |d| {
                std::str::from_utf8(&d.value).unwrap().parse().unwrap()
            });
            assert_eq!(value, count);
        }
    }
    until.store(true, Ordering::Relaxed);
    let count = writer.await.unwrap();
    assert_eq!(head(&*store, &room()).await.seq, count);
}

pub(crate) async fn page_and_head_are_consistent_during_commits<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.store();
    let until = Arc::new(AtomicBool::new(false));
    let writer = commit_repeatedly(store.clone(), until.clone());
    for _ in 0..50 {
        for range in [Range::Before(None), Range::Changed(0), Range::After(0)] {
            let (page, head) = store.page(&room(), MESSAGES, range, 100_000).await.unwrap();
            assert_eq!(page.documents.len() as u64, head.number);
            assert_eq!(page.documents.last().map_or(0, |d| d.stamps.seq), head.seq);
            assert!(!page.more);
        }
        let log = store
            .log(&room(), Position::default(), 100_000)
            .await
            .unwrap();
        assert_eq!(
            log.entries
                .last()
                .map_or(Position::default(), |e| e.position),
            log.head.position()
        );
        let (page, head) = store
            .page(&room(), PEOPLE, Range::Keys { after: None }, 10)
            .await
            .unwrap();
        assert_eq!(page.documents.first().map_or(0, |d| d.version), head.seq);
    }
    until.store(true, Ordering::Relaxed);
    writer.await.unwrap();
}

pub(crate) async fn documents_stop_at_the_byte_limit_but_include_the_first<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.store();
    commits(
        &*store,
        &room(),
        commit()
            .putting(PEOPLE, "a", "x".repeat(100))
            .putting(FACTS, "b", "x".repeat(100))
            .putting(MESSAGES, "c", "x".repeat(1000)),
    )
    .await;
    let read = async |names: &[(Table, &str)], bytes| {
        let keys = names
            .iter()
            .map(|(table, name)| (*table, key(name)))
            .collect();
        let found = store.documents(&room(), keys, bytes).await.unwrap();
        found
            .into_iter()
            .map(|document| document.map(|document| document.key.to_string()))
            .collect::<Vec<_>>()
    };
    let some = |name: &str| Some(name.to_owned());
    let all = [
        (PEOPLE, "none"),
        (PEOPLE, "a"),
        (FACTS, "b"),
        (MESSAGES, "none"),
        (MESSAGES, "c"),
        (PEOPLE, "a"),
    ];
    assert_eq!(
        read(&all, 10_000).await,
        [None, some("a"), some("b"), None, some("c"), some("a")]
    );
    assert_eq!(read(&all, 500).await, [None, some("a"), some("b"), None]);
    assert_eq!(read(&all[4..], 500).await, [some("c")], "at least one");
    assert_eq!(
        read(&[(MESSAGES, "c"), (PEOPLE, "none"), (PEOPLE, "a")], 500).await[0],
        some("c")
    );
    assert_eq!(read(&[], 500).await, [None; 0]);
    let nowhere = store
        .documents(
            &Partition::new("channel:none"),
            vec![(PEOPLE, key("a")), (MESSAGES, key("c"))],
            500,
        )
        .await
        .unwrap();
    assert_eq!(nowhere, [None, None]);
}

/// A replay requests a message twice if the log has its creation and its deletion.
pub(crate) async fn document_requested_twice_is_returned_twice_or_cut_off<B: Bench>() {
    let bench = B::start(ALL).await;
    let mut writes = commit();
    for name in ["a", "b", "c", "d"] {
        writes = writes.putting(MESSAGES, name, "x".repeat(1000));
    }
    commits(&*bench.store(), &room(), writes).await;
    let keys = |names: &[&str]| {
        names
            .iter()
            .map(|name| (MESSAGES, key(name)))
            .collect::<Vec<_>>()
    };
    let read = async |store: &dyn Store, names: &[&str], bytes| {
        let found = store.documents(&room(), keys(names), bytes).await.unwrap();
        found
            .into_iter()
            .flatten()
            .map(|document| document.key.to_string())
            .collect::<String>()
    };
    let asked = ["a", "b", "c", "d", "none", "a", "b"];
    let node = bench.another_node();
    assert_eq!(
        read(&*node, &asked, 3500).await,
        "abc",
        "the second copies lie behind the end"
    );
    assert_eq!(read(&*node, &asked, 10_000).await, "abcdab");
    assert_eq!(read(&*bench.another_node(), &asked, 10_000).await, "abcdab");
}
