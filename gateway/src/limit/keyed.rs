//! A bucket for each key, app or address, in bounded memory.

use std::{
    hash::Hash,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use dashmap::DashMap;
use parking_lot::Mutex;

use super::{Bucket, Rate};

/// How many buckets one map holds by default; each has 8 bytes and its key.
const CAPACITY: usize = 100_000;

/// Buckets by key. Full ones are forgotten; when there are too many others, those who come new
/// share one.
#[derive(Debug)]
pub struct Keyed<K: Eq + Hash> {
    buckets: DashMap<K, Bucket>,
    rate: Rate,
    capacity: usize,
    /// For all that found no room.
    shared: Mutex<Bucket>,
    /// When full ones were last forgotten, in milliseconds.
    pruned: AtomicU64,
}

impl<K: Eq + Hash> Keyed<K> {
    /// One bucket of this rate for each key.
    pub fn new(rate: Rate) -> Self {
        Self::with_capacity(rate, CAPACITY)
    }

    /// The same, with at most so many buckets.
    pub fn with_capacity(rate: Rate, capacity: usize) -> Self {
        Self {
            buckets: DashMap::new(),
            rate,
            capacity,
            shared: Mutex::default(),
            pruned: AtomicU64::new(0),
        }
    }

    /// Takes a token of a key, or says in how many milliseconds there will be one.
    pub fn take(&self, key: K, now: Duration) -> Result<(), u64> {
        if self.rate.per_second == 0 {
            return Ok(());
        }
        if let Some(mut bucket) = self.buckets.get_mut(&key) {
            return bucket.take(now, self.rate);
        }
        if self.buckets.len() >= self.capacity && !self.prune(now) {
            return self.shared.lock().take(now, self.rate);
        }
        self.buckets.entry(key).or_default().take(now, self.rate)
    }

    /// Takes tokens of a key that were used already: see [`Bucket::charge`].
    pub fn charge(&self, key: K, tokens: f64, now: Duration) {
        if self.rate.per_second == 0 || tokens <= 0.0 {
            return;
        }
        if let Some(mut bucket) = self.buckets.get_mut(&key) {
            return bucket.charge(tokens, now, self.rate);
        }
        if self.buckets.len() >= self.capacity && !self.prune(now) {
            return self.shared.lock().charge(tokens, now, self.rate);
        }
        self.buckets
            .entry(key)
            .or_default()
            .charge(tokens, now, self.rate);
    }

    /// Gives a token of a key back that was taken. One of the shared bucket stays taken.
    pub fn give_back(&self, key: &K) {
        if let Some(mut bucket) = self.buckets.get_mut(key) {
            bucket.give_back(self.rate);
        }
    }

    /// Whether a key has a token, without taking it.
    pub fn peek(&self, key: &K, now: Duration) -> Result<(), u64> {
        match self.buckets.get(key) {
            Some(bucket) => bucket.peek(now, self.rate),
            None if self.buckets.len() >= self.capacity => self.shared.lock().peek(now, self.rate),
            None => Ok(()),
        }
    }

    /// How many buckets there are.
    pub fn len(&self) -> usize {
        self.buckets.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.buckets.is_empty()
    }

    /// Forgets full buckets, at most once a second; true if there is room afterwards.
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
    fn a_flood_of_keys_shares_one_bucket_and_room_comes_back() {
        let keyed = Keyed::with_capacity(RATE, 3);
        let now = Duration::from_secs(5);
        let passed = (0..100).filter(|key| keyed.take(*key, now).is_ok()).count();
        assert_eq!(
            passed,
            3 + 2,
            "three of their own, and the burst of the shared one"
        );
        assert_eq!(keyed.len(), 3);
        assert_eq!(keyed.peek(&1000, now), Err(1000));
        assert_eq!(keyed.take(1, now), Ok(()), "who has a bucket keeps it");
        let later = now + Duration::from_secs(10);
        assert_eq!(keyed.take(1000, later), Ok(()));
        assert_eq!(keyed.len(), 1);
    }

    #[test]
    fn zero_is_no_limit() {
        let keyed = Keyed::new(Rate::per_second(0));
        assert!((0..1000).all(|_| keyed.take(1, Duration::ZERO).is_ok()));
        assert!(keyed.is_empty());
    }
}
