//! Counts of concurrent items by key.

use std::{hash::Hash, sync::Arc};

use dashmap::DashMap;

/// Counts concurrent items of each key. A key without items takes no memory.
#[derive(Debug, Default)]
pub struct Concurrent<K: Eq + Hash> {
    counts: DashMap<K, u64>,
}

/// A counted item, until it is dropped.
#[derive(Debug)]
pub struct Counted<K: Eq + Hash> {
    all: Arc<Concurrent<K>>,
    key: K,
}

impl<K: Eq + Hash + Clone> Concurrent<K> {
    /// Creates empty counts.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            counts: DashMap::new(),
        })
    }

    /// Counts an item of a key, unless there are `most` already; 0 means no limit.
    pub fn enter(self: &Arc<Self>, key: K, most: u64) -> Option<Counted<K>> {
        let mut count = self.counts.entry(key.clone()).or_default();
        if most != 0 && *count >= most {
            return None;
        }
        *count += 1;
        drop(count);
        Some(Counted {
            all: Arc::clone(self),
            key,
        })
    }
}

impl<K: Eq + Hash> Drop for Counted<K> {
    fn drop(&mut self) {
        if let Some(mut count) = self.all.counts.get_mut(&self.key) {
            *count -= 1;
        }
        self.all.counts.remove_if(&self.key, |_, count| *count == 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_has_its_own_number_and_room_comes_back() {
        let all = Concurrent::new();
        let held: Vec<_> = (0..2).filter_map(|_| all.enter("a", 2)).collect();
        assert_eq!(held.len(), 2);
        assert!(all.enter("a", 2).is_none());
        assert!(all.enter("b", 2).is_some());
        assert!(all.enter("a", 0).is_some(), "0 is no limit");
        drop(held);
        assert!(all.counts.is_empty());
    }
}
