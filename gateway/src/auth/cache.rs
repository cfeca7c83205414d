//! What was read of keys, remembered for a moment: so briefly that a revocation holds everywhere within seconds.

use std::{
    hash::Hash,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use dashmap::{DashMap, Entry};

use crate::service::clock::Clock;

/// After this, one caller reads anew while the others go on with what is there.
pub const FRESH: Duration = Duration::from_secs(1);
/// After this, nobody believes it any more.
pub const STALE: Duration = Duration::from_secs(2);

/// A bounded map of what was found, and when. What was not found, and errors, are never remembered.
#[derive(Debug)]
pub(crate) struct Cache<K: Eq + Hash, V> {
    slots: DashMap<K, Arc<Slot<V>>>,
    capacity: usize,
    clock: Arc<Clock>,
}

#[derive(Debug)]
struct Slot<V> {
    value: V,
    /// When the reading began.
    read_at: Duration,
    /// Somebody reads anew. Never reset: what is read makes a new slot, and a reading that fails leaves this one to age.
    refreshing: AtomicBool,
}

impl<K: Eq + Hash + Clone, V: Clone> Cache<K, V> {
    pub(crate) fn new(capacity: usize, clock: Arc<Clock>) -> Self {
        Self {
            slots: DashMap::new(),
            capacity,
            clock,
        }
    }

    /// What is remembered, or else what `read` finds.
    pub(crate) async fn get<E>(
        &self,
        key: &K,
        read: impl Future<Output = Result<Option<V>, E>>,
    ) -> Result<Option<V>, E> {
        let began = self.clock.elapsed();
        let slot = self.slots.get(key).map(|slot| Arc::clone(&slot));
        if let Some(slot) = slot {
            let age = began.saturating_sub(slot.read_at);
            if age < FRESH || (age < STALE && slot.refreshing.swap(true, Ordering::Relaxed)) {
                return Ok(Some(slot.value.clone()));
            }
        }
        let found = read.await?;
        match &found {
            Some(value) => self.remember(key, value.clone(), began),
            None => {
                self.slots.remove_if(key, |_, slot| slot.read_at <= began);
            }
        }
        Ok(found)
    }

    fn remember(&self, key: &K, value: V, read_at: Duration) {
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

#[cfg(test)]
mod tests {
    use super::*;

    async fn get(cache: &Cache<u8, u8>, key: u8, there: Option<u8>) -> Option<u8> {
        cache
            .get(&key, async { Ok::<_, ()>(there) })
            .await
            .unwrap_or_default()
    }

    #[tokio::test]
    async fn what_was_found_is_believed_for_two_seconds_at_most() {
        let clock = Arc::new(Clock::manual(0));
        let cache = Cache::new(2, Arc::clone(&clock));
        assert_eq!(get(&cache, 1, Some(1)).await, Some(1));
        clock.advance(FRESH - Duration::from_millis(1));
        assert_eq!(get(&cache, 1, None).await, Some(1), "fresh");
        clock.advance(Duration::from_millis(1));
        assert!(
            cache.get(&1, async { Err(()) }).await.is_err(),
            "one reads anew"
        );
        assert_eq!(get(&cache, 1, None).await, Some(1), "the others go on");
        clock.advance(STALE - FRESH);
        assert_eq!(
            get(&cache, 1, None).await,
            None,
            "nobody believes it any more"
        );
        assert_eq!(get(&cache, 1, None).await, None);
    }

    #[tokio::test]
    async fn what_was_not_found_is_asked_again_at_once() {
        let cache = Cache::new(2, Arc::new(Clock::manual(0)));
        assert_eq!(get(&cache, 1, None).await, None);
        assert_eq!(get(&cache, 1, Some(5)).await, Some(5));
    }

    #[tokio::test]
    async fn the_map_is_bounded() {
        let clock = Arc::new(Clock::manual(0));
        let cache = Cache::new(2, Arc::clone(&clock));
        for key in 0..9 {
            assert_eq!(get(&cache, key, Some(key)).await, Some(key));
        }
        assert_eq!(cache.slots.len(), 2);
        clock.advance(STALE);
        assert_eq!(get(&cache, 9, Some(9)).await, Some(9));
        assert_eq!(cache.slots.len(), 1, "what nobody believes makes room");
    }
}
