//! Tokens: asking the application for one before the first connection, before a token expires, and
//! after it has expired.
//!
//! The client does not parse tokens, and its clock may differ from the server's. So when the server
//! warns that a token expires soon, the client requests the server's clock, and replaces the token
//! after a quarter to half of the time left: early enough for a short token, and at different times
//! in clients that were warned together. The server warns of a token immediately if it is valid for
//! less than the warning time, so replacing it immediately would never end.

use std::time::{Duration, Instant};

use protocol::ErrorBody;
use rand::RngExt;

use super::{
    ClientRequest, DisconnectCause, Machine, Purpose, TokenUnavailable,
    connection_state::{ConnectionState, TokenRenewal},
};
use crate::{Reconnect, Retryability};

/// Minimum delay before asking for another token.
const MIN_RENEWAL_DELAY: Duration = Duration::from_millis(200);

/// Delay before asking the application again, if it had no token while the session lives.
const TOKEN_RETRY_DELAY: Duration = Duration::from_secs(5);

/// Handles the application's answer.
pub(super) fn token_received(
    machine: &mut Machine,
    outcome: Result<String, TokenUnavailable>,
    now: Instant,
) {
    machine.is_asking_for_token = false;
    match (&mut machine.connection, outcome) {
        (ConnectionState::WithoutToken, Ok(token)) => {
            machine.token = Some(token);
            machine.connect();
        }
        (ConnectionState::WithoutToken, Err(error)) => {
            let reconnect = match error {
                TokenUnavailable::Later(_) => Reconnect::AfterBackoff,
                TokenUnavailable::Never(_) => Reconnect::Never,
            };
            machine.disconnect(
                DisconnectCause::TokenUnavailable(error),
                reconnect,
                None,
                now,
            );
        }
        (ConnectionState::Online(online), Ok(token))
            if online.renewal == TokenRenewal::TokenRequested =>
        {
            online.renewal = TokenRenewal::Refreshing {
                token,
                at: Some(now),
            };
        }
        (ConnectionState::Online(online), Err(error))
            if online.renewal == TokenRenewal::TokenRequested =>
        {
            online.renewal = match error {
                TokenUnavailable::Later(_) => TokenRenewal::Due(now + TOKEN_RETRY_DELAY),
                // The session lives until its token expires.
                TokenUnavailable::Never(_) => TokenRenewal::Idle,
            };
        }
        (ConnectionState::Ended, _) | (_, Err(_)) => {}
        // A session that has ended since asked for it.
        (_, Ok(token)) => machine.token = Some(token),
    }
}

/// Handles the server's warning.
pub(super) fn token_expires(machine: &mut Machine, expires_at: u64, now: Instant) {
    // The current token is not used for another connection.
    machine.token = None;
    let ConnectionState::Online(online) = &mut machine.connection else {
        return;
    };
    online.warned_expiry = online.warned_expiry.max(expires_at);
    if online.renewal == TokenRenewal::Idle {
        online.renewal = TokenRenewal::ClockRequested;
        machine.request(Purpose::Clock { expires_at }, now, |_, _| {
            Some(ClientRequest::Ping)
        });
    }
}

/// Handles the reply with the server's clock, or (`None`) its failure.
pub(super) fn clock_received(
    machine: &mut Machine,
    expires_at: u64,
    at: Option<u64>,
    now: Instant,
) {
    let left = Duration::from_millis(at.map_or(0, |at| expires_at.saturating_sub(at)));
    let part = machine.random.random_range(0.25..0.5);
    if let ConnectionState::Online(online) = &mut machine.connection {
        online.renewal = TokenRenewal::Due(now + left.mul_f64(part).max(MIN_RENEWAL_DELAY));
    }
}

/// Takes the next step of the renewal that is due.
pub(super) fn continue_renewal(machine: &mut Machine, now: Instant) {
    let ConnectionState::Online(online) = &mut machine.connection else {
        return;
    };
    match &mut online.renewal {
        TokenRenewal::Due(at) if *at <= now => {
            online.renewal = TokenRenewal::TokenRequested;
            machine.ask_for_token();
        }
        TokenRenewal::Refreshing { token, at } if at.is_some_and(|at| at <= now) => {
            *at = None;
            let token = token.clone();
            machine.request(Purpose::Renew, now, |_, _| {
                Some(ClientRequest::TokenRefresh(token))
            });
        }
        _ => {}
    }
}

/// Handles the reply to `token.refresh`.
pub(super) fn token_refreshed(
    machine: &mut Machine,
    outcome: Result<u64, ErrorBody>,
    now: Instant,
) {
    let ConnectionState::Online(online) = &mut machine.connection else {
        return;
    };
    let TokenRenewal::Refreshing { token, at } = &mut online.renewal else {
        return;
    };
    match outcome.map_err(|error| Retryability::of(&error)) {
        Ok(expires_at) => {
            let token = std::mem::take(token);
            online.renewal = TokenRenewal::Idle;
            // The server warns once per expiry, and its warning may overtake the reply.
            if expires_at <= online.warned_expiry {
                token_expires(machine, expires_at, now);
            } else {
                machine.token = Some(token);
            }
        }
        Err(Retryability::RateLimited(hint) | Retryability::Temporary(hint)) => {
            *at = Some(now + hint.unwrap_or_default().max(Duration::from_secs(1)))
        }
        // The session ends with the old token. The client then asks for another one.
        Err(Retryability::Defect | Retryability::Permanent) => online.renewal = TokenRenewal::Idle,
    }
}
