//! Numbers that are missing, as ranges: a hole costs the same whatever its width.

use std::ops::Range;

#[derive(Debug, Default)]
pub(super) struct Ranges(Vec<Range<u64>>);

impl Ranges {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.0.iter().cloned()
    }

    pub(super) fn add(&mut self, range: Range<u64>) {
        self.0.push(range);
    }

    /// Takes one number out; false if it was not in.
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

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}
