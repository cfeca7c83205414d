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

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use crate::{Commit, Conflict, Expected, Outcome, Table, Write, Written};

    const THINGS: Table = Table::plain("t");

    fn delete(key: &str) -> Write {
        Write::Delete {
            table: THINGS,
            key: key.into(),
        }
    }

    #[test]
    fn slots_find_the_results_of_their_parts() {
        let mut commit = Commit::default().require(THINGS, "a", Expected::Absent);
        let second = commit.add_require(THINGS, "b", Expected::Present);
        let mut commit = commit.put(THINGS, "a", Bytes::new());
        let next = commit.next_write();
        let written = commit.add_write(delete("b"));
        assert_eq!(next, written);

        let outcome = Outcome {
            written: [4, 7]
                .map(|version| Written {
                    version,
                    ..Written::default()
                })
                .to_vec(),
            ..Outcome::default()
        };
        assert_eq!(outcome.version(written), 7);

        let conflict = |require: &[usize]| Conflict {
            require: require.to_vec(),
            increment: vec![0],
        };
        assert!(conflict(&[1]).failed(second) && !conflict(&[0]).failed(second));
        assert!(conflict(&[]).is_limit() && !conflict(&[1]).is_limit());
    }
}
