//! Tokens: asked for at first, when one ends soon, and when one has ended.
//!
//! A token is opaque here, and the clocks of client and server may differ. So when the server warns, it is asked for its
//! clock, and the new token comes after a quarter to half of what is left: early enough for a short token, and those who
//! were warned together do not ask together. A token that lasts no longer than the warning is warned of at once; a new one
//! at once would be warned of at once likewise, without end.

use std::time::{Duration, Instant};

use protocol::ErrorBody;
use rand::RngExt;

use super::{
    Ask, Machine, NoToken, What, Why,
    link::{Link, Renewal},
};
use crate::{Reconnect, Refusal};

/// Before the application is asked for another token, however soon the present one ends.
const SOONEST: Duration = Duration::from_millis(200);

/// Before the application is asked again that had no token for a session that lives.
const AGAIN: Duration = Duration::from_secs(5);

impl Machine {
    /// The application has answered.
    pub(super) fn token_came(&mut self, outcome: Result<String, NoToken>, now: Instant) {
        self.is_asking_for_token = false;
        match (&mut self.link, outcome) {
            (Link::WithoutToken, Ok(token)) => {
                self.token = Some(token);
                self.connect();
            }
            (Link::WithoutToken, Err(error)) => {
                let reconnect = match error {
                    NoToken::Later(_) => Reconnect::AfterBackoff,
                    NoToken::Never(_) => Reconnect::Never,
                };
                self.away(Why::NoToken(error), reconnect, None, now);
            }
            (Link::Online(online), Ok(token)) if online.renewal == Renewal::Asked => {
                online.renewal = Renewal::Handing {
                    token,
                    at: Some(now),
                };
            }
            (Link::Online(online), Err(error)) if online.renewal == Renewal::Asked => {
                online.renewal = match error {
                    NoToken::Later(_) => Renewal::Due(now + AGAIN),
                    // The session lives until the token ends.
                    NoToken::Never(_) => Renewal::Quiet,
                };
            }
            (Link::Over, _) | (_, Err(_)) => {}
            // It was asked for by a session that ended meanwhile.
            (_, Ok(token)) => self.token = Some(token),
        }
    }

    /// The server warns.
    pub(super) fn token_expires(&mut self, expires_at: u64, now: Instant) {
        // What comes next, be it a new session, needs another.
        self.token = None;
        let Link::Online(online) = &mut self.link else {
            return;
        };
        online.warned = online.warned.max(expires_at);
        if online.renewal == Renewal::Quiet {
            online.renewal = Renewal::Clock;
            self.ask(What::Clock { expires_at }, now, |_, _| Some(Ask::Ping));
        }
    }

    /// The server told its clock, or did not.
    pub(super) fn clock(&mut self, expires_at: u64, at: Option<u64>, now: Instant) {
        let left = Duration::from_millis(at.map_or(0, |at| expires_at.saturating_sub(at)));
        let part = self.random.random_range(0.25..0.5);
        if let Link::Online(online) = &mut self.link {
            online.renewal = Renewal::Due(now + left.mul_f64(part).max(SOONEST));
        }
    }

    /// Goes on with the replacement.
    pub(super) fn renew(&mut self, now: Instant) {
        let Link::Online(online) = &mut self.link else {
            return;
        };
        match &mut online.renewal {
            Renewal::Due(at) if *at <= now => {
                online.renewal = Renewal::Asked;
                self.ask_for_token();
            }
            Renewal::Handing { token, at } if at.is_some_and(|at| at <= now) => {
                *at = None;
                let token = token.clone();
                self.ask(What::Renew, now, |_, _| Some(Ask::TokenRefresh(token)));
            }
            _ => {}
        }
    }

    /// The new token was taken, or not.
    pub(super) fn renewed(&mut self, outcome: Result<u64, ErrorBody>, now: Instant) {
        let Link::Online(online) = &mut self.link else {
            return;
        };
        let Renewal::Handing { token, at } = &mut online.renewal else {
            return;
        };
        match outcome.map_err(|error| Refusal::of(&error)) {
            Ok(expires_at) => {
                let token = std::mem::take(token);
                online.renewal = Renewal::Quiet;
                // A warning may overtake the reply, and a token that ends no later than the one before is not warned of anew.
                if expires_at <= online.warned {
                    self.token_expires(expires_at, now);
                } else {
                    self.token = Some(token);
                }
            }
            Err(Refusal::TooFast(hint) | Refusal::Passing(hint)) => {
                *at = Some(now + hint.unwrap_or_default().max(Duration::from_secs(1)))
            }
            // The session ends with the old token, and another one is asked for then.
            Err(Refusal::Defect | Refusal::Definite) => online.renewal = Renewal::Quiet,
        }
    }
}
