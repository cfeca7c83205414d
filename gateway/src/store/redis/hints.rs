//! What a node remembers of numbers, to guess which keys a script will touch. Wrong or missing hints cost a round trip, nothing else.

use std::{collections::HashMap, hash::Hash, sync::Arc};

use parking_lot::Mutex;

use crate::store::{Key, Partition};

/// The numbers seen last.
#[derive(Debug, Default)]
pub(super) struct Hints {
    numbers: Recent<Partition, u64>,
    documents: Recent<(Partition, Key), u64>,
}

impl Hints {
    /// The highest number of a partition, if it was seen.
    pub(super) fn number(&self, partition: &Partition) -> Option<u64> {
        self.numbers.get(partition)
    }

    /// The partition's highest number is this.
    pub(super) fn saw_number(&self, partition: &Partition, number: u64) {
        self.numbers.put(partition.clone(), number);
    }

    /// The number of a document of the partition's numbered table; 0 if it was seen to be absent.
    pub(super) fn document(&self, partition: &Partition, key: &Key) -> Option<u64> {
        self.documents.get(&(partition.clone(), Arc::clone(key)))
    }

    /// The document has this number (0: there is no such document).
    pub(super) fn saw_document(&self, partition: &Partition, key: &Key, number: u64) {
        self.documents
            .put((partition.clone(), Arc::clone(key)), number);
    }
}

/// How many entries a generation of hints holds; about a hundred bytes each.
const GENERATION: usize = 32_768;

/// A map that forgets: what was not used since the generation before last is gone.
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
        if young.len() >= GENERATION {
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
    fn memory_stays_bounded_and_keeps_what_is_used() {
        let recent = Recent::default();
        for n in 0..4 * GENERATION {
            recent.put(n, n);
            assert_eq!(recent.get(&0), Some(0));
        }
        let generations = recent.0.lock();
        assert!(generations.iter().all(|g| g.len() <= GENERATION + 1));
        drop(generations);
        assert_eq!(recent.get(&1), None);
        assert_eq!(recent.get(&(4 * GENERATION - 1)), Some(4 * GENERATION - 1));
    }
}
