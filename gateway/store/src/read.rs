//! Parameters and results of reads: documents, snapshots, pages and pieces of the log.

use bytes::Bytes;
use fanout::{Position, record::Stamps};

use crate::{DocumentKey, Partition, Table};

/// A stored document: an opaque value and the metadata that the store assigned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// The key, even if the document was found by number.
    pub key: DocumentKey,
    /// Increases by one with each put; a [`Write::Touch`](crate::Write::Touch) does not change it.
    ///
    /// A new document starts above the highest version of all documents that were deleted or purged
    /// in its partition (at 1 if there are none). A key and version therefore identify one value
    /// for ever, unless the partition expired in between.
    pub version: u64,
    /// The value that was put.
    pub value: Bytes,
    /// Number, `seq` and timestamps, assigned by the store.
    pub stamps: Stamps,
    /// Counters of this document that are not zero, in the byte order of their names. Numbered
    /// tables only.
    pub counts: Vec<(String, u64)>,
}

/// The state of a partition's log and of its numbered table. All zero if the partition does not
/// exist.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PartitionHead {
    /// `seq` of the newest event.
    pub seq: u64,
    /// Timestamp of the newest commit that appended events.
    pub at: u64,
    /// The highest number assigned in the numbered table.
    pub number: u64,
    /// The position before the oldest kept event; `(0, 0)` while nothing was trimmed.
    pub floor: Position,
}

impl PartitionHead {
    /// Returns the position of a reader that has read the whole log.
    pub fn position(&self) -> Position {
        Position {
            seq: self.seq,
            at: self.at,
        }
    }
}

/// A read of one partition at one instant.
#[derive(Debug, Clone)]
pub struct Read {
    /// The partition.
    pub partition: Partition,
    /// Documents to read by key.
    pub documents: Vec<(Table, DocumentKey)>,
    /// If set, also read the document with the highest number of this table.
    pub newest: Option<Table>,
}

/// The result of a [`Read`].
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// The head of the log.
    pub head: PartitionHead,
    /// The partition's counters that are not zero.
    pub counters: Vec<(String, u64)>,
    /// The documents in the order of [`Read::documents`]; `None` if absent.
    pub documents: Vec<Option<Document>>,
    /// The newest numbered document, if requested and present.
    pub newest: Option<Document>,
}

impl Snapshot {
    /// Returns the value of a counter of the partition.
    pub fn counter(&self, name: &str) -> u64 {
        self.counters
            .iter()
            .find(|(n, _)| n == name)
            .map_or(0, |(_, v)| *v)
    }
}

/// The part of a table that a page covers.
#[derive(Debug, Clone)]
pub enum Range {
    /// Listed tables: keys after this one, ascending.
    Keys {
        /// The last key of the previous page; `None` for the first page.
        after: Option<DocumentKey>,
    },
    /// Numbered tables: the highest numbers below this one (`None`: the newest), returned in
    /// ascending order.
    Before(Option<u64>),
    /// Numbered tables: numbers above this one, ascending.
    After(u64),
    /// Numbered tables: documents whose last change has a `seq` above this one, ascending by that
    /// `seq`.
    Changed(u64),
}

/// A page of documents.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// The documents.
    pub documents: Vec<Document>,
    /// Whether more documents follow in the direction of the range.
    pub more: bool,
}

/// An event in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    /// Position of the event.
    pub position: Position,
    /// [`Append::kind`](crate::Append::kind) of the event.
    pub kind: u8,
    /// [`Append::reference`](crate::Append::reference) of the event.
    pub reference: Bytes,
}

/// A piece of the log.
#[derive(Debug, Clone)]
pub struct Log {
    /// Events after the requested position; empty unless `continuity` is `Continuous`.
    pub entries: Vec<LogEntry>,
    /// The head at the same instant.
    pub head: PartitionHead,
    /// Whether the log can be read from the requested position.
    pub continuity: Continuity,
}

/// The relation of a position to a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Continuity {
    /// The position is that of an event (or the start of an untrimmed log), and all later events
    /// are kept. The floor counts too: its own event is trimmed, but nothing after it is.
    Continuous,
    /// Events after the position were trimmed.
    Trimmed,
    /// The log has no event at this position, or a different one.
    Diverged,
}
