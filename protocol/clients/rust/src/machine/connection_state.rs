//! The states of the connection.

use std::time::{Duration, Instant};

use protocol::operation::session::Connected;

/// The state of the connection.
#[derive(Debug)]
pub(super) enum ConnectionState {
    /// Waits until this instant before the next attempt.
    Waiting(Instant),
    /// Waits for a token of the application.
    WithoutToken,
    /// Connects.
    Connecting,
    /// Has a session.
    Online(OnlineState),
    /// Has ended for good.
    Ended,
}

/// The state of a session.
#[derive(Debug)]
pub(super) struct OnlineState {
    since: Instant,
    /// When the last frame was received.
    pub(super) last_received: Instant,
    pub(super) heartbeat: Duration,
    /// The server's limit for the items of a page.
    pub(super) page: Option<u64>,
    /// When to leave a node that drains.
    pub(super) leave_at: Option<Instant>,
    /// No requests before this instant, since the server limited their rate.
    pub(super) paused: Option<Instant>,
    /// The latest token expiry that the server warned of.
    pub(super) warned_expiry: u64,
    pub(super) renewal: TokenRenewal,
}

/// The progress of replacing a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum TokenRenewal {
    /// The token does not expire soon.
    Idle,
    /// The token expires soon. The server's clock was requested, to know when.
    ClockRequested,
    /// The application is asked for a token at this instant.
    Due(Instant),
    /// The application was asked for a token.
    TokenRequested,
    /// The new token is sent at this instant, or (`None`) was sent.
    Refreshing { token: String, at: Option<Instant> },
}

/// A session that lasted this long resets the reconnect backoff.
const STABLE_SESSION: Duration = Duration::from_secs(10);

impl OnlineState {
    pub(super) fn new(connected: &Connected, now: Instant) -> Self {
        Self {
            since: now,
            last_received: now,
            heartbeat: Duration::from_millis(connected.heartbeat_ms.max(1000)),
            page: connected
                .limits
                .get("page")
                .copied()
                .filter(|page| *page > 0),
            leave_at: None,
            paused: None,
            warned_expiry: 0,
            renewal: TokenRenewal::Idle,
        }
    }

    pub(super) fn is_stable(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) >= STABLE_SESSION
    }

    pub(super) fn is_paused(&self, now: Instant) -> bool {
        self.paused.is_some_and(|until| until > now)
    }

    /// When the session itself needs an action: a ping, a token, or leaving the node.
    pub(super) fn due(&self, is_pinging: bool) -> Option<Instant> {
        let ping = (!is_pinging).then(|| self.last_received + self.heartbeat);
        let renewal = match &self.renewal {
            TokenRenewal::Due(at) | TokenRenewal::Refreshing { at: Some(at), .. } => Some(*at),
            _ => None,
        };
        [ping, renewal, self.leave_at].into_iter().flatten().min()
    }
}
