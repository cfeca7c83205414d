//! Handles of the parts of a commit. Parts that refer to each other and readers of the outcome use
//! them instead of indexes.

/// Declares the handle of one list of a [`Commit`](crate::Commit).
macro_rules! slot {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub struct $name(usize);

        impl $name {
            /// The slot at this index of its list.
            pub const fn nth(index: usize) -> Self {
                Self(index)
            }

            /// Returns the index in its list.
            pub const fn index(self) -> usize {
                self.0
            }
        }
    };
}

slot! {
    /// A precondition of a commit, by its place in [`Commit::require`](crate::Commit::require).
    RequireSlot
}
slot! {
    /// A write of a commit, by its place in [`Commit::write`](crate::Commit::write).
    WriteSlot
}
slot! {
    /// An increment of a commit, by its place in [`Commit::increment`](crate::Commit::increment).
    IncrementSlot
}
slot! {
    /// An event of a commit, by its place in [`Commit::append`](crate::Commit::append).
    EventSlot
}
