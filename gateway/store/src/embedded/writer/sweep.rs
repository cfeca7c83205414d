//! Removal of expired partitions.

use super::super::{
    fault::Fault,
    plan::{self, Changes},
    tree::Tree,
    trees::Trees,
    view::View,
};
use crate::Partition;

/// Maximum number of partitions to drop, and of entries to remove, in one group.
const WRITES_PER_GROUP: usize = 1_000;

/// Returns the changes that drop expired partitions and remove entries of dropped ones; none if
/// nothing is left to remove.
pub(super) fn remove_expired(trees: Trees<'_>, now: u64) -> Result<Changes, Fault> {
    let mut changes = Changes::default();
    for entry in trees.iter(Tree::Expiries)?.take(WRITES_PER_GROUP) {
        let (key, name) = entry?;
        if !is_due(key, now) {
            break;
        }
        if let Ok(partition) = std::str::from_utf8(name).map(Partition::new) {
            let view = View::new(trees, now);
            if let Some(state) = view
                .stored(&partition)?
                .filter(|state| view.has_expired(state))
            {
                plan::drop_partition(&mut changes, &partition, &state);
            }
        }
        changes.delete(Tree::Expiries, key);
    }
    let Some((id, _)) = trees.first(Tree::Dropped)? else {
        return Ok(changes);
    };
    let mut count = 0;
    for entry in trees.prefix(Tree::Entries, id)?.take(WRITES_PER_GROUP) {
        changes.delete(Tree::Entries, entry?.0);
        count += 1;
    }
    if count < WRITES_PER_GROUP {
        changes.delete(Tree::Dropped, id);
    }
    Ok(changes)
}

fn is_due(expiry: &[u8], now: u64) -> bool {
    expiry
        .first_chunk()
        .is_some_and(|at| u64::from_be_bytes(*at) <= now)
}
