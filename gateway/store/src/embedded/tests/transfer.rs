//! Entries that transfers leave in the folder.

use std::time::{Duration, Instant};

use super::{
    check::findings,
    folder::{message, quiet, room},
    *,
};
use crate::{
    Partition, Position, Range,
    embedded::{Embedded, disk::JOURNAL_KEY, fault::Fault, tree::Tree},
    transfer::{Outline, PartitionPiece, Transfer},
};

/// Returns the numbers of partitions, entries, expiries, dropped partitions, and keys in `meta`
/// besides the format and the next number.
fn stored_counts(store: &Embedded) -> [u64; 5] {
    let counted = [
        Tree::Partitions,
        Tree::Entries,
        Tree::Expiries,
        Tree::Dropped,
        Tree::Meta,
    ];
    store
        .disk
        .read(|trees| {
            let mut lengths = [0; 5];
            for (length, tree) in lengths.iter_mut().zip(counted) {
                *length = trees
                    .iter(tree)?
                    .filter(|entry| entry.as_ref().is_ok_and(|(key, _)| *key != JOURNAL_KEY))
                    .count() as u64;
            }
            lengths[4] -= 2;
            Ok::<_, Fault>(lengths)
        })
        .unwrap()
}

#[tokio::test]
async fn expired_and_wiped_loads_leave_nothing_on_the_disk() {
    let folder = TempDir::new().unwrap();
    let store = quiet(folder.path());
    store
        .commit(&room(), message("m", "hi"))
        .await
        .unwrap()
        .unwrap();
    let documents = store
        .page(&room(), super::folder::MESSAGES, Range::After(0), 1)
        .await
        .unwrap()
        .0
        .documents;
    let documents: Vec<_> = documents
        .into_iter()
        .map(|document| (super::folder::MESSAGES, document))
        .collect();
    let entries = store
        .log(&room(), Position::default(), 1)
        .await
        .unwrap()
        .entries;
    let outline = store.outline(&room()).await.unwrap().unwrap();
    let soon = Outline {
        expires: Some(store.now().await.unwrap() + 200),
        ..outline.clone()
    };
    for n in 0..5 {
        let half = PartitionPiece {
            documents: documents.clone(),
            entries: entries.clone(),
            outline: None,
        };
        store
            .load(&Partition::new(format!("half:{n}")), half.clone())
            .await
            .unwrap()
            .unwrap();
        let (brief, whole) = (
            PartitionPiece {
                outline: Some(soon.clone()),
                ..half.clone()
            },
            PartitionPiece {
                outline: Some(outline.clone()),
                ..half
            },
        );
        store
            .load(&Partition::new(format!("brief:{n}")), brief)
            .await
            .unwrap()
            .unwrap();
        store
            .load(&Partition::new(format!("whole:{n}")), whole)
            .await
            .unwrap()
            .unwrap();
    }
    assert_eq!(stored_counts(&store)[4], 5, "each half is noted");
    assert_eq!(
        findings(&store.disk, folder.path()),
        [""; 0],
        "and no damage"
    );
    for prefix in ["half:", "whole:"] {
        assert_eq!(store.remove_partitions(prefix, None).await.unwrap(), None);
    }
    let deadline = Instant::now() + Duration::from_secs(20);
    // The remaining partition has four entries: number by key, document, last change, event.
    while stored_counts(&store) != [1, 4, 0, 0, 0] {
        assert!(Instant::now() < deadline, "{:?}", stored_counts(&store));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    store.close().await;
}
