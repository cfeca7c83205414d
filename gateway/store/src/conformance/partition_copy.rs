//! Helpers of the transfer tests: the content of a partition, read, compared and loaded.

use std::collections::BTreeMap;

use super::story::*;
use crate::{
    Document, LogEntry, Mark, Partition, Position, Range, Store, Table,
    transfer::{Outline, PartitionPiece, Transfer},
};

/// Documents or entries per piece.
pub(super) const PIECE_ROWS: usize = 400;
/// Documents per scan; fewer than an engine stores together, so that it has to split them.
const SCAN_ROWS: usize = 20;

/// The complete content of a partition.
#[derive(Debug, PartialEq)]
pub(super) struct PartitionCopy {
    pub(super) outline: Outline,
    pub(super) documents: Vec<(Table, Document)>,
    pub(super) entries: Vec<LogEntry>,
}

impl PartitionCopy {
    /// Reads a partition.
    pub(super) async fn read(store: &dyn Transfer, partition: &Partition) -> Self {
        let outline = store
            .outline(partition)
            .await
            .unwrap()
            .expect("the partition exists");
        let mut documents = Vec::new();
        for table in [PEOPLE, FACTS] {
            let mut found = BTreeMap::new();
            let mut from = None;
            loop {
                let (some, next) = store.scan(partition, table, from, SCAN_ROWS).await.unwrap();
                assert!(
                    some.len() <= 2 * SCAN_ROWS,
                    "{} documents in one scan",
                    some.len()
                );
                found.extend(
                    some.into_iter()
                        .map(|document| (document.key.clone(), document)),
                );
                from = next;
                if from.is_none() {
                    break;
                }
            }
            documents.extend(found.into_values().map(|document| (table, document)));
        }
        let (page, _) = store
            .page(partition, MESSAGES, Range::After(0), 100_000)
            .await
            .unwrap();
        documents.extend(
            page.documents
                .into_iter()
                .map(|document| (MESSAGES, document)),
        );
        let entries = store
            .log(partition, outline.head.floor, 100_000)
            .await
            .unwrap()
            .entries;
        Self {
            outline,
            documents,
            entries,
        }
    }

    /// Splits the content. Returns all pieces but the last, and the last one.
    pub(super) fn pieces(&self) -> (Vec<PartitionPiece>, PartitionPiece) {
        let documents = self
            .documents
            .chunks(PIECE_ROWS)
            .map(|some| PartitionPiece {
                documents: some.to_vec(),
                ..PartitionPiece::default()
            });
        let entries = self.entries.chunks(PIECE_ROWS).map(|some| PartitionPiece {
            entries: some.to_vec(),
            ..PartitionPiece::default()
        });
        (
            documents.chain(entries).collect(),
            PartitionPiece {
                outline: Some(self.outline.clone()),
                ..PartitionPiece::default()
            },
        )
    }

    pub(super) async fn load_into(&self, store: &dyn Transfer, partition: &Partition) {
        let (pieces, last) = self.pieces();
        for piece in pieces.into_iter().chain([last]) {
            store.load(partition, piece).await.unwrap().unwrap();
        }
    }

    /// Returns the content as one piece.
    pub(super) fn single_piece(&self) -> PartitionPiece {
        PartitionPiece {
            documents: self.documents.clone(),
            entries: self.entries.clone(),
            outline: Some(self.outline.clone()),
        }
    }
}

pub(super) fn copy() -> Partition {
    Partition::new("channel:copy")
}

/// Fills a partition with commits of every kind.
pub(super) async fn fill(store: &dyn Store, partition: &Partition) {
    let mut first = commit()
        .counting("size", 3)
        .counting("gone", 1)
        .putting(FACTS, "", "of nothing")
        .putting(FACTS, "f", vec![0, 255]);
    for name in ["a", "b", "c", "d"] {
        first =
            first
                .putting(MESSAGES, name, name.to_owned())
                .putting(PEOPLE, name, name.to_owned());
    }
    commits(store, partition, first).await;
    commits(
        store,
        partition,
        commit()
            .marking(MESSAGES, "b", "edited", Mark::Edited)
            .counting("gone", -1),
    )
    .await;
    commits(
        store,
        partition,
        commit()
            .reacting("a", "👍", 2)
            .reacting("a", "+1", 70_000)
            .touching(MESSAGES, "a"),
    )
    .await;
    commits(
        store,
        partition,
        commit()
            .marking(MESSAGES, "c", "", Mark::Deleted)
            .deleting(PEOPLE, "c"),
    )
    .await;
    for n in 0..3 {
        commits(
            store,
            partition,
            commit().putting(PEOPLE, "d", format!("{n}")),
        )
        .await;
    }
    commits(
        store,
        partition,
        commit()
            .deleting(PEOPLE, "d")
            .deleting(FACTS, "f")
            .appending("last"),
    )
    .await;
    commits(
        store,
        partition,
        commit().putting(FACTS, "read", "after the last event"),
    )
    .await;
}

/// Asserts that all reads of two partitions return the same.
pub(super) async fn assert_equal(store: &dyn Store, one: &Partition, other: &Partition) {
    let documents = [
        (MESSAGES, "a"),
        (MESSAGES, "b"),
        (MESSAGES, "c"),
        (PEOPLE, "a"),
        (PEOPLE, "c"),
        (FACTS, ""),
        (FACTS, "read"),
    ];
    let snapshot = async |partition| {
        let snapshot = read(store, partition, &documents).await;
        (snapshot.head, snapshot.counters, snapshot.documents)
    };
    assert_eq!(snapshot(one).await, snapshot(other).await);
    let keys = || Range::Keys { after: None };
    for (table, range) in [
        (MESSAGES, Range::Before(None)),
        (MESSAGES, Range::Before(Some(3))),
        (MESSAGES, Range::After(0)),
        (MESSAGES, Range::After(1)),
        (MESSAGES, Range::Changed(0)),
        (MESSAGES, Range::Changed(5)),
        (PEOPLE, keys()),
    ] {
        for limit in [1, 2, 1_000] {
            let page = async |partition| {
                let (page, head) = store
                    .page(partition, table, range.clone(), limit)
                    .await
                    .unwrap();
                (page.documents, page.more, head)
            };
            assert_eq!(
                page(one).await,
                page(other).await,
                "{limit} of {table:?} {range:?}"
            );
        }
    }
    let head = head(store, one).await;
    for position in [
        Position::default(),
        head.floor,
        head.position(),
        Position {
            seq: head.seq,
            at: 1,
        },
        Position {
            seq: 1 << 40,
            at: 1,
        },
    ] {
        let log = async |partition| {
            let log = store.log(partition, position, 1_000).await.unwrap();
            (log.entries, log.head, log.continuity)
        };
        assert_eq!(log(one).await, log(other).await, "{position:?}");
    }
}

/// Returns the names of all partitions with a prefix.
pub(super) async fn names(store: &dyn Transfer, prefix: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut from = None;
    loop {
        let (some, next) = store.partitions(prefix, from).await.unwrap();
        names.extend(some.iter().map(|partition| partition.name().to_owned()));
        from = next;
        if from.is_none() {
            break;
        }
    }
    names.sort();
    names.dedup();
    names
}
