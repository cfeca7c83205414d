//! Limits the number of sessions of a node that read the store at the same time for subscriptions
//! outside of requests. Many sessions need that at once when a channel with ten thousand
//! subscribers is deleted, after an outage of the store, or when the bus has lost its connection.

use std::{sync::Arc, time::Duration};

use chaos_redis::jittered;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Maximum number of concurrent sessions.
const SESSIONS_AT_ONCE: usize = 16;

/// Maximum pause of a session that finds all permits taken.
const MAX_PAUSE: Duration = Duration::from_secs(2);

/// The permits of a node's sessions.
#[derive(Debug)]
pub(super) struct StepLimiter(Arc<Semaphore>);

impl Default for StepLimiter {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(SESSIONS_AT_ONCE)))
    }
}

impl StepLimiter {
    /// Returns a permit, to be held while the session reads the store.
    ///
    /// # Errors
    /// Returns a jittered pause if all permits are taken. The session retries after it.
    pub(super) fn try_acquire(&self) -> Result<OwnedSemaphorePermit, Duration> {
        Arc::clone(&self.0)
            .try_acquire_owned()
            .map_err(|_| jittered(MAX_PAUSE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_ask_a_few_at_a_time() {
        let limiter = StepLimiter::default();
        let (mut permits, mut pauses) = (Vec::new(), Vec::new());
        for _ in 0..10_000 {
            match limiter.try_acquire() {
                Ok(permit) => permits.push(permit),
                Err(pause) => pauses.push(pause),
            }
        }
        assert_eq!(permits.len(), SESSIONS_AT_ONCE);
        assert!(
            pauses
                .iter()
                .all(|pause| (MAX_PAUSE / 2..=MAX_PAUSE).contains(pause))
        );
        permits.pop();
        assert!(limiter.try_acquire().is_ok());
    }
}
