//! Transfer of whole partitions between stores, for `chaos export` and `chaos import`.
//!
//! A partition is copied unchanged, with versions, numbers, timestamps and log. The caller decides
//! which partitions belong together and in which order they are copied.

use async_trait::async_trait;

use super::{Document, LogEntry, Partition, PartitionHead, Store, StoreError, Table};

/// The state of a partition without its documents and its log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outline {
    /// The state of the log and of the numbered table.
    pub head: PartitionHead,
    /// Counters that are not zero, in the byte order of their names.
    pub counters: Vec<(String, u64)>,
    /// Timestamp of the newest commit, also of one that appended nothing. Later commits have no
    /// earlier timestamp.
    pub last_commit_at: u64,
    /// The highest version of all removed documents; new documents start above it.
    pub retired: u64,
    /// The number up to which the numbered table was purged.
    pub purged: u64,
    /// Size of the log as [`Keep::bytes`](super::Keep::bytes) counts it.
    pub log_bytes: u64,
    /// Expiry, in milliseconds since the Unix epoch.
    pub expires: Option<u64>,
}

/// Maximum of the integers of an outline from outside: far from an overflow.
const MAX_INTEGER: u64 = 1 << 62;

impl Outline {
    /// Returns whether a partition can have this outline: the log's floor is not behind its head,
    /// and no more numbers were purged than assigned. For outlines that come from outside.
    pub fn is_possible(&self) -> bool {
        let Self {
            head,
            counters,
            last_commit_at,
            retired,
            purged,
            log_bytes,
            expires: _,
        } = self;
        let integers = [
            head.seq,
            head.at,
            head.number,
            *last_commit_at,
            *retired,
            *log_bytes,
        ];
        let counts = counters.iter().map(|(_, count)| *count);
        head.floor.seq <= head.seq
            && *purged <= head.number
            && integers
                .into_iter()
                .chain(counts)
                .all(|integer| integer <= MAX_INTEGER)
    }
}

/// A part of a partition to load. The pieces of a partition are loaded in order; pieces of several
/// partitions may alternate.
#[derive(Debug, Clone, Default)]
pub struct PartitionPiece {
    /// Documents; those of a numbered table in ascending order of their numbers. Loading a document
    /// twice has no further effect.
    pub documents: Vec<(Table, Document)>,
    /// Events in the order of the log.
    pub entries: Vec<LogEntry>,
    /// Set in the last piece, which makes the partition visible.
    pub outline: Option<Outline>,
}

/// The partition exists already; nothing was loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exists;

/// The result of [`Transfer::load`].
pub type Loaded = Result<Result<(), Exists>, StoreError>;

/// The position of an iteration: returned by one call and passed to the next. Opaque to the caller.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TransferCursor(pub(super) String);

/// A store whose partitions can be read and loaded as a whole. Every call ends within
/// [`DEADLINE`](super::DEADLINE).
///
/// An iteration is complete only if no writes happened meanwhile: compare [`Outline::last_commit_at`]
/// afterwards.
#[async_trait]
pub trait Transfer: Store {
    /// Returns some of the partitions whose names start with `prefix`, and the cursor for the next
    /// call. A partition may be returned twice.
    async fn partitions(
        &self,
        prefix: &str,
        from: Option<TransferCursor>,
    ) -> Result<(Vec<Partition>, Option<TransferCursor>), StoreError>;

    /// Returns the outline of a partition, if it exists.
    async fn outline(&self, partition: &Partition) -> Result<Option<Outline>, StoreError>;

    /// Returns about `limit` documents of a plain or listed table in an engine-specific order, and
    /// the cursor for the next call. A document may be returned twice. (Read a numbered table with
    /// [`Store::page`], and the log with [`Store::log`].)
    async fn scan(
        &self,
        partition: &Partition,
        table: Table,
        from: Option<TransferCursor>,
        limit: usize,
    ) -> Result<(Vec<Document>, Option<TransferCursor>), StoreError>;

    /// Loads a piece of a partition that does not exist. The partition stays invisible to readers,
    /// and must not be written to, until its last piece is loaded. A partition that expires must be
    /// loaded in one piece. An interrupted load does not affect other partitions;
    /// [(Self::remove_partitions) removes it.
    async fn load(&self, partition: &Partition, piece: PartitionPiece) -> Loaded;

    /// Removes some of the partitions whose names start with `prefix`, complete or partly loaded,
    /// and returns the cursor for the next call.
    async fn remove_partitions(
        &self,
        prefix: &str,
        from: Option<TransferCursor>,
    ) -> Result<Option<TransferCursor>, StoreError>;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Position;

    #[test]
    fn outline_with_a_floor_behind_its_head_is_impossible() {
        let outline = |floor: u64, seq: u64| Outline {
            head: PartitionHead {
                seq,
                at: 1,
                number: 2,
                floor: Position { seq: floor, at: 1 },
            },
            purged: 2,
            ..Outline::default()
        };
        assert!(outline(0, 0).is_possible() && outline(7, 7).is_possible());
        assert!(!outline(8, 7).is_possible());
        assert!(!outline(0, 1 << 63).is_possible());
        let purged = Outline {
            purged: 3,
            ..outline(0, 7)
        };
        assert!(!purged.is_possible());
    }
}
