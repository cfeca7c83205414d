//! Detects dead peers: a ping after a silence, and the end after two unanswered pings.

use std::time::{Duration, Instant};

const MAX_UNANSWERED_PINGS: u8 = 2;

#[derive(Debug, Clone, Copy)]
pub(super) struct Heartbeat {
    /// In milliseconds. Shorter than a [`Duration`], since each idle session has one.
    interval_ms: u32,
    next: Instant,
    unanswered: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Beat {
    Idle,
    Ping,
    Lost,
}

impl Heartbeat {
    pub(super) fn new(interval: Duration, now: Instant) -> Self {
        Self {
            interval_ms: interval.as_millis().try_into().unwrap_or(u32::MAX),
            next: now + interval,
            unanswered: 0,
        }
    }

    fn interval(&self) -> Duration {
        Duration::from_millis(self.interval_ms.into())
    }

    /// Records an inbound frame of any kind.
    pub(super) fn received(&mut self, now: Instant) {
        self.next = now + self.interval();
        self.unanswered = 0;
    }

    pub(super) fn tick(&mut self, now: Instant) -> Beat {
        if now < self.next {
            return Beat::Idle;
        }
        if self.unanswered == MAX_UNANSWERED_PINGS {
            return Beat::Lost;
        }
        self.unanswered += 1;
        self.next = now + self.interval();
        Beat::Ping
    }

    pub(super) fn due(&self) -> Instant {
        self.next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_unanswered_pings_end_the_connection_and_any_frame_resets_them() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut heartbeat = Heartbeat::new(Duration::from_secs(25), start);
        assert_eq!(heartbeat.tick(at(24)), Beat::Idle);
        assert_eq!(heartbeat.tick(at(25)), Beat::Ping);
        heartbeat.received(at(30));
        assert_eq!(heartbeat.tick(at(54)), Beat::Idle);
        assert_eq!(heartbeat.tick(at(55)), Beat::Ping);
        assert_eq!(heartbeat.tick(at(80)), Beat::Ping);
        assert_eq!(heartbeat.tick(at(104)), Beat::Idle);
        assert_eq!(heartbeat.tick(at(105)), Beat::Lost);
    }
}
