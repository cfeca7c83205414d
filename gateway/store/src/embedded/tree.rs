//! The names of the trees.

/// The trees of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tree {
    /// The format, the position in the journal, the number for the next partition, and partly
    /// loaded partitions.
    Meta,
    /// The state of each partition, by name.
    Partitions,
    /// Documents, indexes and events of all partitions.
    Entries,
    /// Names of partitions by their expiry.
    Expiries,
    /// Numbers of dropped partitions whose entries are not removed yet.
    Dropped,
}

impl Tree {
    /// All trees, in the order of their numbers.
    pub(super) const ALL: [Self; 5] = [
        Self::Meta,
        Self::Partitions,
        Self::Entries,
        Self::Expiries,
        Self::Dropped,
    ];

    /// The name of the tree in LMDB.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Meta => "meta",
            Self::Partitions => "partitions",
            Self::Entries => "entries",
            Self::Expiries => "expiries",
            Self::Dropped => "dropped",
        }
    }
}
