//! The store: partitions of versioned documents, counters and a numbered log, changed by one kind of write.
//!
//! Owned here: the interface, the names of partitions and tables, and the two engines behind it (`embedded`, `redis`).
//! Left out: what the documents mean. An engine never decodes a value; all chat logic stands above, in `service`.
//!
//! A *partition* is what must be consistent together (a channel, a user, an app, an organization, the deployment).
//! Everything that a [`Commit`] names lies in one partition and happens as a whole or not at all.

#[cfg(test)]
pub(crate) mod conformance;
pub mod embedded;
pub mod metered;
pub mod redis;
pub mod transfer;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
pub use fanout::Position;

/// The name of a partition, which is also its topic on the bus.
///
/// It never holds `{` or `}`: the Redis engine makes it the hash tag of every key of the partition.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Partition(Arc<str>);

impl Partition {
    /// Wraps a name. Callers make names through the functions of `service::scope` only.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        let name = name.into();
        debug_assert!(
            !name.contains(['{', '}']),
            "a partition's name is a hash tag"
        );
        Self(name)
    }

    /// The name, as used in keys and as the topic.
    pub fn name(&self) -> &str {
        &self.0
    }

    /// The topic on which the partition's records are published.
    pub fn topic(&self) -> fanout::Topic {
        fanout::Topic::from(self.0.clone())
    }
}

/// A table of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Table {
    /// Its short name in keys.
    pub name: &'static str,
    /// How its documents can be found again.
    pub order: Order,
}

/// How the documents of a table can be found besides by key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Order {
    /// By key alone.
    None,
    /// Also page by page in the byte order of the keys.
    Keys,
    /// Each new document takes the partition's next `number`; pages by number, and by the `seq` of the last change.
    Numbers,
}

impl Table {
    /// A table found by key alone.
    pub const fn plain(name: &'static str) -> Self {
        Self {
            name,
            order: Order::None,
        }
    }
    /// A table that can be paged by key.
    pub const fn listed(name: &'static str) -> Self {
        Self {
            name,
            order: Order::Keys,
        }
    }
    /// A table whose documents are numbered 1, 2, 3 … within the partition. A partition has at most one.
    pub const fn numbered(name: &'static str) -> Self {
        Self {
            name,
            order: Order::Numbers,
        }
    }
}

/// The key of a document within its table: UTF-8, without `{`, `}` and control characters, at most 256 bytes; it may be empty.
pub type Key = Arc<str>;

/// A document as it is kept: opaque bytes in an envelope of what the store assigned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// The key, also when found by number.
    pub key: Key,
    /// One more with each put; a [`Write::Touch`] leaves it. A document that is made begins above every version that one
    /// under its key ever had: at 1, or above the highest of all that were deleted or purged in its partition. So a version
    /// means one value for ever, except that a partition that expired never was.
    pub version: u64,
    /// What was put.
    pub value: Bytes,
    /// What the store assigned.
    pub stamps: Stamps,
    /// Counters of this document (numbered tables only), by name, none of them zero, in the byte order of the names.
    pub counts: Vec<(String, u64)>,
}

pub use fanout::record::Stamps;

/// The state of a partition's log and of its numbered table. All zero for a partition that never was.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Head {
    /// Of the newest event.
    pub seq: u64,
    /// Of the newest commit that appended.
    pub at: u64,
    /// The highest number given.
    pub number: u64,
    /// The position before the oldest kept event; `(0, 0)` while nothing was trimmed.
    pub floor: Position,
}

impl Head {
    /// Where a reader who has everything stands.
    pub fn position(&self) -> Position {
        Position {
            seq: self.seq,
            at: self.at,
        }
    }
}

/// One write: all of it or nothing.
#[derive(Debug, Clone, Default)]
pub struct Commit {
    /// What must hold.
    pub require: Vec<Require>,
    /// Documents to put, touch or delete, in this order. A document is written at most once in a commit.
    pub write: Vec<Write>,
    /// Counters to change.
    pub increment: Vec<Increment>,
    /// Events: each takes the next `seq`, is kept in the log and published on the partition's topic.
    pub append: Vec<Append>,
    /// Drop the whole partition this long after this commit (a later commit with `None` leaves that time as it is).
    pub expire: Option<Duration>,
    /// How much of the log stays, if this commit appends; `None` for as much as the engine was told to keep. Nobody
    /// remembers it: a log that has a bound of its own gets it from every commit that appends to it.
    pub keep: Option<Keep>,
}

/// A document that must be in a certain state for a commit to happen.
#[derive(Debug, Clone)]
pub struct Require {
    /// The document's table.
    pub table: Table,
    /// The document's key.
    pub key: Key,
    /// The state.
    pub is: Expected,
}

/// The state that a [`Require`] asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// No such document.
    Absent,
    /// Such a document, at whatever version.
    Present,
    /// The document at this version.
    Version(u64),
    /// The numbered document as last changed by the event with this `seq` (stricter than a version: touches count).
    Changed(u64),
}

/// A change of a document.
#[derive(Debug, Clone)]
pub enum Write {
    /// Make or replace. `created_at` (and `number`) are set when it is made and stay.
    Put {
        /// The table.
        table: Table,
        /// The key.
        key: Key,
        /// The new value.
        value: Bytes,
        /// Which of the other instants this commit sets to its own `at`.
        mark: Mark,
        /// The index in [`Commit::append`] of the event whose `seq` becomes the document's `seq` (needed in numbered tables, where
        /// each event is the last change of one document only). With `None` the `seq` stays as it is.
        event: Option<usize>,
    },
    /// Set only the `seq` of a numbered document, to that of the event; its version stays. Absent documents are a conflict only if required.
    Touch {
        /// The table.
        table: Table,
        /// The key.
        key: Key,
        /// The index in [`Commit::append`].
        event: usize,
    },
    /// Remove. Never used on numbered tables, whose numbers have no holes.
    Delete {
        /// The table.
        table: Table,
        /// The key.
        key: Key,
    },
}

/// Which instant of a document a put sets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mark {
    /// None (but `created_at` of a new one).
    #[default]
    None,
    /// `edited_at`.
    Edited,
    /// `deleted_at`; the document's counters are dropped.
    Deleted,
}

/// A change of a counter. Those of one commit follow each other: each sees what the ones before it did.
///
/// A counter of a document that is absent before the commit is a conflict. A commit that marks a document as deleted
/// changes none of its counters.
#[derive(Debug, Clone)]
pub struct Increment {
    /// Which counter.
    pub counter: Counter,
    /// By how much. A counter never falls below zero; at zero it is gone.
    pub by: i64,
    /// A conflict if the counter would exceed this afterwards, also where `by` takes away from it: with `Some(0)` it must
    /// become zero.
    pub max: Option<u64>,
    /// For counters of a document: a new name is a conflict if the document has this many already.
    pub max_names: Option<u64>,
}

/// The name of a counter.
#[derive(Debug, Clone)]
pub enum Counter {
    /// Of the partition.
    Partition(&'static str),
    /// Of a numbered document.
    Document {
        /// Its table.
        table: Table,
        /// Its key.
        key: Key,
        /// The counter's name: a reaction's emoji, say. Any UTF-8 up to 64 bytes.
        name: Arc<str>,
    },
}

/// An event for the log and the bus.
#[derive(Debug, Clone)]
pub struct Append {
    /// What happened: the protocol's number of the event; opaque here.
    pub kind: u8,
    /// What the log keeps: a reference to what changed, not its body.
    pub reference: Bytes,
    /// What the hub does at this event.
    pub control: fanout::record::Control,
    /// What listeners are told.
    pub body: Body,
}

/// The body of a record on the bus.
#[derive(Debug, Clone)]
pub enum Body {
    /// These bytes, with the resulting value of the increment at this index, if any, stamped as `count`.
    Bytes(Bytes, Option<usize>),
    /// The document put by the write at this index of [`Commit::write`]: its value, with all its stamps and, if it has any,
    /// its counters (in the byte order of their names) as they are after the commit.
    Written(usize),
}

/// What a commit did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The store's clock at the commit, not before the partition's previous one.
    pub at: u64,
    /// The `seq` of the first event appended; the others follow. The head's `seq` if there was none.
    pub first_seq: u64,
    /// For each write: the document's version and stamps afterwards (default for deletes).
    pub written: Vec<Written>,
    /// For each increment: the counter afterwards.
    pub counts: Vec<u64>,
}

/// The envelope of a written document.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Written {
    /// Its version afterwards.
    pub version: u64,
    /// Its stamps afterwards.
    pub stamps: Stamps,
}

/// Why a commit did not happen: the indexes of all requirements and increments that failed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Conflict {
    /// Into [`Commit::require`].
    pub require: Vec<usize>,
    /// Into [`Commit::increment`].
    pub increment: Vec<usize>,
}

/// What to read of one partition, at one instant.
#[derive(Debug, Clone)]
pub struct Read {
    /// The partition.
    pub partition: Partition,
    /// Documents by key.
    pub documents: Vec<(Table, Key)>,
    /// Also the document with the highest number of this table.
    pub newest: Option<Table>,
}

/// What was read of one partition, at one instant.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// The log's head.
    pub head: Head,
    /// The partition's counters that are not zero.
    pub counters: Vec<(String, u64)>,
    /// In the order asked for.
    pub documents: Vec<Option<Document>>,
    /// The newest numbered document, if asked for and there is one.
    pub newest: Option<Document>,
}

impl Snapshot {
    /// A counter of the partition.
    pub fn counter(&self, name: &str) -> u64 {
        self.counters
            .iter()
            .find(|(n, _)| n == name)
            .map_or(0, |(_, v)| *v)
    }
}

/// Which part of a table to read.
#[derive(Debug, Clone)]
pub enum Range {
    /// Listed tables: keys after this one (exclusive; `None` from the start), ascending.
    Keys {
        /// The last key of the page before.
        after: Option<Key>,
    },
    /// Numbered tables: the highest numbers below this one (`None`: the newest), answered ascending.
    Before(Option<u64>),
    /// Numbered tables: numbers above this one, ascending.
    After(u64),
    /// Numbered tables: documents whose last change has a `seq` above this one, ascending by that `seq`.
    Changed(u64),
}

/// A page of documents.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// The documents.
    pub documents: Vec<Document>,
    /// Whether there are more beyond, in the direction of the range.
    pub more: bool,
}

/// An event as the log keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its position.
    pub position: Position,
    /// As appended.
    pub kind: u8,
    /// As appended.
    pub reference: Bytes,
}

/// A piece of the log.
#[derive(Debug, Clone)]
pub struct Log {
    /// What stands after the asked position; empty unless `continuity` is `Continuous`.
    pub entries: Vec<Entry>,
    /// The head at that instant.
    pub head: Head,
    /// Whether the position is one that the log can go on from.
    pub continuity: Continuity,
}

/// How a position relates to a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Continuity {
    /// An event stands there (or it is the beginning, and nothing was trimmed), and all after it are kept. The floor is such
    /// a position: its own event is gone, but who has it misses nothing.
    Continuous,
    /// Older than what is kept.
    Trimmed,
    /// No event stands there, or another one.
    Diverged,
}

/// How much of a partition's log is kept; trimmed by the commits themselves, never below one event.
#[derive(Debug, Clone, Copy)]
pub struct Keep {
    /// Events; 0 means all.
    pub events: u64,
    /// Bytes of references with 16 for each entry's position; 0 means no bound.
    pub bytes: u64,
}

/// Why the store did not answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// It cannot be reached, hangs, or refuses writes: nothing was done, or whether it was is unknown.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// It answered what this version cannot read.
    #[error("the store holds what this version cannot read: {0}")]
    Corrupt(String),
}

/// The answer to a commit.
pub type Committed = Result<Result<Outcome, Conflict>, StoreError>;

/// The answer to a purge: whether none is left. A conflict names the requirement as the first.
pub type Purged = Result<Result<bool, Conflict>, StoreError>;

/// The narrow waist between chat logic and what keeps it. Every call ends within [`DEADLINE`].
#[async_trait]
pub trait Store: Send + Sync + std::fmt::Debug {
    /// One atomic write. Events are published after they are as durable as the store was told to make them.
    async fn commit(&self, partition: &Partition, commit: Commit) -> Committed;

    /// Snapshots of several partitions, each at one instant, in few round trips.
    async fn read(&self, reads: Vec<Read>) -> Result<Vec<Snapshot>, StoreError>;

    /// A page of a table, with the partition's head at the same instant.
    async fn page(
        &self,
        partition: &Partition,
        table: Table,
        range: Range,
        limit: usize,
    ) -> Result<(Page, Head), StoreError>;

    /// At most `limit` events after a position.
    async fn log(
        &self,
        partition: &Partition,
        after: Position,
        limit: usize,
    ) -> Result<Log, StoreError>;

    /// Publishes a passing event: not kept, no `seq`.
    async fn publish(&self, topic: &fanout::Topic, record: Bytes) -> Result<(), StoreError>;

    /// Removes up to `limit` documents of a table with their indexes and counters, if what is required holds as they go;
    /// true when none is left. Head, log and the other tables stay. For the job that clears up after a deletion: it requires
    /// what tells that its object is still deleted, so that it never takes what was made anew after another such job had ended.
    async fn purge(
        &self,
        partition: &Partition,
        table: Table,
        require: Option<Require>,
        limit: usize,
    ) -> Purged;

    /// Renews a node's lease for `ttl` and sets how many sessions each of these members has there (0 removes it).
    /// False if the lease had ended or never was: what it held may have been swept, so the node sets all its members anew.
    async fn lease(
        &self,
        node: &str,
        ttl: Duration,
        members: Vec<(String, u32)>,
    ) -> Result<bool, StoreError>;

    /// Ends a lease at once, with its members.
    async fn release(&self, node: &str) -> Result<(), StoreError>;

    /// How many sessions each member has, over all nodes whose lease has not ended.
    async fn members(&self, members: &[String]) -> Result<Vec<u32>, StoreError>;

    /// Takes away the members of nodes whose lease has ended. Each is told to one caller only, also if it has sessions elsewhere.
    async fn sweep(&self) -> Result<Vec<String>, StoreError>;

    /// The store's clock, milliseconds since the Unix epoch. Also tells whether the store can be reached and written.
    async fn now(&self) -> Result<u64, StoreError>;
}

/// The longest that a call of [`Store`] takes before it answers [`StoreError::Unavailable`].
pub const DEADLINE: Duration = Duration::from_secs(4);
