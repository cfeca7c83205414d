//! Validation of requests before they join a transaction, which a malformed one would fail for all.

use std::collections::HashSet;

use fanout::record::Control;

use super::fault::Fault;
use crate::{
    Commit, Counter, EventBody, EventSlot, Order, Partition, Require, Table, Write,
    transfer::PartitionPiece,
};

const MAX_KEY_BYTES: usize = 256;
const MAX_COUNTER_NAME_BYTES: usize = 64;
/// With these limits every stored key fits into LMDB's 511 bytes.
const MAX_PARTITION_NAME_BYTES: usize = 500;
const MAX_TABLE_NAME_BYTES: usize = 64;
/// Limit of a record's header.
const MAX_SUBJECT_BYTES: usize = u16::MAX as usize;

/// Checks that a commit conforms to the interface. A violation is a defect of the caller.
pub(super) fn commit(partition: &Partition, commit: &Commit) -> Result<(), Fault> {
    let is_event = |event: EventSlot| event.index() < commit.append.len();

    names(partition, &commit.require)?;
    let mut written = HashSet::new();
    for write in &commit.write {
        let (table, key, is_valid) = match write {
            Write::Put {
                table,
                key,
                event: Some(event),
                ..
            } => (table, key, is_event(*event)),
            Write::Put {
                table,
                key,
                event: None,
                ..
            } => (table, key, table.order != Order::Numbers),
            Write::Touch { table, key, event } => (table, key, is_event(*event)),
            Write::Delete { table, key } => (table, key, table.order != Order::Numbers),
        };
        rule(fits(*table, key), KEY_RULE)?;
        rule(
            is_valid,
            "a write names an event that is not appended, or is not allowed in its table",
        )?;
        rule(
            commit.write.len() == 1 || written.insert((table.name, key)),
            "a document is written at most once in a commit",
        )?;
    }
    for increment in &commit.increment {
        if let Counter::Document { table, key, name } = &increment.counter {
            let is_valid = table.order == Order::Numbers
                && fits(*table, key)
                && (1..=MAX_COUNTER_NAME_BYTES).contains(&name.len());
            rule(
                is_valid,
                "counters of documents are for numbered tables, and their names have 1 to 64 bytes",
            )?;
        }
    }
    for append in &commit.append {
        let is_valid = match &append.body {
            EventBody::Bytes(_, count) => {
                count.is_none_or(|count| count.index() < commit.increment.len())
            }
            EventBody::Written(write) => {
                matches!(commit.write.get(write.index()), Some(Write::Put { .. }))
            }
        };
        rule(
            is_valid,
            "an event's body names an increment or a put that the commit does not have",
        )?;
        if let Control::Evict(subject) | Control::Except(subject) = &append.control {
            rule(
                subject.len() <= MAX_SUBJECT_BYTES,
                "an event's subject has at most 65,535 bytes",
            )?;
        }
    }
    Ok(())
}

/// Checks a piece of a partition to load.
pub(super) fn piece(partition: &Partition, piece: &PartitionPiece) -> Result<(), Fault> {
    names(partition, &[])?;
    for (table, document) in &piece.documents {
        rule(fits(*table, &document.key), KEY_RULE)?;
        let numbered = table.order == Order::Numbers;
        rule(
            numbered == (document.stamps.number != 0),
            "documents of a numbered table have a number, and no others",
        )?;
    }
    Ok(())
}

/// Checks the names of a partition and of the documents in preconditions.
pub(super) fn names(partition: &Partition, require: &[Require]) -> Result<(), Fault> {
    rule(
        (1..=MAX_PARTITION_NAME_BYTES).contains(&partition.name().len()),
        "a partition's name has 1 to 500 bytes",
    )?;
    let are_valid = require
        .iter()
        .all(|require| fits(require.table, &require.key));
    rule(are_valid, KEY_RULE)
}

const KEY_RULE: &str = "a key has at most 256 bytes, none of them zero";

fn rule(holds: bool, rule: &'static str) -> Result<(), Fault> {
    if holds {
        Ok(())
    } else {
        Err(Fault::Malformed(rule))
    }
}

fn fits(table: Table, key: &str) -> bool {
    key.len() <= MAX_KEY_BYTES
        && !key.contains('\0')
        && (1..=MAX_TABLE_NAME_BYTES).contains(&table.name.len())
        && !table.name.contains('\0')
}
