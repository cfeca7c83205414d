//! A token bucket of 8 bytes.

use std::time::Duration;

/// The rate of a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Tokens per second; 0 means no limit.
    pub per_second: u64,
    /// Capacity; at least 1.
    pub burst: u64,
}

impl Rate {
    /// Creates a rate with a burst of twice the tokens per second.
    pub fn per_second(per_second: u64) -> Self {
        Self {
            per_second,
            burst: per_second.saturating_mul(2).max(1),
        }
    }

    /// Returns the nanoseconds per token.
    fn interval(self) -> u64 {
        (1_000_000_000 / self.per_second.max(1)).max(1)
    }
}

/// A token bucket: full at first, one token less with each [`take`](Self::take), and refilled over
/// time.
///
/// Time is a [`Duration`] since any fixed instant. If the rate changes between calls, the new one
/// applies from then on.
#[derive(Debug, Clone, Copy, Default)]
pub struct Bucket {
    /// Time at which it is full, in nanoseconds (the state of the generic cell rate
    /// algorithm).
    full_at: u64,
}

impl Bucket {
    /// Takes a token, or returns the milliseconds until there is one (at least 1).
    pub fn take(&mut self, now: Duration, rate: Rate) -> Result<(), u64> {
        self.peek(now, rate)?;
        if rate.per_second != 0 {
            self.full_at = self.full_at.max(nanos(now)).saturating_add(rate.interval());
        }
        Ok(())
    }

    /// Takes tokens and fractions that were used already. The bucket may get into debt, which later
    /// tokens pay.
    pub fn charge(&mut self, tokens: f64, now: Duration, rate: Rate) {
        if rate.per_second != 0 && tokens > 0.0 {
            let taken = (rate.interval() as f64 * tokens) as u64;
            self.full_at = self.full_at.max(nanos(now)).saturating_add(taken);
        }
    }

    /// Gives back a token.
    pub fn give_back(&mut self, rate: Rate) {
        if rate.per_second != 0 {
            self.full_at = self.full_at.saturating_sub(rate.interval());
        }
    }

    /// Checks whether there is a token, without taking it.
    pub fn peek(&self, now: Duration, rate: Rate) -> Result<(), u64> {
        if rate.per_second == 0 {
            return Ok(());
        }
        let filling = self.full_at.saturating_sub(nanos(now));
        match filling.saturating_sub(rate.interval().saturating_mul(rate.burst.saturating_sub(1))) {
            0 => Ok(()),
            wait => Err(wait.div_ceil(1_000_000)),
        }
    }

    /// Returns the time at which it is full, in nanoseconds.
    pub(super) fn full_at(&self) -> u64 {
        self.full_at
    }

    /// Returns whether it is full, and so equals a new one.
    pub fn is_full(&self, now: Duration) -> bool {
        self.full_at <= nanos(now)
    }
}

fn nanos(now: Duration) -> u64 {
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    #[test]
    fn bucket_has_8_bytes() {
        assert_eq!(size_of::<Bucket>(), 8);
    }

    #[test]
    fn burst_is_followed_by_the_rate_and_exact_waits() {
        let rate = Rate::per_second(50);
        let mut bucket = Bucket::default();
        for _ in 0..100 {
            assert_eq!(bucket.take(MS(5000), rate), Ok(()));
        }
        assert_eq!(bucket.take(MS(5000), rate), Err(20));
        assert_eq!(bucket.take(MS(5019), rate), Err(1));
        assert_eq!(bucket.take(MS(5020), rate), Ok(()));
        assert_eq!(bucket.take(MS(5020), rate), Err(20));
        assert!(!bucket.is_full(MS(5020)));
        assert!(bucket.is_full(MS(7020)));
    }

    #[test]
    fn looking_takes_nothing_and_a_refusal_costs_nothing() {
        let rate = Rate {
            per_second: 1,
            burst: 1,
        };
        let mut bucket = Bucket::default();
        for _ in 0..3 {
            assert_eq!(bucket.peek(MS(0), rate), Ok(()));
        }
        assert_eq!(bucket.take(MS(0), rate), Ok(()));
        for _ in 0..3 {
            assert_eq!(bucket.take(MS(500), rate), Err(500));
        }
        assert_eq!(bucket.take(MS(1000), rate), Ok(()));
    }

    #[test]
    fn charge_may_leave_a_debt_that_the_rate_pays() {
        let rate = Rate::per_second(10);
        let mut bucket = Bucket::default();
        assert_eq!(bucket.take(MS(0), rate), Ok(()));
        bucket.charge(39.0, MS(0), rate);
        assert_eq!(bucket.take(MS(0), rate), Err(2100), "40 of 20 are used");
        assert_eq!(bucket.take(MS(2100), rate), Ok(()));
        bucket.charge(100.0, MS(2100), Rate::per_second(0));
        assert_eq!(bucket.take(MS(2200), rate), Ok(()));
    }

    #[test]
    fn charged_fractions_add_up() {
        let rate = Rate::per_second(10);
        let mut bucket = Bucket::default();
        for _ in 0..40 {
            bucket.charge(0.5, MS(0), rate);
        }
        assert_eq!(bucket.take(MS(0), rate), Err(100), "20 of 20 are used");
    }

    #[test]
    fn over_an_hour_the_rate_is_kept() {
        let rate = Rate {
            per_second: 7,
            burst: 1,
        };
        let mut bucket = Bucket::default();
        let taken = (0..3_600_000)
            .step_by(10)
            .filter(|at| bucket.take(MS(*at), rate).is_ok())
            .count();
        // With a try every 10 ms, up to 10 ms of each 143 are lost.
        assert!(
            (7 * 3600 * 93 / 100..=7 * 3600 + 1).contains(&taken),
            "{taken}"
        );
    }

    #[test]
    fn zero_is_no_limit() {
        let mut bucket = Bucket::default();
        assert!((0..10_000).all(|_| bucket.take(MS(0), Rate::per_second(0)).is_ok()));
    }
}
