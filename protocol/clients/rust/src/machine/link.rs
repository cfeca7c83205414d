//! The states of the connection.

use std::time::{Duration, Instant};

use protocol::results::Connected;

/// The connection, in one of its states.
#[derive(Debug)]
pub(super) enum Link {
    /// Nothing is under way until then.
    Waiting(Instant),
    /// The application is asked for a token.
    WithoutToken,
    /// A connection is being made.
    Connecting,
    /// There is a session.
    Online(Online),
    /// There will be no session any more.
    Over,
}

/// A session.
#[derive(Debug)]
pub(super) struct Online {
    since: Instant,
    /// When anything came last.
    pub(super) heard: Instant,
    pub(super) heartbeat: Duration,
    /// The most items of a page.
    pub(super) page: Option<u64>,
    /// The node ends: then it is time to go.
    pub(super) leave_at: Option<Instant>,
    /// The session asked too fast: nothing is asked before.
    pub(super) paused: Option<Instant>,
    /// Which end of a token the server warned of last.
    pub(super) warned: u64,
    pub(super) renewal: Renewal,
}

/// How far the token's replacement is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Renewal {
    /// The token lasts.
    Quiet,
    /// It ends soon, and the server was asked for its clock, to know when.
    Clock,
    /// Another one is to be asked for then.
    Due(Instant),
    /// The application is asked for it.
    Asked,
    /// It is to be handed over then, or was.
    Handing { token: String, at: Option<Instant> },
}

/// A session that lasted so long begins the back-off anew.
const LASTED: Duration = Duration::from_secs(10);

impl Online {
    pub(super) fn new(connected: &Connected, now: Instant) -> Self {
        Self {
            since: now,
            heard: now,
            heartbeat: Duration::from_millis(connected.heartbeat_ms.max(1000)),
            page: connected
                .limits
                .get("page")
                .copied()
                .filter(|page| *page > 0),
            leave_at: None,
            paused: None,
            warned: 0,
            renewal: Renewal::Quiet,
        }
    }

    pub(super) fn has_lasted(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) >= LASTED
    }

    pub(super) fn is_paused(&self, now: Instant) -> bool {
        self.paused.is_some_and(|until| until > now)
    }

    /// When something is to be done for the session itself.
    pub(super) fn due(&self, is_pinging: bool) -> Option<Instant> {
        let ping = (!is_pinging).then(|| self.heard + self.heartbeat);
        let renewal = match &self.renewal {
            Renewal::Due(at) | Renewal::Handing { at: Some(at), .. } => Some(*at),
            _ => None,
        };
        [ping, renewal, self.leave_at].into_iter().flatten().min()
    }
}
