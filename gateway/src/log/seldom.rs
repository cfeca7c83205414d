//! What would be logged for each of a thousand requests is logged for some of them.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Lets pass so many within a second, and counts the others.
#[derive(Debug)]
pub struct Seldom {
    most: u32,
    second: Mutex<Second>,
}

#[derive(Debug)]
struct Second {
    began: Option<Instant>,
    passed: u32,
    held_back: u64,
}

impl Seldom {
    /// `most` within a second.
    pub const fn new(most: u32) -> Self {
        Self {
            most,
            second: Mutex::new(Second {
                began: None,
                passed: 0,
                held_back: 0,
            }),
        }
    }

    /// Whether this one may pass: how many were held back since the one before.
    pub fn pass(&self, now: Instant) -> Option<u64> {
        let mut second = self.second.lock();
        if second
            .began
            .is_none_or(|began| now.duration_since(began) >= Duration::from_secs(1))
        {
            (second.began, second.passed) = (Some(now), 0);
        }
        if second.passed == self.most {
            second.held_back += 1;
            return None;
        }
        second.passed += 1;
        Some(std::mem::take(&mut second.held_back))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_pass_within_a_second_and_the_next_tells_of_the_others() {
        let (seldom, start) = (Seldom::new(2), Instant::now());
        let passed: Vec<_> = (0..5).map(|_| seldom.pass(start)).collect();
        assert_eq!(passed, [Some(0), Some(0), None, None, None]);
        assert_eq!(seldom.pass(start + Duration::from_millis(999)), None);
        assert_eq!(seldom.pass(start + Duration::from_secs(1)), Some(4));
        assert_eq!(seldom.pass(start + Duration::from_secs(1)), Some(0));
    }
}
