//! Whole partitions, out of one store and into another: what `chaos export` and `chaos import` are made of.
//!
//! Owned here: the interface. What a partition holds goes as it is, with versions, numbers, instants and the log, so that
//! afterwards nobody can tell the two stores apart. Left out: which partitions belong together, and in which order they go.

use async_trait::async_trait;

use super::{Document, Entry, Head, Partition, Store, StoreError, Table};

/// What a partition is besides its documents and its log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outline {
    /// The state of its log and of its numbered table.
    pub head: Head,
    /// Its counters, none of them zero, in the byte order of their names.
    pub counters: Vec<(String, u64)>,
    /// The instant of its newest commit, also of one that appended nothing. No later one has an earlier.
    pub touched: u64,
    /// The highest version of all documents that were removed: what is made begins above it.
    pub retired: u64,
    /// Up to which number its numbered table was purged.
    pub purged: u64,
    /// What its log weighs, as [`Keep::bytes`](super::Keep) counts.
    pub weight: u64,
    /// When it expires, if it does.
    pub expires: Option<u64>,
}

/// A piece of a partition on its way in. The pieces of one partition follow each other; those of several may mix.
#[derive(Debug, Clone, Default)]
pub struct Piece {
    /// Documents as they were, those of a numbered table by number ascending. One that comes twice is there once.
    pub documents: Vec<(Table, Document)>,
    /// The log, in its order.
    pub entries: Vec<Entry>,
    /// In the last piece. With it, the partition is there.
    pub outline: Option<Outline>,
}

/// There is such a partition already: nothing was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exists;

/// The answer to a load.
pub type Loaded = Result<Result<(), Exists>, StoreError>;

/// Where a walk goes on: what the call before answered, and opaque but to the engine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cursor(pub(super) String);

/// A store whose partitions can be taken out and put in whole. Every call ends within [`DEADLINE`](super::DEADLINE).
///
/// A walk is complete only if nobody writes meanwhile: compare [`Outline::touched`] afterwards.
#[async_trait]
pub trait Transfer: Store {
    /// Some of the partitions whose names begin so, and where to go on. One may come twice.
    async fn partitions(
        &self,
        prefix: &str,
        from: Option<Cursor>,
    ) -> Result<(Vec<Partition>, Option<Cursor>), StoreError>;

    /// The outline of a partition, if there is one.
    async fn outline(&self, partition: &Partition) -> Result<Option<Outline>, StoreError>;

    /// About `limit` documents of a plain or listed table, in an order of the engine's own, and where to go on. One may come
    /// twice. (A numbered table is read with [`Store::page`], the log with [`Store::log`].)
    async fn scan(
        &self,
        partition: &Partition,
        table: Table,
        from: Option<Cursor>,
        limit: usize,
    ) -> Result<(Vec<Document>, Option<Cursor>), StoreError>;

    /// Puts in a piece of a partition that is not there, and is not until its last piece: readers find nothing of it, and
    /// nobody may write to it. What expires comes in one piece. A load that was left in the middle is no hindrance to
    /// others, and is taken away by [`wipe`](Self::wipe).
    async fn load(&self, partition: &Partition, piece: Piece) -> Loaded;

    /// Takes away some of what is kept under names that begin so, half loaded or whole, and says where to go on.
    async fn wipe(&self, prefix: &str, from: Option<Cursor>) -> Result<Option<Cursor>, StoreError>;
}
