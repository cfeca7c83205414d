//! Limits how many sessions of a node ask the store at once about subscriptions outside of requests
//! that many sessions lose or fail to begin in the same moment: a channel with ten thousand
//! subscribers is deleted, the store was away, or the bus lost its connection.

use std::{sync::Arc, time::Duration};

use chaos_redis::jittered;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Maximum number of sessions that ask at once.
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
    /// Returns the permit to ask, held while the session asks.
    ///
    /// # Errors
    /// All permits are taken: the session tries again after this pause, which is jittered.
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
