//! A set of missing numbers, as ranges: its size does not depend on how wide a hole is.

use std::ops::Range;

#[derive(Debug, Default)]
pub(super) struct SeqRanges(Vec<Range<u64>>);

impl SeqRanges {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.0.iter().cloned()
    }

    pub(super) fn add(&mut self, range: Range<u64>) {
        self.0.push(range);
    }

    /// Removes a number. Returns whether it was in the set.
    pub(super) fn remove(&mut self, number: u64) -> bool {
        let Some(at) = self.0.iter().position(|range| range.contains(&number)) else {
            return false;
        };
        let Range { start, end } = self.0.swap_remove(at);
        self.0.extend(
            [start..number, number + 1..end]
                .into_iter()
                .filter(|range| !range.is_empty()),
        );
        true
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}
