//! The commit: preconditions, writes, counters and events of one partition, applied atomically.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use fanout::record::{Control, Stamps};

use crate::{
    Document, DocumentKey, EventSlot, IncrementSlot, RequireSlot, StoreError, Table, WriteSlot,
};

/// An atomic write to one partition: all of it is applied, or nothing.
#[derive(Debug, Clone, Default)]
pub struct Commit {
    /// Preconditions.
    pub require: Vec<Require>,
    /// Documents to put, touch or delete, in this order. A commit writes each document at most
    /// once.
    pub write: Vec<Write>,
    /// Counters to change.
    pub increment: Vec<Increment>,
    /// Events. Each takes the next `seq`, is added to the log, and is published on the partition's
    /// topic.
    pub append: Vec<Append>,
    /// Time from this commit after which the whole partition expires. `None` leaves an earlier
    /// expiry unchanged.
    pub expire: Option<Duration>,
    /// Retention of the log. `None` means the engine's default if this commit appends, and no
    /// trimming otherwise. The store does not remember it: a log with its own retention gets it
    /// with each commit that appends. A commit trims about a thousand events at most; later commits
    /// continue.
    pub keep: Option<Keep>,
    /// Whether the commit runs even if the store is full, because it frees room directly or starts
    /// work that does (a deletion, a revocation).
    pub frees: bool,
}

/// Builder methods.
impl Commit {
    /// Adds a precondition on a document.
    pub fn require(mut self, table: Table, key: impl Into<DocumentKey>, is: Expected) -> Self {
        self.add_require(table, key, is);
        self
    }

    /// Adds a put of a document without an event.
    pub fn put(mut self, table: Table, key: impl Into<DocumentKey>, value: Bytes) -> Self {
        self.write.push(Write::Put {
            table,
            key: key.into(),
            value,
            mark: Mark::None,
            event: None,
        });
        self
    }

    /// Adds a deletion of a document.
    pub fn delete(mut self, table: Table, key: impl Into<DocumentKey>) -> Self {
        self.write.push(Write::Delete {
            table,
            key: key.into(),
        });
        self
    }

    /// Sets [`frees`](Self::frees).
    pub fn frees(mut self) -> Self {
        self.frees = true;
        self
    }

    /// Adds a precondition and returns its slot, for [`Conflict::failed`].
    pub fn add_require(
        &mut self,
        table: Table,
        key: impl Into<DocumentKey>,
        is: Expected,
    ) -> RequireSlot {
        let slot = self.next_require();
        self.require.push(Require {
            table,
            key: key.into(),
            is,
        });
        slot
    }

    /// Adds a write and returns its slot, for [`EventBody::Written`] and [`Outcome::written`].
    pub fn add_write(&mut self, write: Write) -> WriteSlot {
        let slot = self.next_write();
        self.write.push(write);
        slot
    }

    /// Adds an increment and returns its slot, for [`EventBody::Bytes`] and [`Outcome::count`].
    pub fn add_increment(&mut self, increment: Increment) -> IncrementSlot {
        let slot = IncrementSlot::nth(self.increment.len());
        self.increment.push(increment);
        slot
    }

    /// Adds an event and returns its slot, for [`Write`].
    pub fn add_event(&mut self, event: Append) -> EventSlot {
        let slot = self.next_event();
        self.append.push(event);
        slot
    }

    /// Returns the slot of the precondition that is added next.
    pub fn next_require(&self) -> RequireSlot {
        RequireSlot::nth(self.require.len())
    }

    /// Returns the slot of the write that is added next, for an event that is added before it.
    pub fn next_write(&self) -> WriteSlot {
        WriteSlot::nth(self.write.len())
    }

    /// Returns the slot of the event that is added next, for a write that is added before it.
    pub fn next_event(&self) -> EventSlot {
        EventSlot::nth(self.append.len())
    }
}

/// A precondition: the state that a document must be in before the commit.
#[derive(Debug, Clone)]
pub struct Require {
    /// The document's table.
    pub table: Table,
    /// The document's key.
    pub key: DocumentKey,
    /// The required state.
    pub is: Expected,
}

/// The state that a [`Require`] asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// The document does not exist.
    Absent,
    /// The document exists, at any version.
    Present,
    /// The document exists at this version.
    Version(u64),
    /// The numbered document was last changed by the event with this `seq`. Stricter than a
    /// version: touches count as changes.
    Changed(u64),
}

impl Expected {
    /// Returns the state that a document was read in: absent, or at its version.
    pub fn unchanged(document: Option<&Document>) -> Self {
        document.map_or(Self::Absent, |document| Self::Version(document.version))
    }
}

/// A change of a document.
#[derive(Debug, Clone)]
pub enum Write {
    /// Creates or replaces a document. `created_at` (and `number`) are assigned on creation and do
    /// not change.
    Put {
        /// The table.
        table: Table,
        /// The key.
        key: DocumentKey,
        /// The new value.
        value: Bytes,
        /// The timestamp that is set to the commit's `at`, besides `created_at`.
        mark: Mark,
        /// The event whose `seq` becomes the document's `seq`. Required in numbered tables, where
        /// each event is the last change of one document only. With `None` the `seq` does not
        /// change.
        event: Option<EventSlot>,
    },
    /// Sets the `seq` of a numbered document to that of an event, and keeps its version. Has no
    /// effect on an absent document.
    Touch {
        /// The table.
        table: Table,
        /// The key.
        key: DocumentKey,
        /// The event.
        event: EventSlot,
    },
    /// Deletes a document. Not allowed in numbered tables, whose numbers have no holes.
    Delete {
        /// The table.
        table: Table,
        /// The key.
        key: DocumentKey,
    },
}

/// The timestamp that a put sets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mark {
    /// None, except `created_at` of a new document.
    #[default]
    None,
    /// `edited_at`.
    Edited,
    /// `deleted_at`. Also drops the document's counters.
    Deleted,
}

/// A change of a counter. The increments of a commit apply in order, each to the result of those
/// before it.
///
/// An increment of a document that is absent before the commit is a conflict. A commit that puts a
/// document with [`Mark::Deleted`] must not change its counters.
#[derive(Debug, Clone)]
pub struct Increment {
    /// The counter.
    pub counter: Counter,
    /// The amount to add. A counter does not fall below zero, and is removed at zero.
    pub by: i64,
    /// Conflict if the counter exceeds this afterwards, even if `by` is negative: with `Some(0)`
    /// the counter must become zero.
    pub max: Option<u64>,
    /// Counters of documents: conflict if this adds a name to a document that already has this
    /// many.
    pub max_names: Option<u64>,
}

/// The name of a counter.
#[derive(Debug, Clone)]
pub enum Counter {
    /// A counter of the partition.
    Partition(&'static str),
    /// A counter of a numbered document.
    Document {
        /// The document's table.
        table: Table,
        /// The document's key.
        key: DocumentKey,
        /// The counter's name, for example a reaction's emoji: UTF-8, 1 to 64 bytes.
        name: Arc<str>,
    },
}

/// An event for the log and the bus.
#[derive(Debug, Clone)]
pub struct Append {
    /// The protocol's number of the event; opaque to the store.
    pub kind: u8,
    /// The content of the log's entry: a reference to the changed entity, not its body.
    pub reference: Bytes,
    /// The hub's action at this event.
    pub control: Control,
    /// The body of the published record.
    pub body: EventBody,
}

/// The body of a record on the bus.
#[derive(Debug, Clone)]
pub enum EventBody {
    /// These bytes. If an increment is given, the record's `count` is its result.
    Bytes(Bytes, Option<IncrementSlot>),
    /// The document that this write puts: its value, its stamps and its counters (in the byte order
    /// of their names) after the commit.
    Written(WriteSlot),
}

/// Retention of a partition's log. Commits trim the log; at least one event stays.
#[derive(Debug, Clone, Copy)]
pub struct Keep {
    /// Maximum number of events; 0 for no limit.
    pub events: u64,
    /// Maximum bytes: the length of each reference plus 16 per event. 0 for no limit.
    pub bytes: u64,
}

/// The result of a commit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The commit's timestamp by the store's clock; not before the partition's previous commit.
    pub at: u64,
    /// `seq` of the first appended event; the others follow. The head's `seq` if there are none.
    pub first_seq: u64,
    /// For each write, the document's metadata afterwards (default for deletions).
    pub written: Vec<Written>,
    /// For each increment, the counter afterwards.
    pub counts: Vec<u64>,
}

/// Results by slot. A slot of another commit panics or gives the result of another part.
impl Outcome {
    /// Returns the metadata of a written document.
    pub fn written(&self, write: WriteSlot) -> Written {
        self.written[write.index()]
    }

    /// Returns the version of a written document.
    pub fn version(&self, write: WriteSlot) -> u64 {
        self.written(write).version
    }

    /// Returns the stamps of a written document.
    pub fn stamps(&self, write: WriteSlot) -> Stamps {
        self.written(write).stamps
    }

    /// Returns the counter after an increment.
    pub fn count(&self, increment: IncrementSlot) -> u64 {
        self.counts[increment.index()]
    }
}

/// The metadata of a written document.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Written {
    /// Version after the commit.
    pub version: u64,
    /// Stamps after the commit.
    pub stamps: Stamps,
}

/// The preconditions and increments that failed, by index. Nothing was written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Conflict {
    /// Indexes into [`Commit::require`].
    pub require: Vec<usize>,
    /// Indexes into [`Commit::increment`].
    pub increment: Vec<usize>,
}

impl Conflict {
    /// Returns whether this precondition failed.
    pub fn failed(&self, require: RequireSlot) -> bool {
        self.require.contains(&require.index())
    }

    /// Returns whether all preconditions held: only a counter exceeds its maximum.
    pub fn is_limit(&self) -> bool {
        self.require.is_empty()
    }
}

/// The result of [`Store::commit`](crate::Store::commit).
pub type Committed = Result<Result<Outcome, Conflict>, StoreError>;

/// The result of [`Store::purge`](crate::Store::purge): whether the table is empty now. The
/// precondition has index 0 in a conflict.
pub type Purged = Result<Result<bool, Conflict>, StoreError>;
