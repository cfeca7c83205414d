//! Whether the other side still lives: a ping after a silence, the end after two that were not
//! answered.

use std::time::{Duration, Instant};

/// How many pings may stay unanswered.
const UNANSWERED: u8 = 2;

/// The heartbeat of a connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Heartbeat {
    interval: Duration,
    next: Instant,
    unanswered: u8,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Beat {
    Quiet,
    Ping,
    Lost,
}

impl Heartbeat {
    pub(super) fn new(interval: Duration, now: Instant) -> Self {
        Self {
            interval,
            next: now + interval,
            unanswered: 0,
        }
    }

    /// Any inbound message counts as life.
    pub(super) fn heard(&mut self, now: Instant) {
        self.next = now + self.interval;
        self.unanswered = 0;
    }

    pub(super) fn tick(&mut self, now: Instant) -> Beat {
        if now < self.next {
            return Beat::Quiet;
        }
        if self.unanswered == UNANSWERED {
            return Beat::Lost;
        }
        self.unanswered += 1;
        self.next = now + self.interval;
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
    fn two_unanswered_pings_end_it_and_any_message_saves_it() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut heartbeat = Heartbeat::new(Duration::from_secs(25), start);
        assert_eq!(heartbeat.tick(at(24)), Beat::Quiet);
        assert_eq!(heartbeat.tick(at(25)), Beat::Ping);
        heartbeat.heard(at(30));
        assert_eq!(heartbeat.tick(at(54)), Beat::Quiet);
        assert_eq!(heartbeat.tick(at(55)), Beat::Ping);
        assert_eq!(heartbeat.tick(at(80)), Beat::Ping);
        assert_eq!(heartbeat.tick(at(104)), Beat::Quiet);
        assert_eq!(heartbeat.tick(at(105)), Beat::Lost);
    }
}
