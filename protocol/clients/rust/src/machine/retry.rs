//! When a failed request may be sent again.

use std::time::{Duration, Instant};

use crate::Backoff;

/// When a failed request may be sent again. Due immediately until something fails.
#[derive(Debug, Clone, Copy)]
pub(super) struct RetryTimer {
    backoff: Backoff,
    not_before: Option<Instant>,
}

impl Default for RetryTimer {
    fn default() -> Self {
        Self {
            backoff: Backoff::new(Duration::from_millis(250), Duration::from_secs(10)),
            not_before: None,
        }
    }
}

impl RetryTimer {
    /// Schedules a retry after the server's hint and a backoff.
    pub(super) fn schedule(&mut self, hint: Option<Duration>, random: f64, now: Instant) {
        // The backoff is added to the hint, so that clients with the same hint do not retry at the
        // same instant.
        self.not_before = Some(now + hint.unwrap_or_default() + self.backoff.wait(random));
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.not_before.is_none_or(|at| at <= now)
    }

    pub(super) fn due(&self) -> Option<Instant> {
        self.not_before
    }
}
