//! When something may be asked again that failed.

use std::time::{Duration, Instant};

use crate::Backoff;

/// When something may be asked again: at once, as long as nothing failed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Retry {
    backoff: Backoff,
    not_before: Option<Instant>,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            backoff: Backoff::new(Duration::from_millis(250), Duration::from_secs(10)),
            not_before: None,
        }
    }
}

impl Retry {
    /// It failed: again after a back-off, and not before the server's hint.
    pub(super) fn later(&mut self, hint: Option<Duration>, random: f64, now: Instant) {
        let hint = hint.unwrap_or_default();
        // Those who were given the same hint do not come at the same instant.
        self.not_before = Some(now + hint + self.backoff.wait(random));
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.not_before.is_none_or(|at| at <= now)
    }

    pub(super) fn due(&self) -> Option<Instant> {
        self.not_before
    }
}
