//! Waits between attempts.

use std::time::Duration;

/// Waits between attempts: a random time up to a bound that doubles ("full jitter"), so that those who failed together do
/// not come again together.
#[derive(Debug, Clone, Copy)]
pub struct Backoff {
    first: Duration,
    most: Duration,
    attempts: u32,
}

impl Backoff {
    /// The first wait is at most `first`, and none is longer than `most`.
    pub const fn new(first: Duration, most: Duration) -> Self {
        Self {
            first,
            most,
            attempts: 0,
        }
    }

    /// Up to how long the next wait may be.
    pub fn bound(&self) -> Duration {
        self.first
            .saturating_mul(1 << self.attempts.min(20))
            .min(self.most)
    }

    /// The next wait. `random` is drawn from 0 up to 1.
    pub fn wait(&mut self, random: f64) -> Duration {
        let wait = self.bound().mul_f64(random.clamp(0.0, 1.0));
        self.attempts = self.attempts.saturating_add(1);
        wait
    }

    /// Whether there was no wait since it began anew.
    pub fn is_fresh(&self) -> bool {
        self.attempts == 0
    }

    /// Begins anew: it went well.
    pub fn reset(&mut self) {
        self.attempts = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_doubles_up_to_the_most_and_the_wait_is_any_part_of_it() {
        let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(30));
        let mut longest = Vec::new();
        for _ in 0..9 {
            assert_eq!(backoff.clone().wait(0.0), Duration::ZERO);
            longest.push(backoff.wait(1.0).as_millis());
        }
        assert_eq!(
            longest,
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
