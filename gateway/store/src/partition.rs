//! Names of partitions, tables and keys.

use std::sync::Arc;

/// The name of a partition, which is also its topic on the bus.
///
/// A name contains no `{` and no `}`: the Redis engine uses it as the hash tag of all keys of the
/// partition.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Partition(Arc<str>);

impl Partition {
    /// Creates a partition name. Only the domain's `schema` module should build names.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        let name = name.into();
        debug_assert!(
            !name.contains(['{', '}']),
            "a partition's name is a hash tag"
        );
        Self(name)
    }

    /// Returns the name.
    pub fn name(&self) -> &str {
        &self.0
    }

    /// Returns the topic on which the partition's records are published.
    pub fn topic(&self) -> fanout::Topic {
        fanout::Topic::from(self.0.clone())
    }
}

/// A table of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Table {
    /// Short name, part of stored keys.
    pub name: &'static str,
    /// Indexes of the table.
    pub order: Order,
}

/// The orders in which a table can be paged, besides lookups by key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Order {
    /// No paging.
    None,
    /// Pages in the byte order of the keys.
    Keys,
    /// Each new document takes the partition's next `number`. Pages by number, and by the `seq` of
    /// the last change.
    Numbers,
}

impl Table {
    /// A table for lookups by key only.
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
    /// A table whose documents are numbered 1, 2, 3 … within the partition. A partition has at most
    /// one.
    pub const fn numbered(name: &'static str) -> Self {
        Self {
            name,
            order: Order::Numbers,
        }
    }
}

/// The key of a document within its table: UTF-8 without `{`, `}` and control characters, at most
/// 256 bytes, possibly empty.
pub type DocumentKey = Arc<str>;
