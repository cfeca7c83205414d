//! The deadlines of an HTTP connection, as a state machine without I/O.

use tokio::time::{Duration, Instant};

/// Maximum time from the first byte of a request to the end of its headers, and from the connection
/// to its first byte.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum time without progress while bytes wait to be written.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// The state of an HTTP connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Activity {
    phase: Phase,
    /// When bytes began to wait to be written.
    stalled: Option<Instant>,
    /// Idle timeout between two requests.
    idle: Duration,
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    /// Waiting for the first byte of a request.
    Idle { until: Instant },
    /// Receiving the request line and headers.
    Head { until: Instant },
    /// Serving a request. The reader of the body has its own deadline.
    Serving,
}

/// The deadline that passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Overdue {
    Idle,
    Headers,
    Write,
}

impl Activity {
    /// Creates the state of a connection that was accepted at `now`. Its first byte has the timeout
    /// of headers.
    pub(super) fn new(idle: Duration, now: Instant) -> Self {
        Self {
            phase: Phase::Idle {
                until: now + HEADER_TIMEOUT.min(idle),
            },
            stalled: None,
            idle,
        }
    }

    /// Records that bytes were read.
    pub(super) fn read(&mut self, now: Instant) {
        if let Phase::Idle { .. } = self.phase {
            self.phase = Phase::Head {
                until: now + HEADER_TIMEOUT,
            };
        }
    }

    /// Records that a request's headers are complete.
    pub(super) fn request(&mut self) {
        self.phase = Phase::Serving;
    }

    /// Records that the response was produced; it may not be written yet.
    pub(super) fn responded(&mut self, now: Instant) {
        self.phase = Phase::Idle {
            until: now + self.idle,
        };
    }

    /// Records progress of writing, or that no bytes wait.
    pub(super) fn written(&mut self) {
        self.stalled = None;
    }

    /// Records that bytes wait to be written.
    pub(super) fn stalled(&mut self, now: Instant) {
        self.stalled.get_or_insert(now);
    }

    /// Returns the next deadline and its kind.
    pub(super) fn deadline(&self) -> Option<(Instant, Overdue)> {
        let phase = match self.phase {
            Phase::Idle { until } => Some((until, Overdue::Idle)),
            Phase::Head { until } => Some((until, Overdue::Headers)),
            Phase::Serving => None,
        };
        let write = self
            .stalled
            .map(|since| (since + WRITE_TIMEOUT, Overdue::Write));
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
    fn headers_and_idle_connections_have_their_own_timeouts() {
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
            "more bytes do not extend the deadline"
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
    fn stalled_write_times_out_after_ten_seconds() {
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
