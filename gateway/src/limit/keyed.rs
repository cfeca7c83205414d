//! A bucket for each key, app or address, in bounded memory.

use std::{
    hash::Hash,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use dashmap::{DashMap, mapref::one::RefMut};

use super::{Bucket, Rate};

/// Maximum number of buckets by default; each has 8 bytes and its key.
const CAPACITY: usize = 100_000;

/// Number of buckets of which the fullest is evicted to make room for another.
const CANDIDATES: usize = 16;

/// Buckets by key. Full ones are dropped when there are too many. If none is full, one of those
/// that are nearly full is evicted: a flood of keys does not limit other keys, and each of its own
/// keys is still limited.
#[derive(Debug)]
pub struct Keyed<K: Eq + Hash> {
    buckets: DashMap<K, Bucket>,
    rate: Rate,
    capacity: usize,
    /// Time of the last search for full buckets, in milliseconds.
    pruned: AtomicU64,
}

impl<K: Eq + Hash + Clone> Keyed<K> {
    /// Creates buckets of a rate.
    pub fn new(rate: Rate) -> Self {
        Self::with_capacity(rate, CAPACITY)
    }

    /// Creates buckets of a rate, at most `capacity` of them (and a few more while several threads
    /// add one).
    pub fn with_capacity(rate: Rate, capacity: usize) -> Self {
        Self {
            buckets: DashMap::new(),
            rate,
            capacity,
            pruned: AtomicU64::new(0),
        }
    }

    /// Takes a token of a key, or returns the milliseconds until there is one.
    pub fn take(&self, key: K, now: Duration) -> Result<(), u64> {
        if self.rate.per_second == 0 {
            return Ok(());
        }
        self.bucket(key, now).take(now, self.rate)
    }

    /// Takes tokens of a key that were used already: see [`Bucket::charge`].
    pub fn charge(&self, key: K, tokens: f64, now: Duration) {
        if self.rate.per_second != 0 && tokens > 0.0 {
            self.bucket(key, now).charge(tokens, now, self.rate);
        }
    }

    /// Returns the bucket of a key, a new one if it has none.
    fn bucket(&self, key: K, now: Duration) -> RefMut<'_, K, Bucket> {
        if let Some(bucket) = self.buckets.get_mut(&key) {
            return bucket;
        }
        if self.buckets.len() >= self.capacity && !self.prune(now) {
            self.make_room();
        }
        self.buckets.entry(key).or_default()
    }

    /// Gives back a token of a key.
    pub fn give_back(&self, key: &K) {
        if let Some(mut bucket) = self.buckets.get_mut(key) {
            bucket.give_back(self.rate);
        }
    }

    /// Returns whether a key has a token, without taking it.
    pub fn peek(&self, key: &K, now: Duration) -> Result<(), u64> {
        match self.buckets.get(key) {
            Some(bucket) => bucket.peek(now, self.rate),
            None => Ok(()),
        }
    }

    /// Returns the number of buckets.
    pub fn len(&self) -> usize {
        self.buckets.len()
    }

    /// Returns whether there is no bucket.
    pub fn is_empty(&self) -> bool {
        self.buckets.is_empty()
    }

    /// Drops full buckets, at most once a second. Returns whether there is room afterwards.
    fn prune(&self, now: Duration) -> bool {
        let at = now.as_millis() as u64;
        let before = self.pruned.load(Ordering::Relaxed);
        let due = before == 0 || at >= before + 1000;
        if due
            && self
                .pruned
                .compare_exchange(before, at.max(1), Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
        {
            self.buckets.retain(|_, bucket| !bucket.is_full(now));
        }
        self.buckets.len() < self.capacity
    }

    /// Drops the fullest of a few buckets, so that debts stay.
    fn make_room(&self) {
        let candidates = self.buckets.iter().take(CANDIDATES);
        let fullest = candidates
            .min_by_key(|entry| entry.value().full_at())
            .map(|entry| entry.key().clone());
        if let Some(key) = fullest {
            self.buckets.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate {
        per_second: 1,
        burst: 2,
    };

    #[test]
    fn each_key_has_its_own_bucket() {
        let keyed = Keyed::new(RATE);
        let now = Duration::from_secs(5);
        assert_eq!(keyed.take("a", now), Ok(()));
        assert_eq!(keyed.take("a", now), Ok(()));
        assert_eq!(keyed.peek(&"a", now), Err(1000));
        assert_eq!(keyed.take("a", now), Err(1000));
        assert_eq!(keyed.take("b", now), Ok(()));
        assert_eq!(keyed.peek(&"c", now), Ok(()));
        assert_eq!(keyed.len(), 2, "looking makes no bucket");
    }

    #[test]
    fn flood_of_keys_takes_bounded_memory_and_limits_nobody_else() {
        let keyed = Keyed::with_capacity(RATE, 3);
        let now = Duration::from_secs(5);
        keyed.charge(1, 100.0, now);
        for key in 1000..1100 {
            assert_eq!(keyed.take(key, now), Ok(()));
            assert_eq!(keyed.len(), 3.min(key - 998));
        }
        assert!(keyed.take(1, now).is_err(), "a debt is not forgotten");
        assert_eq!(keyed.take(2, now), Ok(()));
        let later = now + Duration::from_secs(200);
        assert_eq!(keyed.take(1000, later), Ok(()));
        assert_eq!(keyed.len(), 1, "full ones are dropped");
    }

    #[test]
    fn zero_is_no_limit() {
        let keyed = Keyed::new(Rate::per_second(0));
        assert!((0..1000).all(|_| keyed.take(1, Duration::ZERO).is_ok()));
        assert!(keyed.is_empty());
    }
}
