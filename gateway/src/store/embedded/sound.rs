//! What no store can do is refused before it fails in the midst of a transaction that others share.

use std::collections::HashSet;

use fanout::record::Control;

use super::view::Fault;
use crate::store::{
    Body, Commit, Counter, Order, Partition, Require, Table, Write, transfer::Piece,
};

/// The longest key of a document and the longest name of one of its counters.
const KEY: usize = 256;
const NAME: usize = 64;
/// The longest name of a partition and of a table: with them every key on the disk fits LMDB's 511 bytes.
const PARTITION: usize = 500;
const TABLE: usize = 64;
/// The longest subject that a record's header can carry.
const SUBJECT: usize = u16::MAX as usize;

/// Whether a commit keeps the rules of the interface. One that breaks them is a defect of its caller.
pub(super) fn check(partition: &Partition, commit: &Commit) -> Result<(), Fault> {
    let is_event = |event: usize| event < commit.append.len();

    required(partition, &commit.require)?;
    let mut written = HashSet::new();
    for write in &commit.write {
        let (table, key, sound) = match write {
            Write::Put {
                table,
                key,
                event: Some(index),
                ..
            } => (table, key, is_event(*index)),
            Write::Put {
                table,
                key,
                event: None,
                ..
            } => (table, key, table.order != Order::Numbers),
            Write::Touch { table, key, event } => (table, key, is_event(*event)),
            Write::Delete { table, key } => (table, key, table.order != Order::Numbers),
        };
        rule(
            fits(*table, key),
            "a key has at most 256 bytes, none of them zero",
        )?;
        rule(
            sound,
            "a write names an event that is not appended, or is not for its table",
        )?;
        rule(
            commit.write.len() == 1 || written.insert((table.name, key)),
            "a document is written at most once in a commit",
        )?;
    }
    for increment in &commit.increment {
        if let Counter::Document { table, key, name } = &increment.counter {
            let sound = table.order == Order::Numbers
                && fits(*table, key)
                && (1..=NAME).contains(&name.len());
            rule(
                sound,
                "counters of documents are for numbered tables, and their names have 1 to 64 bytes",
            )?;
        }
    }
    for append in &commit.append {
        let sound = match &append.body {
            Body::Bytes(_, count) => count.is_none_or(|index| index < commit.increment.len()),
            Body::Written(index) => matches!(commit.write.get(*index), Some(Write::Put { .. })),
        };
        rule(
            sound,
            "an event's body names an increment or a put that the commit does not hold",
        )?;
        if let Control::Evict(subject) | Control::Except(subject) = &append.control {
            rule(
                subject.len() <= SUBJECT,
                "an event's subject has at most 65,535 bytes",
            )?;
        }
    }
    Ok(())
}

/// Whether a piece of a partition keeps them.
pub(super) fn piece(partition: &Partition, piece: &Piece) -> Result<(), Fault> {
    required(partition, &[])?;
    for (table, document) in &piece.documents {
        rule(
            fits(*table, &document.key),
            "a key has at most 256 bytes, none of them zero",
        )?;
        let numbered = table.order == Order::Numbers;
        rule(
            numbered == (document.stamps.number != 0),
            "documents of a numbered table have a number, and no others",
        )?;
    }
    Ok(())
}

/// Whether a partition and requirements on its documents are named as the interface allows.
pub(super) fn required(partition: &Partition, require: &[Require]) -> Result<(), Fault> {
    rule(
        (1..=PARTITION).contains(&partition.name().len()),
        "a partition's name has 1 to 500 bytes",
    )?;
    let sound = require
        .iter()
        .all(|require| fits(require.table, &require.key));
    rule(sound, "a key has at most 256 bytes, none of them zero")
}

fn rule(holds: bool, rule: &'static str) -> Result<(), Fault> {
    if holds {
        Ok(())
    } else {
        Err(Fault::Malformed(rule))
    }
}

fn fits(table: Table, key: &str) -> bool {
    key.len() <= KEY
        && !key.contains('\0')
        && (1..=TABLE).contains(&table.name.len())
        && !table.name.contains('\0')
}
