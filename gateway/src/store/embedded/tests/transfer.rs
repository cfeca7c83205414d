//! What loads leave in the folder.

use std::time::{Duration, Instant};

use super::folder::{message, quiet, room};
use super::whole::findings;
use super::*;
use crate::store::{
    Partition, Position, Range,
    embedded::Embedded,
    transfer::{Outline, Piece, Transfer},
};

/// How much is on the disk: partitions, entries, expiries, what is dropped, and notes beside the format and the next number.
fn left(store: &Embedded) -> [u64; 5] {
    let disk = &store.disk;
    let trees = [
        disk.partitions,
        disk.entries,
        disk.expiries,
        disk.dropped,
        disk.meta,
    ];
    disk.read(|txn| {
        let mut lengths = [0; 5];
        for (length, tree) in lengths.iter_mut().zip(trees) {
            *length = tree.len(txn)?;
        }
        lengths[4] -= 2;
        Ok::<_, heed::Error>(lengths)
    })
    .unwrap()
}

#[tokio::test]
async fn what_was_loaded_and_expired_or_was_wiped_leaves_nothing_on_the_disk() {
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
        let half = Piece {
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
            Piece {
                outline: Some(soon.clone()),
                ..half.clone()
            },
            Piece {
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
    assert_eq!(left(&store)[4], 5, "each half is noted");
    assert_eq!(
        findings(&store.disk, folder.path()),
        [""; 0],
        "and no damage"
    );
    for prefix in ["half:", "whole:"] {
        assert_eq!(store.wipe(prefix, None).await.unwrap(), None);
    }
    let deadline = Instant::now() + Duration::from_secs(20);
    // Of the one that stays: its number by key, itself, its change, its event.
    while left(&store) != [1, 4, 0, 0, 0] {
        assert!(Instant::now() < deadline, "{:?}", left(&store));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    store.close().await;
}
