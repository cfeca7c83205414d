//! The start of a store after its process ended without closing it.

use super::*;
use crate::embedded::{
    OpenError,
    disk::Disk,
    journal::{GroupBuffer, Journal, Purpose},
    memory::Layer,
    plan::Changes,
    recovery,
    tree::Tree,
};

#[test]
fn failed_write_into_the_trees_ends_the_reading_of_the_journal() {
    let folder = TempDir::new().unwrap();
    let disk = Disk::open(folder.path(), 1 << 20).unwrap();
    let mut journal = Journal::start(folder.path(), 1).unwrap();
    let mut changes = Changes::default();
    // LMDB takes keys of at most 511 bytes.
    changes.put(Tree::Entries, [b'k'; 600], *b"value");
    let mut refused = GroupBuffer::new();
    changes.apply(refused.content(), &mut Layer::default());
    let mut undecodable = GroupBuffer::new();
    undecodable.content().push(0x7f);
    for group in [refused, undecodable] {
        journal.reserve(&group, Purpose::Store).unwrap();
        journal.append(group).unwrap();
    }
    drop(journal);
    let limits = CheckpointLimits {
        bytes: 1,
        ..FREQUENT_CHECKPOINTS
    };
    let error = recovery::recover(&disk, folder.path(), &limits).unwrap_err();
    assert!(matches!(error, OpenError::Unreadable { .. }), "{error}");
}
