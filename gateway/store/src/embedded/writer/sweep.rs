//! Removal of expired partitions.

use super::super::{
    disk::Disk,
    plan::{self, Changes},
    view::{Fault, View},
};
use crate::Partition;

/// Maximum number of partitions to drop, and of entries to remove, in one transaction.
const WRITES_PER_TRANSACTION: usize = 1_000;

/// Drops expired partitions, then removes entries of dropped ones. Returns whether entries are
/// left.
pub(super) fn remove_expired(disk: &Disk, now: u64) -> Result<bool, Fault> {
    let Disk {
        expiries,
        dropped,
        entries,
        ..
    } = *disk;
    let is_clean = disk.read(|txn| {
        let due = expiries
            .first(txn)?
            .is_some_and(|(key, _)| is_due(key, now));
        Ok::<_, heed::Error>(!due && dropped.first(txn)?.is_none())
    })?;
    if is_clean {
        return Ok(false);
    }
    let mut txn = disk.write()?;
    let mut due = Vec::new();
    for entry in expiries.iter(&txn)?.take(WRITES_PER_TRANSACTION) {
        let (key, name) = entry?;
        if !is_due(key, now) {
            break;
        }
        due.push((
            key.to_owned(),
            std::str::from_utf8(name).map(Partition::new),
        ));
    }
    for (key, partition) in due {
        if let Ok(partition) = partition {
            let view = View::new(disk, &txn, now);
            if let Some(state) = view
                .stored(&partition)?
                .filter(|state| view.has_expired(state))
            {
                let mut changes = Changes::default();
                plan::drop_partition(disk, &mut changes, &partition, &state);
                changes.write(&mut txn)?;
            }
        }
        expiries.delete(&mut txn, &key)?;
    }
    let mut more = false;
    if let Some(id) = dropped.first(&txn)?.map(|(key, _)| key.to_owned()) {
        let keys: Vec<_> = entries
            .prefix_iter(&txn, &id)?
            .take(WRITES_PER_TRANSACTION)
            .map(|entry| Ok(entry?.0.to_owned()))
            .collect::<heed::Result<_>>()?;
        for key in &keys {
            entries.delete(&mut txn, key)?;
        }
        if keys.len() < WRITES_PER_TRANSACTION {
            dropped.delete(&mut txn, &id)?;
        }
        more = true;
    }
    txn.commit()?;
    Ok(more)
}

fn is_due(expiry: &[u8], now: u64) -> bool {
    expiry
        .first_chunk()
        .is_some_and(|at| u64::from_be_bytes(*at) <= now)
}
