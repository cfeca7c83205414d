//! The rate limit of a session's requests, with a burst of twice the rate. A client that ignores
//! refusals for too long is disconnected.

use std::time::{Duration, Instant};

use crate::limit::{Bucket, Rate};

/// Maximum period of continuous refusals.
const MAX_REFUSAL_PERIOD: Duration = Duration::from_secs(10);
/// Time without a refusal after which the period ends.
const REFUSAL_RESET: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    rate: Rate,
    bucket: Bucket,
    begun: Instant,
    /// Begin of the current refusal period, and the last refusal.
    refused: Option<(Instant, Instant)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Paced {
    Served,
    Refused {
        retry_after_ms: u64,
    },
    /// The client has exceeded the rate for too long.
    Exceeded,
}

impl Pace {
    /// 0 means no limit.
    pub(super) fn new(per_second: u64, now: Instant) -> Self {
        Self {
            rate: Rate::per_second(per_second),
            bucket: Bucket::default(),
            begun: now,
            refused: None,
        }
    }

    pub(super) fn request(&mut self, now: Instant) -> Paced {
        let Err(retry_after_ms) = self
            .bucket
            .take(now.saturating_duration_since(self.begun), self.rate)
        else {
            return Paced::Served;
        };
        let began = match self.refused {
            Some((began, last)) if now.saturating_duration_since(last) < REFUSAL_RESET => began,
            _ => now,
        };
        self.refused = Some((began, now));
        if now.saturating_duration_since(began) >= MAX_REFUSAL_PERIOD {
            return Paced::Exceeded;
        }
        Paced::Refused { retry_after_ms }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn burst_of_twice_the_rate_is_served_and_then_the_rate() {
        let start = Instant::now();
        let mut pace = Pace::new(50, start);
        let served = |pace: &mut Pace, now| {
            (0..1000)
                .take_while(|_| pace.request(now) == Paced::Served)
                .count()
        };
        assert_eq!(served(&mut pace, start), 100);
        assert_eq!(pace.request(start), Paced::Refused { retry_after_ms: 20 });
        assert_eq!(served(&mut pace, start + Duration::from_secs(1)), 50);
    }

    #[test]
    fn ten_seconds_of_refusals_exceed_the_period() {
        let start = Instant::now();
        let mut pace = Pace::new(10, start);
        let mut last = Paced::Served;
        let mut tenths = 0;
        while last != Paced::Exceeded && tenths < 1000 {
            let now = start + Duration::from_millis(100 * tenths);
            for _ in 0..5 {
                last = pace.request(now);
            }
            tenths += 1;
        }
        assert!((100..110).contains(&tenths), "{tenths}");
    }

    #[test]
    fn pause_ends_the_refusal_period() {
        let start = Instant::now();
        let mut pace = Pace::new(1, start);
        for second in 0..60 {
            let now = start + Duration::from_secs(2 * second);
            while pace.request(now) == Paced::Served {}
            assert_ne!(pace.request(now), Paced::Exceeded);
        }
    }
}
