//! How long a session lasts: the life of its token, the heartbeat, and the drain of its node.

use std::time::{Duration, Instant};

use protocol::CloseCode;

use super::{
    active::SessionAction,
    drain::Drain,
    heartbeat::{Beat, Heartbeat},
};

/// Time before the expiry of a token at which the client is warned.
const EXPIRY_WARNING: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(super) struct Lifetime {
    heartbeat: Heartbeat,
    expires_at: Instant,
    /// When the client is warned of the expiry, unless it was.
    warns_at: Option<Instant>,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    Running,
    /// The node drains, and the client was not told yet.
    DrainRequested(Drain),
    Draining(Drain),
    Closed,
}

impl Lifetime {
    /// Begins a session whose token expires in `expires_in`.
    pub(super) fn new(heartbeat: Duration, expires_in: Duration, now: Instant) -> Self {
        let mut lifetime = Self {
            heartbeat: Heartbeat::new(heartbeat, now),
            expires_at: now,
            warns_at: None,
            phase: Phase::Running,
        };
        lifetime.refreshed(expires_in, now);
        lifetime
    }

    /// Records that any frame was received.
    pub(super) fn received(&mut self, now: Instant) {
        self.heartbeat.received(now);
    }

    /// Replaces the token by one that expires in `expires_in`.
    pub(super) fn refreshed(&mut self, expires_in: Duration, now: Instant) {
        self.expires_at = now + expires_in;
        self.warns_at = Some(now + expires_in.saturating_sub(EXPIRY_WARNING));
    }

    /// Begins to drain, unless it has begun.
    pub(super) fn drain(&mut self, drain: Drain) {
        if matches!(self.phase, Phase::Running) {
            self.phase = Phase::DrainRequested(drain);
        }
    }

    /// Ends the session: no action is due afterwards.
    pub(super) fn close(&mut self) {
        self.phase = Phase::Closed;
    }

    /// Returns the next action that is due.
    pub(super) fn tick(&mut self, now: Instant) -> Option<SessionAction> {
        match &self.phase {
            Phase::Closed => return None,
            Phase::DrainRequested(drain) if now >= drain.begins_at() => {
                let drain = drain.clone();
                let reconnect_after_ms = drain.reconnect_after_ms();
                self.phase = Phase::Draining(drain);
                return Some(SessionAction::AnnounceDrain { reconnect_after_ms });
            }
            Phase::Draining(drain) if now >= drain.closes_at() => {
                return Some(SessionAction::Close(CloseCode::GoingAway));
            }
            Phase::Running | Phase::DrainRequested(_) | Phase::Draining(_) => {}
        }
        if now >= self.expires_at {
            return Some(SessionAction::Close(CloseCode::TokenExpired));
        }
        if self.warns_at.is_some_and(|warns_at| now >= warns_at) {
            self.warns_at = None;
            return Some(SessionAction::WarnOfExpiry);
        }
        match self.heartbeat.tick(now) {
            Beat::Idle => None,
            Beat::Ping => Some(SessionAction::Ping),
            Beat::Lost => Some(SessionAction::Close(CloseCode::HeartbeatLost)),
        }
    }

    /// Returns when [`tick`](Self::tick) has to be called next.
    pub(super) fn due(&self) -> Instant {
        let due = self
            .warns_at
            .unwrap_or(self.expires_at)
            .min(self.heartbeat.due());
        match &self.phase {
            Phase::DrainRequested(drain) => due.min(drain.begins_at()),
            Phase::Draining(drain) => due.min(drain.closes_at()),
            Phase::Running | Phase::Closed => due,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::drain::DrainSchedule, *};

    const HEARTBEAT: Duration = Duration::from_secs(25);

    /// Advances time from due time to due time, and returns the actions with their seconds.
    fn pass(lifetime: &mut Lifetime, start: Instant, seconds: u64) -> Vec<(u64, SessionAction)> {
        let mut happened = Vec::new();
        while lifetime.due() <= start + Duration::from_secs(seconds) {
            let now = lifetime.due();
            while let Some(action) = lifetime.tick(now) {
                happened.push((now.duration_since(start).as_secs(), action));
                if matches!(action, SessionAction::Close(_)) {
                    return happened;
                }
            }
        }
        happened
    }

    #[test]
    fn token_is_warned_of_60_s_before_its_expiry_and_closes_with_4003() {
        let start = Instant::now();
        let mut lifetime = Lifetime::new(HEARTBEAT, Duration::from_secs(100), start);
        for second in 0..100 {
            lifetime.received(start + Duration::from_secs(second));
            let expected = if second == 40 {
                vec![(40, SessionAction::WarnOfExpiry)]
            } else {
                vec![]
            };
            assert_eq!(pass(&mut lifetime, start, second), expected, "at {second}");
        }
        assert_eq!(
            pass(&mut lifetime, start, 100),
            [(100, SessionAction::Close(CloseCode::TokenExpired))]
        );
    }

    #[test]
    fn short_token_is_warned_of_at_once() {
        let start = Instant::now();
        let mut lifetime = Lifetime::new(HEARTBEAT, Duration::from_secs(5), start);
        assert_eq!(
            pass(&mut lifetime, start, 5),
            [
                (0, SessionAction::WarnOfExpiry),
                (5, SessionAction::Close(CloseCode::TokenExpired))
            ]
        );
    }

    #[test]
    fn refreshed_token_extends_the_session() {
        let start = Instant::now();
        let mut lifetime = Lifetime::new(HEARTBEAT, Duration::from_secs(100), start);
        lifetime.received(start + Duration::from_secs(30));
        lifetime.refreshed(Duration::from_secs(3600), start + Duration::from_secs(30));
        assert!(pass(&mut lifetime, start, 54).is_empty());
    }

    #[test]
    fn silent_connection_closes_with_4008() {
        let start = Instant::now();
        let mut lifetime = Lifetime::new(HEARTBEAT, Duration::from_secs(3600), start);
        assert_eq!(
            pass(&mut lifetime, start, 1000),
            [
                (25, SessionAction::Ping),
                (50, SessionAction::Ping),
                (75, SessionAction::Close(CloseCode::HeartbeatLost))
            ]
        );
    }

    #[test]
    fn drain_is_announced_once_and_closes_with_1001_in_its_turn() {
        let start = Instant::now();
        let mut lifetime = Lifetime::new(HEARTBEAT, Duration::from_secs(3600), start);
        let begins_at = start + Duration::from_secs(10);
        let schedule = DrainSchedule::new(2_000, Duration::from_secs(8), begins_at);
        lifetime.drain(schedule.place(1_000));
        lifetime.drain(schedule.place(0));
        assert_eq!(
            pass(&mut lifetime, start, 1000),
            [
                (
                    10,
                    SessionAction::AnnounceDrain {
                        reconnect_after_ms: 8_000
                    }
                ),
                (14, SessionAction::Close(CloseCode::GoingAway))
            ]
        );
    }

    #[test]
    fn token_that_expires_during_a_drain_closes_with_4003() {
        let start = Instant::now();
        let mut lifetime = Lifetime::new(HEARTBEAT, Duration::from_secs(3), start);
        let schedule = DrainSchedule::new(2_000, Duration::from_secs(8), start);
        lifetime.drain(schedule.place(1_000));
        let happened = pass(&mut lifetime, start, 1000);
        assert_eq!(
            happened.last(),
            Some(&(3, SessionAction::Close(CloseCode::TokenExpired)))
        );
    }
}
