//! Turns by key: callers with the same key work one after the other.

use std::{collections::HashMap, hash::Hash, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::OwnedMutexGuard;

/// A fair lock for each key. A key that nobody holds or waits for takes no memory.
#[derive(Debug)]
pub struct Turns<K: Eq + Hash + Clone> {
    locks: Mutex<HashMap<K, Arc<tokio::sync::Mutex<()>>>>,
}

/// The turn at a key, until it is dropped.
#[derive(Debug)]
pub struct Turn<'a, K: Eq + Hash + Clone> {
    turns: &'a Turns<K>,
    key: K,
    guard: Option<OwnedMutexGuard<()>>,
}

impl<K: Eq + Hash + Clone> Default for Turns<K> {
    fn default() -> Self {
        Self {
            locks: Mutex::default(),
        }
    }
}

impl<K: Eq + Hash + Clone> Turns<K> {
    /// Waits for the turn, in the order of the callers. A caller that stops waiting leaves the
    /// queue.
    pub async fn take(&self, key: K) -> Turn<'_, K> {
        let lock = Arc::clone(self.locks.lock().entry(key.clone()).or_default());
        // Created first, so that the key is removed even if the caller stops waiting.
        let mut turn = Turn {
            turns: self,
            key,
            guard: None,
        };
        turn.guard = Some(lock.lock_owned().await);
        turn
    }
}

impl<K: Eq + Hash + Clone> Drop for Turn<'_, K> {
    fn drop(&mut self) {
        drop(self.guard.take());
        let mut locks = self.turns.locks.lock();
        if locks
            .get(&self.key)
            .is_some_and(|lock| Arc::strong_count(lock) == 1)
        {
            locks.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::{sleep, timeout};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn callers_of_one_key_follow_each_other_and_the_key_is_forgotten() {
        let turns = Turns::default();
        let order = Mutex::new(Vec::new());
        let work = async |key: &'static str, name: &'static str| {
            let _turn = turns.take(key).await;
            sleep(Duration::from_millis(10)).await;
            order.lock().push(name);
        };
        let impatient = async {
            assert!(
                timeout(Duration::from_millis(5), turns.take("a"))
                    .await
                    .is_err()
            )
        };
        tokio::join!(
            work("a", "first"),
            impatient,
            work("a", "second"),
            work("b", "elsewhere")
        );
        let order = order.lock();
        assert!(
            order.iter().position(|name| *name == "first")
                < order.iter().position(|name| *name == "second"),
            "{order:?}"
        );
        assert_eq!(
            order.iter().position(|name| *name == "second"),
            Some(2),
            "another key does not wait"
        );
        assert!(turns.locks.lock().is_empty());
    }
}
