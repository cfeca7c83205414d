//! A cache of keys with a lifetime of two seconds, so that a revocation takes effect on every node
//! within seconds.

use std::{
    hash::Hash,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use dashmap::{DashMap, Entry};
use domain::{clock::Clock, error::Result};
use tokio::sync::SetOnce;

/// Age after which one caller reads again, while the others use the cached value.
pub const FRESH: Duration = Duration::from_secs(1);
/// Age after which a cached value is not used any more.
pub const STALE: Duration = Duration::from_secs(2);

/// A bounded map of values that were read from the store. Missing values and errors are not cached.
#[derive(Debug)]
pub(crate) struct Cache<K: Eq + Hash, V> {
    slots: DashMap<K, Arc<Slot<V>>>,
    /// Reads in flight. Callers with the same key wait for them.
    reads: DashMap<K, Arc<Outcome<V>>>,
    capacity: usize,
    clock: Arc<Clock>,
}

/// The result of a read; `None` if it was refused or cancelled, so that another caller has to read.
type Outcome<V> = SetOnce<Option<Result<Option<V>>>>;

/// A read in flight, until it is dropped.
struct ReadInFlight<'a, K: Eq + Hash, V> {
    reads: &'a DashMap<K, Arc<Outcome<V>>>,
    key: &'a K,
    outcome: Arc<Outcome<V>>,
}

#[derive(Debug)]
struct Slot<V> {
    value: V,
    /// When the read began.
    read_at: Duration,
    /// Whether a caller reads again. Never reset: a successful read replaces the slot, and after a
    /// failed one this slot ages.
    refreshing: AtomicBool,
}

impl<K: Eq + Hash + Clone, V: Clone> Cache<K, V> {
    pub(crate) fn new(capacity: usize, clock: Arc<Clock>) -> Self {
        Self {
            slots: DashMap::new(),
            reads: DashMap::new(),
            capacity,
            clock,
        }
    }

    /// Returns the cached value, or else the result of `read`. Concurrent callers share one read.
    ///
    /// `admit` is called before the read, unless the cache has a value of any age for the key.
    ///
    /// # Errors
    /// Returns the error of `admit` or `read`.
    pub(crate) async fn get(
        &self,
        key: &K,
        mut admit: impl FnMut() -> Result<()>,
        read: impl Future<Output = Result<Option<V>>>,
    ) -> Result<Option<V>> {
        loop {
            let began = self.clock.elapsed();
            let slot = self.slots.get(key).map(|slot| Arc::clone(&slot));
            let is_known = slot.is_some();
            if let Some(slot) = slot {
                let age = began.saturating_sub(slot.read_at);
                if age < FRESH || (age < STALE && slot.refreshing.swap(true, Ordering::Relaxed)) {
                    return Ok(Some(slot.value.clone()));
                }
            }
            let in_flight = match self.begin_read(key) {
                Ok(in_flight) => in_flight,
                Err(outcome) => match outcome.wait().await {
                    Some(found) => return found.clone(),
                    None => continue,
                },
            };
            if !is_known {
                admit()?;
            }
            let found = read.await;
            match &found {
                Ok(Some(value)) => self.insert(key, value.clone(), began),
                Ok(None) => {
                    self.slots.remove_if(key, |_, slot| slot.read_at <= began);
                }
                Err(_) => {}
            }
            in_flight.end(found.clone());
            return found;
        }
    }

    /// Begins a read, or returns the outcome of the one in flight.
    fn begin_read<'a>(
        &'a self,
        key: &'a K,
    ) -> std::result::Result<ReadInFlight<'a, K, V>, Arc<Outcome<V>>> {
        match self.reads.entry(key.clone()) {
            Entry::Occupied(in_flight) => Err(Arc::clone(in_flight.get())),
            Entry::Vacant(free) => {
                let outcome = Arc::clone(&free.insert(Arc::default()));
                Ok(ReadInFlight {
                    reads: &self.reads,
                    key,
                    outcome,
                })
            }
        }
    }

    fn insert(&self, key: &K, value: V, read_at: Duration) {
        if self.slots.len() >= self.capacity {
            self.slots
                .retain(|_, slot| read_at.saturating_sub(slot.read_at) < STALE);
            if self.slots.len() >= self.capacity && !self.slots.contains_key(key) {
                return;
            }
        }
        let slot = Arc::new(Slot {
            value,
            read_at,
            refreshing: AtomicBool::new(false),
        });
        match self.slots.entry(key.clone()) {
            Entry::Occupied(mut there) if there.get().read_at <= read_at => {
                there.insert(slot);
            }
            Entry::Occupied(_) => {}
            Entry::Vacant(free) => {
                free.insert(slot);
            }
        }
    }
}

impl<K: Eq + Hash, V> ReadInFlight<'_, K, V> {
    fn end(self, found: Result<Option<V>>) {
        let _: std::result::Result<(), _> = self.outcome.set(Some(found));
    }
}

impl<K: Eq + Hash, V> Drop for ReadInFlight<'_, K, V> {
    fn drop(&mut self) {
        self.reads.remove(self.key);
        // Has no effect unless the read was refused or cancelled.
        let _: std::result::Result<(), _> = self.outcome.set(None);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::sync::atomic::AtomicUsize;

    use domain::error::Error;
    use tokio::sync::Semaphore;

    use super::*;

    async fn get(cache: &Cache<u8, u8>, key: u8, there: Option<u8>) -> Option<u8> {
        cache
            .get(&key, || Ok(()), async { Ok(there) })
            .await
            .unwrap()
    }

    #[tokio::test]
    async fn concurrent_callers_share_one_read() {
        let cache = Cache::new(2, Arc::new(Clock::manual(0)));
        let (gate, admitted) = (Semaphore::new(0), AtomicUsize::new(0));
        let ask = || {
            let admit = || {
                admitted.fetch_add(1, Ordering::Relaxed);
                Ok(())
            };
            cache.get(&1u8, admit, async {
                gate.acquire().await.unwrap().forget();
                Ok(Some(7u8))
            })
        };
        let all = async { tokio::join!(ask(), ask(), ask()) };
        let (found, ()) = tokio::join!(all, async { gate.add_permits(1) });
        assert_eq!(
            (found.0.unwrap(), found.1.unwrap(), found.2.unwrap()),
            (Some(7), Some(7), Some(7))
        );
        assert_eq!(admitted.load(Ordering::Relaxed), 1);
        assert!(cache.reads.is_empty());
    }

    #[tokio::test]
    async fn refused_caller_does_not_block_others_and_cached_key_needs_no_admission() {
        let clock = Arc::new(Clock::manual(0));
        let cache = Cache::new(2, Arc::clone(&clock));
        let refuse = || Err(Error::rate_limited("unauthenticated_per_ip", 1));
        let (refused, found) = tokio::join!(
            cache.get(&1u8, refuse, async { Ok(Some(7u8)) }),
            cache.get(&1, || Ok(()), async { Ok(Some(7)) })
        );
        assert!(
            refused.is_err() || refused.unwrap() == Some(7),
            "another read it meanwhile"
        );
        assert_eq!(found.unwrap(), Some(7));
        clock.advance(STALE * 100);
        assert_eq!(
            cache.get(&1, refuse, async { Ok(Some(8)) }).await.unwrap(),
            Some(8)
        );
        assert!(cache.get(&2, refuse, async { Ok(Some(8)) }).await.is_err());
        assert!(cache.reads.is_empty());
    }

    #[tokio::test]
    async fn value_is_used_for_at_most_two_seconds() {
        let clock = Arc::new(Clock::manual(0));
        let cache = Cache::new(2, Arc::clone(&clock));
        assert_eq!(get(&cache, 1, Some(1)).await, Some(1));
        clock.advance(FRESH - Duration::from_millis(1));
        assert_eq!(get(&cache, 1, None).await, Some(1), "fresh");
        clock.advance(Duration::from_millis(1));
        assert!(
            cache
                .get(&1, || Ok(()), async { Err(Error::busy()) })
                .await
                .is_err(),
            "one caller reads again"
        );
        assert_eq!(
            get(&cache, 1, None).await,
            Some(1),
            "the others use the cached value"
        );
        clock.advance(STALE - FRESH);
        assert_eq!(get(&cache, 1, None).await, None, "the value is stale");
        assert_eq!(get(&cache, 1, None).await, None);
    }

    #[tokio::test]
    async fn missing_value_is_not_cached() {
        let cache = Cache::new(2, Arc::new(Clock::manual(0)));
        assert_eq!(get(&cache, 1, None).await, None);
        assert_eq!(get(&cache, 1, Some(5)).await, Some(5));
    }

    #[tokio::test]
    async fn cache_is_bounded() {
        let clock = Arc::new(Clock::manual(0));
        let cache = Cache::new(2, Arc::clone(&clock));
        for key in 0..9 {
            assert_eq!(get(&cache, key, Some(key)).await, Some(key));
        }
        assert_eq!(cache.slots.len(), 2);
        clock.advance(STALE);
        assert_eq!(get(&cache, 9, Some(9)).await, Some(9));
        assert_eq!(cache.slots.len(), 1, "stale values are removed");
    }
}
