//! The primitives that the hub and the outbox are built of: the usual ones, or under `--cfg shuttle` those of a model checker,
//! which decides at each of them who goes on, and so tries many interleavings of the same code (`deploy/test.sh races`).
//!
//! Owned here: whatever may block, or that threads meet at: locks, atomics, the map of topics, tasks and pauses. Left out: `Notify`, `Semaphore` and
//! `AtomicWaker`, which are the same in both: they are one step to the checker, for whoever made them has checked them.

#[cfg(not(shuttle))]
mod real {
    pub(crate) use std::sync::atomic;

    use std::sync::Arc;
    use std::time::Duration;

    use dashmap::DashMap;

    use crate::Topic;

    pub(crate) use parking_lot::{Mutex, MutexGuard};
    pub(crate) use tokio::runtime::Handle;
    pub(crate) use tokio::task::yield_now;
    pub(crate) use tokio::time::{sleep, timeout};

    /// What there is for each topic. No lock of it is held beyond a call.
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

        pub(crate) fn remove(&self, topic: &Topic) {
            self.0.remove(topic);
        }

        pub(crate) fn all(&self) -> Vec<Arc<T>> {
            self.0.iter().map(|entry| Arc::clone(&entry)).collect()
        }
    }

    /// Whether `since` is so long ago.
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

    /// Locks as `parking_lot`'s does: without poisoning.
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

    /// Where tasks are spawned.
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

    /// Time does not pass: every pause is over as soon as the checker comes back to it.
    pub(crate) async fn sleep(_pause: Duration) {
        yield_now().await;
    }

    /// Never ends early: a check must not rest upon a time-out.
    pub(crate) async fn timeout<F: Future>(_wait: Duration, task: F) -> Result<F::Output, ()> {
        Ok(task.await)
    }

    /// As the map of every day, with all topics behind one lock.
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

        pub(crate) fn remove(&self, topic: &Topic) {
            self.0.lock().remove(topic);
        }

        pub(crate) fn all(&self) -> Vec<Arc<T>> {
            self.0.lock().values().cloned().collect()
        }
    }

    /// Tries many interleavings of a story, half of them at random, half with few but far-reaching changes of who goes on (PCT). What fails is
    /// printed as a schedule, which `shuttle::replay` repeats. `CHAOS_RACES` says how many; default 700 of each.
    #[cfg(test)]
    pub(crate) fn races<F: Future<Output = ()>>(story: impl Fn() -> F + Send + Sync + 'static) {
        use shuttle::scheduler::{PctScheduler, RandomScheduler};
        let rounds = std::env::var("CHAOS_RACES").map_or(700, |rounds| {
            rounds.parse().expect("CHAOS_RACES is a number")
        });
        let story = Arc::new(move || shuttle::future::block_on(story()));
        let mut config = shuttle::Config::new();
        // What waits for somebody who never comes ends here too, where another task goes round and round.
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
