//! The names and the layout of what is kept in Redis.
//!
//! Every key of a partition is `chaos:{<partition>}:<rest>`, so that all of them lie in one slot:
//!
//! | rest | type | holds |
//! |---|---|---|
//! | `head` | string | ten integers, the partition's counters as a MessagePack map, the names of its keys if it expires (see `scripts/head.lua`) |
//! | `log` | list | entries from the floor on: 6 bytes `at`, 1 byte kind, the reference. Its `seq` is the floor's plus its place |
//! | `<table>:k<0..63>` | hash | key → document; in numbered tables key → number. The key's hash decides which of the 64 |
//! | `<table>:keys` | sorted set | the keys of a listed table |
//! | `<table>:n<number / 1000>` | hash | number → document, a thousand in each |
//! | `wait` | string | nothing; there for a second after a commit that waited for replicas |
//! | `<table>:changes` | sorted set | number by the `seq` of the last change of a numbered table |
//!
//! So a key grows with the table only as one 64th of it, or by the few bytes that a key or number takes in an index. The log
//! is one list because a commit trims it at one end and appends at the other in constant time; it is bounded by
//! [`Keep`](crate::store::Keep), and unbounded only where that is.
//!
//! **Expiry** is Redis' own, set on every key. Only an expiring partition knows the names of its keys, all of them in its head:
//! it must be tiny, and expire from its first commit on (what was stored before that would stay).
//!
//! **Declared keys.** A script may touch only what the caller named, but which hash of numbers a document lies in depends
//! on its number, which the store assigns. The node guesses from what it saw last ([`Hints`](super::hints::Hints)): the
//! partition's number, and the numbers of documents it met. A script whose guess is wrong does nothing and answers the
//! numbers as they are, and the node asks again. A node that writes to a partition guesses wrong about once in a
//! thousand new documents; a node that meets a document for the first time, once.

use std::fmt::Write;

use fanout::redis::key;

use crate::store::{Partition, Table};

/// How many numbers stand in one hash. A layout constant, also in `scripts/head.lua`.
const BUCKET: u64 = 1000;

/// Over how many hashes the keys of a table are spread. A layout constant.
pub(super) const SPREAD: u64 = 64;

/// Key of the head.
pub(super) fn head(partition: &Partition) -> String {
    key(partition.name(), "head")
}

/// Key of the log.
pub(super) fn log(partition: &Partition) -> String {
    key(partition.name(), "log")
}

/// Key that is written where replicas are waited for, and gone after a second.
pub(super) fn marker(partition: &Partition) -> String {
    key(partition.name(), "wait")
}

/// Key of the hash in which a table keeps this key.
pub(super) fn by_key(partition: &Partition, table: Table, name: &str) -> String {
    spread(partition, table, fnv1a(name) % SPREAD)
}

/// Key of one of the [`SPREAD`] hashes.
pub(super) fn spread(partition: &Partition, table: Table, index: u64) -> String {
    table_key(partition, table, format_args!("k{index}"))
}

/// Key of the index of a listed table.
pub(super) fn index(partition: &Partition, table: Table) -> String {
    table_key(partition, table, format_args!("keys"))
}

/// Key of the hash of numbers.
pub(super) fn by_number(partition: &Partition, table: Table, bucket: u64) -> String {
    table_key(partition, table, format_args!("n{bucket}"))
}

/// Key of the index of changes of a numbered table.
pub(super) fn changes(partition: &Partition, table: Table) -> String {
    table_key(partition, table, format_args!("changes"))
}

/// In which hash of numbers a number stands.
pub(super) fn bucket(number: u64) -> u64 {
    number / BUCKET
}

/// A key of the leases, which lie in one slot of their own.
pub(super) fn leases(rest: &str) -> String {
    // No partition has this name: those of `service::scope` begin with a word and a colon, or stand for the deployment.
    key("leases", rest)
}

fn table_key(partition: &Partition, table: Table, rest: std::fmt::Arguments<'_>) -> String {
    let mut key = key(partition.name(), table.name);
    let _ = write!(key, ":{rest}");
    key
}

/// FNV-1a, 64 bits. What is stored depends on it: it stays as it is.
fn fnv1a(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_stays_as_it_was_stored() {
        let (partition, table) = (Partition::new("app_1:chn_2"), Table::numbered("messages"));
        assert_eq!(head(&partition), "chaos:{app_1:chn_2}:head");
        assert_eq!(
            by_key(&partition, table, "msg_0123456789abcdef"),
            "chaos:{app_1:chn_2}:messages:k27"
        );
        assert_eq!(
            by_number(&partition, table, bucket(999)),
            "chaos:{app_1:chn_2}:messages:n0"
        );
        assert_eq!(
            by_number(&partition, table, bucket(1000)),
            "chaos:{app_1:chn_2}:messages:n1"
        );
        assert_eq!(fnv1a(""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(
            fnv1a("a"),
            0xaf63_dc4c_8601_ec8c,
            "the published test vector"
        );
    }
}
