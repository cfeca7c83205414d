//! How fast a session may ask: so many requests per second, a burst of twice that, and an end to
//! those who do not listen.

use std::time::{Duration, Instant};

use crate::limit::{Bucket, Rate};

/// How long somebody may go on being refused.
const PATIENCE: Duration = Duration::from_secs(10);
/// After how long without a refusal all is forgiven.
const FORGIVENESS: Duration = Duration::from_secs(1);

/// The pace of a session.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    rate: Rate,
    bucket: Bucket,
    begun: Instant,
    /// When refusals began, and the last one.
    refused: Option<(Instant, Instant)>,
}

/// Whether a request is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Paced {
    Served,
    Refused { retry_after_ms: u64 },
    TooLong,
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
            Some((began, last)) if now.saturating_duration_since(last) < FORGIVENESS => began,
            _ => now,
        };
        self.refused = Some((began, now));
        if now.saturating_duration_since(began) >= PATIENCE {
            return Paced::TooLong;
        }
        Paced::Refused { retry_after_ms }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_of_twice_the_rate_is_served_and_then_the_rate() {
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
    fn going_on_for_ten_seconds_ends_it() {
        let start = Instant::now();
        let mut pace = Pace::new(10, start);
        let mut last = Paced::Served;
        let mut tenths = 0;
        while last != Paced::TooLong && tenths < 1000 {
            let now = start + Duration::from_millis(100 * tenths);
            for _ in 0..5 {
                last = pace.request(now);
            }
            tenths += 1;
        }
        assert!((100..110).contains(&tenths), "{tenths}");
    }

    #[test]
    fn whoever_slows_down_is_forgiven() {
        let start = Instant::now();
        let mut pace = Pace::new(1, start);
        for second in 0..60 {
            let now = start + Duration::from_secs(2 * second);
            while pace.request(now) == Paced::Served {}
            assert_ne!(pace.request(now), Paced::TooLong);
        }
    }
}
