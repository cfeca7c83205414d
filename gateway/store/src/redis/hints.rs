//! A cache of numbers, from which a node guesses the keys that a script will use. A wrong or
//! missing hint costs a round trip.

use std::{collections::HashMap, hash::Hash, sync::Arc};

use parking_lot::Mutex;

use crate::{DocumentKey, Partition};

/// The most recently seen numbers.
#[derive(Debug, Default)]
pub(super) struct Hints {
    numbers: Recent<Partition, u64>,
    documents: Recent<(Partition, DocumentKey), u64>,
}

impl Hints {
    /// Returns the highest number of a partition, if known.
    pub(super) fn number(&self, partition: &Partition) -> Option<u64> {
        self.numbers.get(partition)
    }

    /// Sets the highest number of a partition.
    pub(super) fn saw_number(&self, partition: &Partition, number: u64) {
        self.numbers.put(partition.clone(), number);
    }

    /// Returns the number of a document of the partition's numbered table; 0 if it was absent.
    pub(super) fn document(&self, partition: &Partition, key: &DocumentKey) -> Option<u64> {
        self.documents.get(&(partition.clone(), Arc::clone(key)))
    }

    /// Sets the number of a document (0: absent).
    pub(super) fn saw_document(&self, partition: &Partition, key: &DocumentKey, number: u64) {
        self.documents
            .put((partition.clone(), Arc::clone(key)), number);
    }
}

/// Maximum number of entries per generation of hints; about a hundred bytes each.
const GENERATION_SIZE: usize = 32_768;

/// A map with two generations of entries. Drops entries that were not used since the generation
/// before last.
#[derive(Debug)]
struct Recent<K, V>(Mutex<[HashMap<K, V>; 2]>);

impl<K, V> Default for Recent<K, V> {
    fn default() -> Self {
        Self(Mutex::new([HashMap::new(), HashMap::new()]))
    }
}

impl<K: Hash + Eq, V: Copy> Recent<K, V> {
    fn get(&self, key: &K) -> Option<V> {
        let [young, old] = &mut *self.0.lock();
        if let Some(value) = young.get(key) {
            return Some(*value);
        }
        let (key, value) = old.remove_entry(key)?;
        young.insert(key, value);
        Some(value)
    }

    fn put(&self, key: K, value: V) {
        let generations = &mut *self.0.lock();
        let [young, old] = generations;
        if young.len() >= GENERATION_SIZE {
            std::mem::swap(young, old);
            young.clear();
        }
        young.insert(key, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn size_is_bounded_and_used_entries_stay() {
        let recent = Recent::default();
        for n in 0..4 * GENERATION_SIZE {
            recent.put(n, n);
            assert_eq!(recent.get(&0), Some(0));
        }
        let generations = recent.0.lock();
        assert!(generations.iter().all(|g| g.len() <= GENERATION_SIZE + 1));
        drop(generations);
        assert_eq!(recent.get(&1), None);
        let last = 4 * GENERATION_SIZE - 1;
        assert_eq!(recent.get(&last), Some(last));
    }
}
