//! The schedule of a drain: when each session of a node that stops is closed.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// Maximum interval between two sessions. It is shorter if there are many.
const MAX_INTERVAL: Duration = Duration::from_millis(5);

/// A drain of the sessions of a node, at even intervals.
#[derive(Debug)]
pub struct DrainSchedule {
    begins_at: Instant,
    duration: Duration,
    sessions: u32,
}

/// The place of a session in a drain.
#[derive(Debug, Clone)]
pub struct Drain {
    schedule: Arc<DrainSchedule>,
    index: u32,
}

impl DrainSchedule {
    /// Schedules the end of `sessions` sessions within `window`.
    pub fn new(sessions: usize, window: Duration, begins_at: Instant) -> Arc<Self> {
        let sessions = sessions.try_into().unwrap_or(u32::MAX);
        Arc::new(Self {
            begins_at,
            duration: MAX_INTERVAL.saturating_mul(sessions).min(window),
            sessions,
        })
    }

    /// Returns the place of a session; the last one if there are fewer.
    pub fn place(self: &Arc<Self>, index: usize) -> Drain {
        Drain {
            schedule: Arc::clone(self),
            index: index.try_into().unwrap_or(u32::MAX),
        }
    }

    /// Returns when the last session is closed, at the latest.
    pub fn ends_at(&self) -> Instant {
        self.begins_at + self.duration
    }
}

impl Drain {
    /// Returns when `server.draining` is sent.
    pub(super) fn begins_at(&self) -> Instant {
        self.schedule.begins_at
    }

    /// Returns when the session is closed.
    pub(super) fn closes_at(&self) -> Instant {
        let schedule = &self.schedule;
        let interval = schedule
            .duration
            .checked_div(schedule.sessions)
            .unwrap_or_default();
        schedule.begins_at + interval.saturating_mul(self.index).min(schedule.duration)
    }

    /// Returns the time within which clients reconnect, in milliseconds.
    pub(super) fn reconnect_after_ms(&self) -> u64 {
        self.schedule.duration.as_millis() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(5);

    /// Returns when each session is closed, since the begin of the drain.
    fn ends(count: usize, window: Duration) -> Vec<Duration> {
        let start = Instant::now();
        let schedule = DrainSchedule::new(count, window, start);
        (0..count)
            .map(|index| schedule.place(index).closes_at() - start)
            .collect()
    }

    #[test]
    fn many_sessions_fill_the_window_evenly() {
        let ends = ends(100_000, WINDOW);
        assert!(ends.is_sorted());
        assert!(ends[99_999] > WINDOW * 9 / 10 && ends[99_999] <= WINDOW);
        let together = |end: &Duration| ends.iter().filter(|other| *other == end).count();
        assert!(ends.iter().step_by(9_999).all(|end| together(end) == 1));
    }

    #[test]
    fn few_sessions_are_closed_at_the_maximum_interval() {
        let expected: Vec<_> = (0..10).map(|index| MAX_INTERVAL * index).collect();
        assert_eq!(ends(10, WINDOW), expected);
        assert_eq!(ends(3, Duration::ZERO), [Duration::ZERO; 3]);
    }

    #[test]
    fn clients_reconnect_while_the_drain_lasts() {
        let hint = |count, window| {
            DrainSchedule::new(count, window, Instant::now())
                .place(0)
                .reconnect_after_ms()
        };
        assert_eq!(hint(0, WINDOW), 0);
        assert_eq!(hint(1, WINDOW), 5);
        assert_eq!(hint(100, WINDOW), 500);
        assert_eq!(hint(100_000, WINDOW), 5_000);
        assert_eq!(hint(100, Duration::ZERO), 0);
    }

    #[test]
    fn session_that_opens_during_a_drain_is_closed_at_its_end() {
        let schedule = DrainSchedule::new(10, WINDOW, Instant::now());
        assert_eq!(schedule.place(usize::MAX).closes_at(), schedule.ends_at());
        let empty = DrainSchedule::new(0, WINDOW, Instant::now());
        assert_eq!(empty.place(usize::MAX).closes_at(), empty.ends_at());
    }
}
