//! Exponential backoff with full jitter.

use std::time::Duration;

/// Delays between attempts: each is random up to a bound that doubles ("full jitter"), so that
/// clients that failed together do not retry together.
#[derive(Debug, Clone, Copy)]
pub struct Backoff {
    first: Duration,
    max: Duration,
    attempts: u32,
}

impl Backoff {
    /// Creates a backoff whose bound starts at `first` and grows up to `max`.
    pub const fn new(first: Duration, max: Duration) -> Self {
        Self {
            first,
            max,
            attempts: 0,
        }
    }

    /// Upper bound of the next delay.
    pub fn bound(&self) -> Duration {
        self.first
            .saturating_mul(1 << self.attempts.min(20))
            .min(self.max)
    }

    /// Returns the next delay. `random` is between 0 and 1.
    pub fn wait(&mut self, random: f64) -> Duration {
        let wait = self.bound().mul_f64(random.clamp(0.0, 1.0));
        self.attempts = self.attempts.saturating_add(1);
        wait
    }

    /// Whether no delay was taken since the last reset.
    pub fn is_fresh(&self) -> bool {
        self.attempts == 0
    }

    /// Starts over, after a success.
    pub fn reset(&mut self) {
        self.attempts = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bound_doubles_up_to_the_maximum_and_delay_is_any_part_of_it() {
        let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(30));
        let mut bounds = Vec::new();
        for _ in 0..9 {
            assert_eq!(backoff.clone().wait(0.0), Duration::ZERO);
            bounds.push(backoff.wait(1.0).as_millis());
        }
        assert_eq!(
            bounds,
            [500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000]
        );
        for _ in 0..100 {
            backoff.wait(0.5);
        }
        assert_eq!(backoff.bound(), Duration::from_secs(30));
        backoff.reset();
        assert_eq!(
            (backoff.is_fresh(), backoff.bound()),
            (true, Duration::from_millis(500))
        );
    }
}
