//! The conversion of a folder of the format before.

use heed::EnvFlags;

use super::{
    crash::{Content, content, copied, crashes_of_a_start, restarted},
    folder::{message, quiet, room},
    *,
};
use crate::embedded::{
    disk::{self, Disk, FORMAT_KEY, JOURNAL_KEY},
    fault::Fault,
    layout::UNSEALED_FORMAT,
    steps::Step,
    tree::Tree,
    trees::TreeDatabase,
};

/// Writes what a store holds into another folder as the format before had it: without checksums, and
/// without a journal.
fn write_unsealed(store: &Disk, to: &Path) {
    let (env, _) = disk::map(to, 1 << 24, EnvFlags::empty()).unwrap();
    let mut txn = env.write_txn().unwrap();
    let written = store.read(|trees| {
        for tree in Tree::ALL {
            let target: TreeDatabase = env.create_database(&mut txn, Some(tree.name()))?;
            for entry in trees.iter(tree)? {
                let (key, value) = entry?;
                let format = UNSEALED_FORMAT.to_be_bytes();
                let value = match (tree, key) {
                    (Tree::Meta, JOURNAL_KEY) => continue,
                    (Tree::Meta, FORMAT_KEY) => &format[..],
                    _ => value,
                };
                target.put(&mut txn, key, value)?;
            }
        }
        Ok::<_, Fault>(())
    });
    written.unwrap();
    txn.commit().unwrap();
}

/// Returns a folder of the format before, and what it holds.
async fn unsealed() -> (TempDir, Content) {
    let folder = TempDir::new().unwrap();
    let store = quiet(folder.path());
    for i in 0..8 {
        let value = vec![i; if i == 3 { 20_000 } else { 2_000 }];
        let commit = message(&format!("m{i}"), value);
        store.commit(&room(), commit).await.unwrap().unwrap();
    }
    store.close().await;
    drop(store);
    let disk = Disk::open(folder.path(), 1 << 20).unwrap();
    let old = TempDir::new().unwrap();
    write_unsealed(&disk, old.path());
    (old, content(&disk))
}

#[tokio::test]
async fn interrupted_conversion_starts_again() {
    let (folder, expected) = unsealed().await;
    let crashes = crashes_of_a_start(folder.path());
    for (step, fewest) in [
        (Step::ConversionBegun, 1),
        (Step::ConversionPieceCommitted, 3),
        (Step::ConversionCommitted, 1),
        (Step::LockFileRemoved, 1),
        (Step::ConversionReplaced, 1),
        (Step::CheckpointSynced, 1),
    ] {
        let found = crashes.iter().filter(|crash| crash.step == step).count();
        assert!(found >= fewest, "{step:?}");
    }
    for (index, crash) in crashes.iter().enumerate() {
        // The start after a crash can crash, too.
        if index % 3 == 0 {
            for second in crashes_of_a_start(copied(crash.folder.path()).path()) {
                let found = restarted(second.folder.path());
                assert_eq!(found, expected, "{:?}, {:?}", crash.step, second.step);
            }
        }
        assert_eq!(restarted(crash.folder.path()), expected, "{:?}", crash.step);
        assert!(!crash.folder.path().join("converting").exists());
    }
    assert_eq!(restarted(folder.path()), expected);
}
