//! How long an HTTP connection may take for what it does: deadlines as a state machine without I/O.

use tokio::time::{Duration, Instant};

/// From the first byte of a request to the end of its headers; also from the connection to its
/// first byte.
const HEADERS: Duration = Duration::from_secs(5);
/// How long the peer may take no bytes while some wait for it.
const STALLED_WRITE: Duration = Duration::from_secs(10);

/// What an HTTP connection is doing.
#[derive(Debug, Clone, Copy)]
pub(super) struct Activity {
    phase: Phase,
    /// Since when bytes wait for the peer.
    stalled: Option<Instant>,
    /// How long a connection may rest between two requests.
    idle: Duration,
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    /// It waits for the first byte of a request.
    Idle { until: Instant },
    /// Its line and headers arrive.
    Head { until: Instant },
    /// A request is served; its body has a deadline where it is read.
    Serving,
}

/// Which deadline passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Overdue {
    Idle,
    Headers,
    Write,
}

impl Activity {
    /// A connection that was accepted at `now`. Its first byte is awaited no longer than headers
    /// are.
    pub(super) fn new(idle: Duration, now: Instant) -> Self {
        Self {
            phase: Phase::Idle {
                until: now + HEADERS.min(idle),
            },
            stalled: None,
            idle,
        }
    }

    /// Bytes were read.
    pub(super) fn read(&mut self, now: Instant) {
        if let Phase::Idle { .. } = self.phase {
            self.phase = Phase::Head {
                until: now + HEADERS,
            };
        }
    }

    /// A request's headers are complete.
    pub(super) fn request(&mut self) {
        self.phase = Phase::Serving;
    }

    /// The response to it was made; it may not be written yet.
    pub(super) fn responded(&mut self, now: Instant) {
        self.phase = Phase::Idle {
            until: now + self.idle,
        };
    }

    /// The peer took bytes, or there are none for it.
    pub(super) fn written(&mut self) {
        self.stalled = None;
    }

    /// Bytes wait for the peer.
    pub(super) fn stalled(&mut self, now: Instant) {
        self.stalled.get_or_insert(now);
    }

    /// The next deadline, and what it means.
    pub(super) fn deadline(&self) -> Option<(Instant, Overdue)> {
        let phase = match self.phase {
            Phase::Idle { until } => Some((until, Overdue::Idle)),
            Phase::Head { until } => Some((until, Overdue::Headers)),
            Phase::Serving => None,
        };
        let write = self
            .stalled
            .map(|since| (since + STALLED_WRITE, Overdue::Write));
        phase.into_iter().chain(write).min_by_key(|(at, _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Duration = Duration::from_secs(75);

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn headers_have_five_seconds_from_their_first_byte_and_idle_connections_their_own_time() {
        let start = Instant::now();
        let mut activity = Activity::new(IDLE, start);
        assert_eq!(
            activity.deadline(),
            Some((start + seconds(5), Overdue::Idle))
        );
        activity.read(start + seconds(1));
        activity.read(start + seconds(4));
        assert_eq!(
            activity.deadline(),
            Some((start + seconds(6), Overdue::Headers)),
            "dripping gains nothing"
        );
        activity.request();
        activity.read(start + seconds(7));
        assert_eq!(activity.deadline(), None);
        activity.responded(start + seconds(8));
        assert_eq!(
            activity.deadline(),
            Some((start + seconds(83), Overdue::Idle))
        );
        activity.read(start + seconds(60));
        assert_eq!(
            activity.deadline(),
            Some((start + seconds(65), Overdue::Headers))
        );
    }

    #[test]
    fn a_peer_that_takes_nothing_has_ten_seconds_whatever_else_happens() {
        let start = Instant::now();
        let mut activity = Activity::new(IDLE, start);
        activity.request();
        activity.stalled(start + seconds(1));
        activity.stalled(start + seconds(2));
        assert_eq!(
            activity.deadline(),
            Some((start + seconds(11), Overdue::Write))
        );
        activity.responded(start + seconds(3));
        activity.request();
        assert_eq!(
            activity.deadline(),
            Some((start + seconds(11), Overdue::Write))
        );
        activity.written();
        assert_eq!(activity.deadline(), None);
    }
}
