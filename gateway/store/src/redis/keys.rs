//! The layout of keys in Redis.
//!
//! Every key of a partition is `<prefix>:{<partition>}:<rest>` ([`Names`]; the prefix is `chaos` by
//! default), so all of them are in one slot:
//!
//! | rest | type | holds |
//! |---|---|---|
//! | `head` | string | ten integers, the partition's counters as a MessagePack map, the names of its keys if it expires (see `scripts/head.lua`) |
//! | `log` | list | entries from the floor on: 6 bytes `at`, 1 byte kind, the reference. Its `seq` is the floor's plus its place |
//! | `<table>:k<0..63>` | hash | key → document; in numbered tables key → number. The key's hash decides which of the 64 |
//! | `<table>:keys` | sorted set | the keys of a listed table |
//! | `<table>:n<number / 1000>` | hash | number → document, a thousand in each |
//! | `wait` | string | empty; written by commits that wait for replicas, expires after a second |
//! | `room` | | never exists: scripts that must run even if memory is full delete it first (see `scripts/commit.lua`) |
//! | `<table>:changes` | sorted set | number by the `seq` of the last change of a numbered table |
//!
//! A single key therefore has at most one 64th of a table, or a few bytes per document in an index.
//! The log is one list because a commit trims one end and appends to the other in constant time;
//! [`Keep`](crate::Keep) limits its size.
//!
//! **Expiry** uses Redis' own expiry on every key. The head of an expiring partition has the names
//! of all its keys, so such a partition must be tiny, and must expire from its first commit on or
//! be purged before: of data that was stored earlier, only head and log expire.
//!
//! **Declared keys.** A script may use only the keys that the caller declares, but the hash of a
//! numbered document depends on its number, which the store assigns. The node guesses it from the
//! numbers that it saw last ([`Hints`](super::hints::Hints)). If the guess is wrong, the script
//! does nothing and replies with the actual numbers, and the node tries again. That happens about
//! once per thousand new documents on a node that writes to a partition, and once per document on a
//! node that has not seen the document before.

use chaos_redis::Names;

use crate::{Partition, Table};

/// Numbers per hash. Part of the stored layout; `scripts/head.lua` has the same constant.
const BUCKET: u64 = 1000;

/// Number of hashes of a table's keys. Part of the stored layout.
pub(super) const HASHES_PER_TABLE: u64 = 64;

/// The keys of one partition.
#[derive(Debug, Clone, Copy)]
pub(super) struct Keys<'a> {
    names: &'a Names,
    partition: &'a str,
}

impl<'a> Keys<'a> {
    pub(super) fn of(names: &'a Names, partition: &'a Partition) -> Self {
        Self {
            names,
            partition: partition.name(),
        }
    }

    /// The keys of the leases, all in one slot.
    pub(super) fn of_leases(names: &'a Names) -> Self {
        // No partition has this name: the domain's names have a colon, or are the deployment's.
        Self {
            names,
            partition: "leases",
        }
    }

    pub(super) fn key(self, rest: &str) -> String {
        self.names.key(self.partition, rest)
    }

    /// Key of the head.
    pub(super) fn head(self) -> String {
        self.key("head")
    }

    /// Key of the log.
    pub(super) fn log(self) -> String {
        self.key("log")
    }

    /// Key that is written before waiting for replicas; expires after a second.
    pub(super) fn marker(self) -> String {
        self.key("wait")
    }

    /// Key that never exists, and that scripts delete first to run even if memory is full.
    pub(super) fn room(self) -> String {
        self.key("room")
    }

    /// Key of the hash that has the document (or number) of a key.
    pub(super) fn by_key(self, table: Table, name: &str) -> String {
        self.table_hash(table, fnv1a(name) % HASHES_PER_TABLE)
    }

    /// Key of one of the [`HASHES_PER_TABLE`] hashes.
    pub(super) fn table_hash(self, table: Table, index: u64) -> String {
        self.key(&format!("{}:k{index}", table.name))
    }

    /// Key of the index of a listed table.
    pub(super) fn index(self, table: Table) -> String {
        self.key(&format!("{}:keys", table.name))
    }

    /// Key of a hash of numbered documents.
    pub(super) fn by_number(self, table: Table, bucket: u64) -> String {
        self.key(&format!("{}:n{bucket}", table.name))
    }

    /// Key of the index of changes of a numbered table.
    pub(super) fn changes(self, table: Table) -> String {
        self.key(&format!("{}:changes", table.name))
    }
}

/// Returns the index of the hash that has a numbered document.
pub(super) fn bucket(number: u64) -> u64 {
    number / BUCKET
}

/// FNV-1a, 64 bits. Part of the stored layout.
fn fnv1a(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn layout_of_keys_does_not_change() {
        let (partition, table) = (Partition::new("app_1:chn_2"), Table::numbered("messages"));
        let names = Names::of(&"redis://a".parse().unwrap());
        let keys = Keys::of(&names, &partition);
        assert_eq!(keys.head(), "chaos:{app_1:chn_2}:head");
        assert_eq!(
            keys.by_key(table, "msg_0123456789abcdef"),
            "chaos:{app_1:chn_2}:messages:k27"
        );
        assert_eq!(
            keys.by_number(table, bucket(999)),
            "chaos:{app_1:chn_2}:messages:n0"
        );
        assert_eq!(
            keys.by_number(table, bucket(1000)),
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
