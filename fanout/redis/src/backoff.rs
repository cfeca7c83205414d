//! Pauses between attempts.

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    time::Duration,
};

/// Returns a random duration between half of `full` and `full`, so that clients that lost their
/// connections together do not reconnect together.
pub fn jittered(full: Duration) -> Duration {
    let random = RandomState::new().build_hasher().finish();
    full - (full / 2).mul_f64(random as f64 / u64::MAX as f64)
}

/// Pauses that double up to a maximum.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    initial: Duration,
    max: Duration,
    next: Duration,
}

impl Backoff {
    pub(crate) fn new(initial: Duration, max: Duration) -> Self {
        Self {
            initial,
            max,
            next: initial,
        }
    }

    /// Returns the next pause before jitter.
    pub(crate) fn peek(&self) -> Duration {
        self.next
    }

    /// Returns the next pause, jittered.
    pub(crate) fn advance(&mut self) -> Duration {
        let pause = jittered(self.next);
        self.next = (self.next * 2).min(self.max);
        pause
    }

    pub(crate) fn reset(&mut self) {
        self.next = self.initial;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn jittered_durations_differ_and_lie_between_half_and_full() {
        let full = Duration::from_secs(1);
        let pauses: BTreeSet<_> = (0..100).map(|_| jittered(full)).collect();
        assert!(
            pauses.len() > 90 && pauses.iter().all(|pause| (full / 2..=full).contains(pause)),
            "{pauses:?}"
        );
        assert!(
            pauses.iter().any(|pause| *pause < full.mul_f64(0.65))
                && pauses.iter().any(|pause| *pause > full.mul_f64(0.85))
        );
    }

    #[test]
    fn backoff_doubles_up_to_its_maximum_and_starts_over_after_a_reset() {
        let (initial, max) = (Duration::from_millis(50), Duration::from_millis(150));
        let mut backoff = Backoff::new(initial, max);
        let mut pauses = Vec::new();
        for _ in 0..4 {
            pauses.push(backoff.peek());
            assert!(backoff.advance() <= *pauses.last().expect("just pushed"));
        }
        assert_eq!(pauses, [initial, initial * 2, max, max]);
        backoff.reset();
        assert_eq!(backoff.peek(), initial);
    }
}
