//! A rate limit for log lines that many requests could cause.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Passes a fixed number of log lines per second and counts the suppressed ones.
#[derive(Debug)]
pub struct LogRateLimit {
    max_per_second: u32,
    second: Mutex<Second>,
}

#[derive(Debug)]
struct Second {
    began: Option<Instant>,
    passed: u32,
    suppressed: u64,
}

impl LogRateLimit {
    /// Creates a limit that passes `max_per_second` lines in each second.
    pub const fn new(max_per_second: u32) -> Self {
        Self {
            max_per_second,
            second: Mutex::new(Second {
                began: None,
                passed: 0,
                suppressed: 0,
            }),
        }
    }

    /// Returns the number of lines suppressed since the last one that passed, or `None` if this
    /// line is suppressed too.
    pub fn pass(&self, now: Instant) -> Option<u64> {
        let mut second = self.second.lock();
        if second
            .began
            .is_none_or(|began| now.duration_since(began) >= Duration::from_secs(1))
        {
            (second.began, second.passed) = (Some(now), 0);
        }
        if second.passed == self.max_per_second {
            second.suppressed += 1;
            return None;
        }
        second.passed += 1;
        Some(std::mem::take(&mut second.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn next_line_that_passes_has_the_count_of_suppressed_ones() {
        let (limit, start) = (LogRateLimit::new(2), Instant::now());
        let passed: Vec<_> = (0..5).map(|_| limit.pass(start)).collect();
        assert_eq!(passed, [Some(0), Some(0), None, None, None]);
        assert_eq!(limit.pass(start + Duration::from_millis(999)), None);
        assert_eq!(limit.pass(start + Duration::from_secs(1)), Some(4));
        assert_eq!(limit.pass(start + Duration::from_secs(1)), Some(0));
    }
}
