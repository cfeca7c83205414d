//! Memory of collections that had many entries and have few now. The collections of the standard
//! library and [`DashMap`] keep their largest capacity.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    hash::{BuildHasher, Hash},
};

use dashmap::DashMap;

/// Capacity up to which a collection keeps its memory.
const KEPT_CAPACITY: usize = 256;

/// Ratio of capacity to length beyond which a collection is sparse. After it was shrunk, it must lose
/// most of its entries again before it is shrunk again, so the cost per removal is constant.
const SPARSE_RATIO: usize = 8;

/// A collection that can free unused capacity.
pub trait ShrinkIfSparse {
    /// Frees unused capacity if most of it is unused. Call it after removals.
    fn shrink_if_sparse(self);
}

fn is_sparse(len: usize, capacity: usize) -> bool {
    capacity > KEPT_CAPACITY && len < capacity / SPARSE_RATIO
}

impl<K: Eq + Hash, V, S: BuildHasher> ShrinkIfSparse for &mut HashMap<K, V, S> {
    fn shrink_if_sparse(self) {
        if is_sparse(self.len(), self.capacity()) {
            self.shrink_to(2 * self.len());
        }
    }
}

impl<T: Eq + Hash, S: BuildHasher> ShrinkIfSparse for &mut HashSet<T, S> {
    fn shrink_if_sparse(self) {
        if is_sparse(self.len(), self.capacity()) {
            self.shrink_to(2 * self.len());
        }
    }
}

impl<T> ShrinkIfSparse for &mut VecDeque<T> {
    fn shrink_if_sparse(self) {
        if is_sparse(self.len(), self.capacity()) {
            self.shrink_to(2 * self.len());
        }
    }
}

/// Takes each lock of the map in turn, also if it is not sparse: call it once for many removals.
impl<K: Eq + Hash, V, S: BuildHasher + Clone> ShrinkIfSparse for &DashMap<K, V, S> {
    fn shrink_if_sparse(self) {
        if is_sparse(self.len(), self.capacity()) {
            self.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANY: usize = 10_000;

    #[test]
    fn collections_free_their_capacity_when_most_entries_are_removed() {
        let mut map: HashMap<usize, usize> = (0..MANY).map(|n| (n, n)).collect();
        let mut set: HashSet<usize> = (0..MANY).collect();
        let mut queue: VecDeque<usize> = (0..MANY).collect();
        let shared: DashMap<usize, usize> = (0..MANY).map(|n| (n, n)).collect();
        for n in 10..MANY {
            map.remove(&n);
            map.shrink_if_sparse();
            set.remove(&n);
            set.shrink_if_sparse();
            queue.pop_back();
            queue.shrink_if_sparse();
            shared.remove(&n);
        }
        shared.shrink_if_sparse();
        let capacities = [
            map.capacity(),
            set.capacity(),
            queue.capacity(),
            shared.capacity(),
        ];
        // A shard of the concurrent map keeps a few places.
        assert!(
            capacities
                .iter()
                .all(|capacity| *capacity <= 2 * KEPT_CAPACITY),
            "{capacities:?}"
        );
        assert!((0..10).all(|n| map[&n] == n && set.contains(&n) && queue[n] == n));
        assert!((0..10).all(|n| shared.get(&n).is_some_and(|value| *value == n)));
    }

    #[test]
    fn removals_from_a_large_collection_rarely_shrink_it() {
        let mut map: HashMap<usize, usize> = (0..MANY).map(|n| (n, n)).collect();
        let mut shrunk = 0;
        for n in 0..MANY {
            map.remove(&n);
            let before = map.capacity();
            map.shrink_if_sparse();
            shrunk += usize::from(map.capacity() < before);
        }
        assert!((1..10).contains(&shrunk), "{shrunk}");
    }

    #[test]
    fn small_and_dense_collections_keep_their_capacity() {
        let mut small: Vec<HashMap<usize, usize>> = vec![HashMap::with_capacity(KEPT_CAPACITY / 2)];
        let before = small[0].capacity();
        small[0].shrink_if_sparse();
        assert_eq!(small[0].capacity(), before);
        let mut dense: VecDeque<usize> = (0..MANY).collect();
        dense.truncate(MANY / 2);
        let before = dense.capacity();
        dense.shrink_if_sparse();
        assert_eq!(dense.capacity(), before);
    }
}
