//! Synchronization primitives of the hub and the outbox: the usual ones, or under `--cfg shuttle`
//! those of a model checker, which schedules the threads at each operation and so tries many
//! interleavings of the same code (`deploy/test.sh races`).
//!
//! Owned here: everything that may block or that threads share: locks, atomics, the map of topics,
//! tasks and pauses. Left out: `Notify`, `Semaphore` and `AtomicWaker`, which are the same in both.
//! The checker treats their operations as atomic.

#[cfg(not(shuttle))]
mod real {
    pub(crate) use std::sync::atomic;

    use std::sync::Arc;
    use std::time::Duration;

    use dashmap::DashMap;

    use crate::{Topic, capacity::ShrinkIfSparse};

    pub(crate) use parking_lot::{Mutex, MutexGuard};
    pub(crate) use tokio::runtime::Handle;
    pub(crate) use tokio::task::yield_now;
    pub(crate) use tokio::time::{sleep, timeout};

    /// A concurrent map by topic. No lock is held beyond a call.
    #[derive(Debug)]
    pub(crate) struct Topics<T>(DashMap<Topic, Arc<T>>);

    impl<T> Topics<T> {
        pub(crate) fn new() -> Self {
            Self(DashMap::new())
        }

        pub(crate) fn get(&self, topic: &str) -> Option<Arc<T>> {
            self.0.get(topic).map(|value| Arc::clone(&value))
        }

        pub(crate) fn get_or_insert_with(
            &self,
            topic: &Topic,
            make: impl FnOnce() -> Arc<T>,
        ) -> Arc<T> {
            Arc::clone(&self.0.entry(Arc::clone(topic)).or_insert_with(make))
        }

        pub(crate) fn remove_all<'a>(&self, topics: impl IntoIterator<Item = &'a Topic>) {
            for topic in topics {
                self.0.remove(topic);
            }
            self.0.shrink_if_sparse();
        }

        #[cfg(test)]
        pub(crate) fn capacity(&self) -> usize {
            self.0.capacity()
        }

        pub(crate) fn all(&self) -> Vec<Arc<T>> {
            self.0.iter().map(|entry| Arc::clone(&entry)).collect()
        }
    }

    /// Returns whether at least this duration has passed since `since`.
    pub(crate) fn is_past(since: tokio::time::Instant, wait: Duration) -> bool {
        since.elapsed() >= wait
    }
}

#[cfg(shuttle)]
mod checked {
    pub(crate) use shuttle::sync::atomic;

    use std::collections::BTreeMap;
    use std::fmt;
    use std::future::Future;
    use std::sync::Arc;
    use std::time::Duration;

    use crate::Topic;

    pub(crate) use shuttle::future::yield_now;
    pub(crate) use shuttle::sync::MutexGuard;

    /// Locks without poisoning, like `parking_lot`.
    #[derive(Default)]
    pub(crate) struct Mutex<T>(shuttle::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(shuttle::sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().expect("a check ends with its first panic")
        }

        pub(crate) fn get_mut(&mut self) -> &mut T {
            self.0.get_mut().expect("a check ends with its first panic")
        }
    }

    impl<T> fmt::Debug for Mutex<T> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.debug_struct("Mutex").finish_non_exhaustive()
        }
    }

    /// A handle that spawns tasks.
    #[derive(Debug, Clone)]
    pub(crate) struct Handle;

    impl Handle {
        pub(crate) fn current() -> Self {
            Self
        }

        pub(crate) fn spawn<F: Future<Output: Send + 'static> + Send + 'static>(&self, task: F) {
            drop(shuttle::future::spawn(task));
        }
    }

    /// Time does not pass: a pause ends when the checker schedules the task again.
    pub(crate) async fn sleep(_pause: Duration) {
        yield_now().await;
    }

    /// Never times out: a check must not depend on timeouts.
    pub(crate) async fn timeout<F: Future>(_wait: Duration, task: F) -> Result<F::Output, ()> {
        Ok(task.await)
    }

    /// Like the usual map, with all topics behind one lock.
    #[derive(Debug)]
    pub(crate) struct Topics<T>(Mutex<BTreeMap<Topic, Arc<T>>>);

    impl<T> Topics<T> {
        pub(crate) fn new() -> Self {
            Self(Mutex::new(BTreeMap::new()))
        }

        pub(crate) fn get(&self, topic: &str) -> Option<Arc<T>> {
            self.0.lock().get(topic).cloned()
        }

        pub(crate) fn get_or_insert_with(
            &self,
            topic: &Topic,
            make: impl FnOnce() -> Arc<T>,
        ) -> Arc<T> {
            Arc::clone(self.0.lock().entry(Arc::clone(topic)).or_insert_with(make))
        }

        pub(crate) fn remove_all<'a>(&self, topics: impl IntoIterator<Item = &'a Topic>) {
            // One lock for each, as in the map that it stands for.
            for topic in topics {
                self.0.lock().remove(topic);
            }
        }

        pub(crate) fn all(&self) -> Vec<Arc<T>> {
            self.0.lock().values().cloned().collect()
        }
    }

    /// Runs a test under many interleavings: half of them random, half with few context switches
    /// (PCT). A failure prints a schedule that `shuttle::replay` repeats. `CHAOS_RACES` is the
    /// number of each; default 700.
    #[cfg(test)]
    pub(crate) fn races<F: Future<Output = ()>>(story: impl Fn() -> F + Send + Sync + 'static) {
        use shuttle::scheduler::{PctScheduler, RandomScheduler};
        let rounds = std::env::var("CHAOS_RACES").map_or(700, |rounds| {
            rounds.parse().expect("CHAOS_RACES is a number")
        });
        let story = Arc::new(move || shuttle::future::block_on(story()));
        let mut config = shuttle::Config::new();
        // Also ends a test in which one task waits forever while another keeps running.
        config.max_steps = shuttle::MaxSteps::FailAfter(20_000);
        let again = Arc::clone(&story);
        shuttle::Runner::new(RandomScheduler::new(rounds), config.clone()).run(move || again());
        shuttle::Runner::new(PctScheduler::new(3, rounds), config).run(move || story());
    }

    pub(crate) fn is_past(_since: tokio::time::Instant, _wait: Duration) -> bool {
        true
    }
}

#[cfg(shuttle)]
pub(crate) use checked::*;
#[cfg(not(shuttle))]
pub(crate) use real::*;
