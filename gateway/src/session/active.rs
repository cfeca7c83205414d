//! State of a session after `connect`: heartbeat, rate of requests, and expiry of the token.

use std::time::{Duration, Instant};

use protocol::CloseCode;

use super::{
    heartbeat::{Beat, Heartbeat},
    pace::{Pace, Paced},
};

/// Time before the expiry of a token at which the client is warned.
const EXPIRY_WARNING: Duration = Duration::from_secs(60);

/// Settings of a session.
#[derive(Debug, Clone, Copy)]
pub struct SessionTiming {
    /// Silence after which the client is pinged.
    pub heartbeat: Duration,
    /// Rate limit of requests; 0 means no limit.
    pub requests_per_second: u64,
}

/// Heartbeat, rate of requests and token expiry of a session.
#[derive(Debug, Clone)]
pub struct Active {
    heartbeat: Heartbeat,
    pace: Pace,
    begun: Instant,
    expires: Instant,
    is_warned: bool,
}

/// An action for the connection's task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionAction {
    /// Send a ping.
    Ping,
    /// Send `token.expiring`.
    WarnOfExpiry,
    /// Close the connection.
    Close(CloseCode),
}

/// How a request is treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestVerdict {
    /// It is served.
    Serve,
    /// It is answered with `rate_limited`.
    Refuse {
        /// Milliseconds until the next request is allowed.
        retry_after_ms: u64,
    },
    /// The connection is closed.
    Close(CloseCode),
}

impl Active {
    /// Creates the state of a session whose token expires in `expires_in`.
    pub fn new(timing: SessionTiming, expires_in: Duration, now: Instant) -> Self {
        Self {
            heartbeat: Heartbeat::new(timing.heartbeat, now),
            pace: Pace::new(timing.requests_per_second, now),
            begun: now,
            expires: now + expires_in,
            is_warned: false,
        }
    }

    /// Records that any frame was received.
    pub fn received(&mut self, now: Instant) {
        self.heartbeat.received(now);
    }

    /// Records a request, and returns how it is treated.
    pub fn request(&mut self, now: Instant) -> RequestVerdict {
        match self.pace.request(now) {
            Paced::Served => RequestVerdict::Serve,
            Paced::Refused { retry_after_ms } => RequestVerdict::Refuse { retry_after_ms },
            Paced::Exceeded => RequestVerdict::Close(CloseCode::TooManyRequests),
        }
    }

    /// Replaces the token by one that expires in `expires_in`.
    pub fn refreshed(&mut self, expires_in: Duration, now: Instant) {
        self.expires = now + expires_in;
        self.is_warned = false;
    }

    /// Returns the next action that is due. Call it until it returns `None`.
    pub fn tick(&mut self, now: Instant) -> Option<SessionAction> {
        if now >= self.expires {
            return Some(SessionAction::Close(CloseCode::TokenExpired));
        }
        if !self.is_warned && now + EXPIRY_WARNING >= self.expires {
            self.is_warned = true;
            return Some(SessionAction::WarnOfExpiry);
        }
        match self.heartbeat.tick(now) {
            Beat::Idle => None,
            Beat::Ping => Some(SessionAction::Ping),
            Beat::Lost => Some(SessionAction::Close(CloseCode::HeartbeatLost)),
        }
    }

    /// Returns when [`tick`](Self::tick) has to be called next.
    pub fn due(&self) -> Instant {
        let warning = if self.is_warned {
            self.expires
        } else {
            self.expires
                .checked_sub(EXPIRY_WARNING)
                .unwrap_or(self.begun)
        };
        warning.max(self.begun).min(self.heartbeat.due())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TIMING: SessionTiming = SessionTiming {
        heartbeat: Duration::from_secs(25),
        requests_per_second: 50,
    };

    /// Advances time from due time to due time, and returns the actions with their seconds.
    fn pass(active: &mut Active, start: Instant, seconds: u64) -> Vec<(u64, SessionAction)> {
        let mut happened = Vec::new();
        while active.due() <= start + Duration::from_secs(seconds) {
            let now = active.due();
            while let Some(action) = active.tick(now) {
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
        let mut active = Active::new(TIMING, Duration::from_secs(100), start);
        for second in 0..100 {
            active.received(start + Duration::from_secs(second));
            let expected = if second == 40 {
                vec![(40, SessionAction::WarnOfExpiry)]
            } else {
                vec![]
            };
            assert_eq!(pass(&mut active, start, second), expected, "at {second}");
        }
        assert_eq!(
            pass(&mut active, start, 100),
            [(100, SessionAction::Close(CloseCode::TokenExpired))]
        );
    }

    #[test]
    fn short_token_is_warned_of_at_once() {
        let start = Instant::now();
        let mut active = Active::new(TIMING, Duration::from_secs(5), start);
        assert_eq!(
            pass(&mut active, start, 5),
            [
                (0, SessionAction::WarnOfExpiry),
                (5, SessionAction::Close(CloseCode::TokenExpired))
            ]
        );
    }

    #[test]
    fn refreshed_token_extends_the_session() {
        let start = Instant::now();
        let mut active = Active::new(TIMING, Duration::from_secs(100), start);
        active.received(start + Duration::from_secs(30));
        active.refreshed(Duration::from_secs(3600), start + Duration::from_secs(30));
        assert!(pass(&mut active, start, 54).is_empty());
    }

    #[test]
    fn silent_connection_closes_with_4008() {
        let start = Instant::now();
        let mut active = Active::new(TIMING, Duration::from_secs(3600), start);
        let happened = pass(&mut active, start, 1000);
        assert_eq!(
            happened,
            [
                (25, SessionAction::Ping),
                (50, SessionAction::Ping),
                (75, SessionAction::Close(CloseCode::HeartbeatLost))
            ]
        );
    }

    #[derive(Debug, Clone)]
    enum Act {
        Hear,
        Ask(u8),
        Refresh(u64),
        Pass(u64),
    }

    fn act() -> impl Strategy<Value = Act> {
        prop_oneof![
            Just(Act::Hear),
            (1..150u8).prop_map(Act::Ask),
            (0..300_000u64).prop_map(Act::Refresh),
            (0..2_000u64).prop_map(Act::Pass),
            (0..40_000u64).prop_map(Act::Pass),
        ]
    }

    proptest! {
        #[test]
        fn session_ends_with_the_right_code_at_the_right_time(
            life in 0..300_000u64,
            acts in proptest::collection::vec(act(), 0..80),
        ) {
            let millis = Duration::from_millis;
            let (start, silence, rate) = (Instant::now(), TIMING.heartbeat, TIMING.requests_per_second);
            let mut active = Active::new(TIMING, millis(life), start);
            let (mut now, mut received, mut pings) = (start, start, 0);
            let (mut given, mut expires, mut is_warned) = (start, start + millis(life), false);
            let (mut served, mut refused) = (0u64, None::<Instant>);
            'session: for act in acts {
                let mut until = now;
                match act {
                    Act::Hear => {
                        active.received(now);
                        (received, pings) = (now, 0);
                    }
                    Act::Refresh(life) => {
                        active.refreshed(millis(life), now);
                        (given, expires, is_warned) = (now, now + millis(life), false);
                    }
                    Act::Ask(times) => for _ in 0..times {
                        match active.request(now) {
                            RequestVerdict::Serve => served += 1,
                            RequestVerdict::Refuse { retry_after_ms } => {
                                prop_assert!(retry_after_ms > 0);
                                refused.get_or_insert(now);
                            }
                            RequestVerdict::Close(code) => {
                                prop_assert_eq!(code, CloseCode::TooManyRequests);
                                prop_assert!(refused.is_some_and(|first| now - first >= Duration::from_secs(10)));
                                break 'session;
                            }
                        }
                        prop_assert!(served as u128 * 1000 <= u128::from(rate) * (2000 + (now - start).as_millis()));
                    },
                    Act::Pass(ms) => until = now + millis(ms),
                }
                while active.due() <= until {
                    now = now.max(active.due());
                    while let Some(action) = active.tick(now) {
                        match action {
                            SessionAction::Ping => {
                                pings += 1;
                                prop_assert_eq!(now, received + silence * pings);
                                prop_assert!(pings <= 2);
                            }
                            SessionAction::WarnOfExpiry => {
                                prop_assert!(!is_warned);
                                prop_assert_eq!(now, expires.checked_sub(EXPIRY_WARNING).unwrap_or(given).max(given));
                                is_warned = true;
                            }
                            SessionAction::Close(CloseCode::TokenExpired) => {
                                prop_assert_eq!(now, expires);
                                break 'session;
                            }
                            SessionAction::Close(code) => {
                                prop_assert_eq!(code, CloseCode::HeartbeatLost);
                                prop_assert_eq!(now, received + silence * 3);
                                break 'session;
                            }
                        }
                    }
                }
                now = until;
                prop_assert!(now < expires && now < received + silence * 3, "it should have ended");
                prop_assert!(is_warned || now + EXPIRY_WARNING < expires, "its expiry should have been announced");
            }
        }
    }
}
