//! After `connect`: heartbeat, pace of requests, and the end of the token.

use std::time::{Duration, Instant};

use protocol::CloseCode;

use super::{
    heartbeat::{Beat, Heartbeat},
    pace::{Pace, Paced},
};

/// How long before its end the client is told that its token expires; at once, if it lasts no
/// longer than that.
const WARNING: Duration = Duration::from_secs(60);

/// What a node's settings say to a session.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// The silence after which a ping goes out.
    pub heartbeat: Duration,
    /// 0 means no limit.
    pub requests_per_second: u64,
}

/// A session as far as time and its own requests go.
#[derive(Debug, Clone)]
pub struct Active {
    heartbeat: Heartbeat,
    pace: Pace,
    begun: Instant,
    expires: Instant,
    is_warned: bool,
}

/// What the shell has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Send a ping.
    Ping,
    /// Tell `token.expiring`.
    WarnOfExpiry,
    /// Close.
    Close(CloseCode),
}

/// Whether a request is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is.
    Serve,
    /// It is answered with `rate_limited`.
    Refuse {
        /// When the next one may come.
        retry_after_ms: u64,
    },
    /// The connection ends.
    Close(CloseCode),
}

impl Active {
    /// A session that begins at `now` with a token that lasts so long.
    pub fn new(timing: Timing, expires_in: Duration, now: Instant) -> Self {
        Self {
            heartbeat: Heartbeat::new(timing.heartbeat, now),
            pace: Pace::new(timing.requests_per_second, now),
            begun: now,
            expires: now + expires_in,
            is_warned: false,
        }
    }

    /// Anything came in.
    pub fn heard(&mut self, now: Instant) {
        self.heartbeat.heard(now);
    }

    /// A request came in.
    pub fn request(&mut self, now: Instant) -> Verdict {
        match self.pace.request(now) {
            Paced::Served => Verdict::Serve,
            Paced::Refused { retry_after_ms } => Verdict::Refuse { retry_after_ms },
            Paced::TooLong => Verdict::Close(CloseCode::TooManyRequests),
        }
    }

    /// The token was replaced by one that lasts so long.
    pub fn refreshed(&mut self, expires_in: Duration, now: Instant) {
        self.expires = now + expires_in;
        self.is_warned = false;
    }

    /// Time has passed: what is to be done now. To be called until it answers `None`.
    pub fn tick(&mut self, now: Instant) -> Option<Action> {
        if now >= self.expires {
            return Some(Action::Close(CloseCode::TokenExpired));
        }
        if !self.is_warned && now + WARNING >= self.expires {
            self.is_warned = true;
            return Some(Action::WarnOfExpiry);
        }
        match self.heartbeat.tick(now) {
            Beat::Quiet => None,
            Beat::Ping => Some(Action::Ping),
            Beat::Lost => Some(Action::Close(CloseCode::HeartbeatLost)),
        }
    }

    /// When [`tick`](Self::tick) has something to do next.
    pub fn due(&self) -> Instant {
        let warning = if self.is_warned {
            self.expires
        } else {
            self.expires.checked_sub(WARNING).unwrap_or(self.begun)
        };
        warning.max(self.begun).min(self.heartbeat.due())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TIMING: Timing = Timing {
        heartbeat: Duration::from_secs(25),
        requests_per_second: 50,
    };

    /// Lets time pass from due to due, and collects what happens with its second.
    fn pass(active: &mut Active, start: Instant, seconds: u64) -> Vec<(u64, Action)> {
        let mut happened = Vec::new();
        while active.due() <= start + Duration::from_secs(seconds) {
            let now = active.due();
            while let Some(action) = active.tick(now) {
                happened.push((now.duration_since(start).as_secs(), action));
                if matches!(action, Action::Close(_)) {
                    return happened;
                }
            }
        }
        happened
    }

    #[test]
    fn a_token_is_warned_of_60_s_before_its_end_and_ends_with_4003() {
        let start = Instant::now();
        let mut active = Active::new(TIMING, Duration::from_secs(100), start);
        for second in 0..100 {
            active.heard(start + Duration::from_secs(second));
            let expected = if second == 40 {
                vec![(40, Action::WarnOfExpiry)]
            } else {
                vec![]
            };
            assert_eq!(pass(&mut active, start, second), expected, "at {second}");
        }
        assert_eq!(
            pass(&mut active, start, 100),
            [(100, Action::Close(CloseCode::TokenExpired))]
        );
    }

    #[test]
    fn a_short_token_is_warned_of_at_once() {
        let start = Instant::now();
        let mut active = Active::new(TIMING, Duration::from_secs(5), start);
        assert_eq!(
            pass(&mut active, start, 5),
            [
                (0, Action::WarnOfExpiry),
                (5, Action::Close(CloseCode::TokenExpired))
            ]
        );
    }

    #[test]
    fn a_refreshed_token_lives_on() {
        let start = Instant::now();
        let mut active = Active::new(TIMING, Duration::from_secs(100), start);
        active.heard(start + Duration::from_secs(30));
        active.refreshed(Duration::from_secs(3600), start + Duration::from_secs(30));
        assert!(pass(&mut active, start, 54).is_empty());
    }

    #[test]
    fn a_silent_connection_ends_with_4008() {
        let start = Instant::now();
        let mut active = Active::new(TIMING, Duration::from_secs(3600), start);
        let happened = pass(&mut active, start, 1000);
        assert_eq!(
            happened,
            [
                (25, Action::Ping),
                (50, Action::Ping),
                (75, Action::Close(CloseCode::HeartbeatLost))
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
        fn whatever_comes_when_a_session_ends_for_the_right_reason_in_the_right_moment(
            life in 0..300_000u64,
            acts in proptest::collection::vec(act(), 0..80),
        ) {
            let millis = Duration::from_millis;
            let (start, silence, rate) = (Instant::now(), TIMING.heartbeat, TIMING.requests_per_second);
            let mut active = Active::new(TIMING, millis(life), start);
            let (mut now, mut heard, mut pings) = (start, start, 0);
            let (mut given, mut expires, mut is_warned) = (start, start + millis(life), false);
            let (mut served, mut refused) = (0u64, None::<Instant>);
            'session: for act in acts {
                let mut until = now;
                match act {
                    Act::Hear => {
                        active.heard(now);
                        (heard, pings) = (now, 0);
                    }
                    Act::Refresh(life) => {
                        active.refreshed(millis(life), now);
                        (given, expires, is_warned) = (now, now + millis(life), false);
                    }
                    Act::Ask(times) => for _ in 0..times {
                        match active.request(now) {
                            Verdict::Serve => served += 1,
                            Verdict::Refuse { retry_after_ms } => {
                                prop_assert!(retry_after_ms > 0);
                                refused.get_or_insert(now);
                            }
                            Verdict::Close(code) => {
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
                            Action::Ping => {
                                pings += 1;
                                prop_assert_eq!(now, heard + silence * pings);
                                prop_assert!(pings <= 2);
                            }
                            Action::WarnOfExpiry => {
                                prop_assert!(!is_warned);
                                prop_assert_eq!(now, expires.checked_sub(WARNING).unwrap_or(given).max(given));
                                is_warned = true;
                            }
                            Action::Close(CloseCode::TokenExpired) => {
                                prop_assert_eq!(now, expires);
                                break 'session;
                            }
                            Action::Close(code) => {
                                prop_assert_eq!(code, CloseCode::HeartbeatLost);
                                prop_assert_eq!(now, heard + silence * 3);
                                break 'session;
                            }
                        }
                    }
                }
                now = until;
                prop_assert!(now < expires && now < heard + silence * 3, "it should have ended");
                prop_assert!(is_warned || now + WARNING < expires, "its end should have been told");
            }
        }
    }
}
