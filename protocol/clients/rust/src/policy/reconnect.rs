//! Whether and how to reconnect after a connection ended or failed: the table of close codes.

use std::time::Duration;

use protocol::{CloseCode, ErrorCode};

use crate::{Closed, ConnectError};

/// Whether and how to reconnect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reconnect {
    /// Immediately, since the server spreads its clients itself. Again only after a stable session,
    /// otherwise after a backoff.
    AtOnce,
    /// After a backoff.
    AfterBackoff,
    /// Immediately with a new token, with the same restriction as `AtOnce`.
    WithNewToken,
    /// Not at all: it would fail again.
    Never,
}

impl Reconnect {
    /// Returns what to do after a session ended.
    pub fn after(closed: &Closed) -> Self {
        Self::by_code(closed.code)
    }

    /// Returns what to do after an attempt to connect failed.
    pub fn after_failure(error: &ConnectError) -> Self {
        match error {
            ConnectError::Address(_) => Self::Never,
            // A proxy may have refused the upgrade, for now.
            ConnectError::Unreachable(_)
            | ConnectError::Upgrade { .. }
            | ConnectError::Handshake(_) => Self::AfterBackoff,
            ConnectError::Unreadable(_) | ConnectError::Timeout => Self::AfterBackoff,
            ConnectError::Closed(closed) => Self::after(closed),
            ConnectError::Refused { closed, .. } if closed.close_code().is_some() => {
                Self::after(closed)
            }
            // Without a close frame the error decides.
            ConnectError::Refused { error, .. } => match error.code {
                ErrorCode::Unauthenticated => Self::WithNewToken,
                ErrorCode::RateLimited
                | ErrorCode::Unavailable
                | ErrorCode::LimitReached
                | ErrorCode::Internal => Self::AfterBackoff,
                _ => Self::Never,
            },
        }
    }

    fn by_code(code: Option<u16>) -> Self {
        match code.and_then(CloseCode::of) {
            Some(CloseCode::GoingAway) => Self::AtOnce,
            Some(CloseCode::TokenExpired) => Self::WithNewToken,
            Some(
                CloseCode::BadFrame
                | CloseCode::TokenRefused
                | CloseCode::SessionEnded
                | CloseCode::FrameTooLarge,
            ) => Self::Never,
            Some(CloseCode::ConnectTimeout | CloseCode::HeartbeatLost | CloseCode::TooSlow) => {
                Self::AfterBackoff
            }
            Some(
                CloseCode::TooManyRequests | CloseCode::TooManyConnections | CloseCode::Internal,
            ) => Self::AfterBackoff,
            // A broken connection, or a code of a later version.
            None => Self::AfterBackoff,
        }
    }

    /// Returns the minimum delay that the server asked for.
    pub fn hint(error: &ConnectError) -> Option<Duration> {
        match error {
            ConnectError::Refused { error, closed } => error
                .retry_after_ms
                .map(Duration::from_millis)
                .max(closed.retry_after()),
            ConnectError::Closed(closed) => closed.retry_after(),
            _ => None,
        }
    }

    /// Whether to try another node after a session ended.
    pub fn elsewhere(closed: &Closed) -> bool {
        match closed.close_code() {
            None => true,
            Some(code) => matches!(
                code,
                CloseCode::GoingAway
                    | CloseCode::HeartbeatLost
                    | CloseCode::ConnectTimeout
                    | CloseCode::TooManyConnections
                    | CloseCode::Internal
            ),
        }
    }

    /// Whether to try another node after an attempt to connect failed.
    pub fn elsewhere_after_failure(error: &ConnectError) -> bool {
        match error {
            ConnectError::Closed(closed) | ConnectError::Refused { closed, .. } => {
                Self::elsewhere(closed)
            }
            _ => true,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use protocol::ErrorBody;
    use serde_json::Value;

    use super::*;

    fn closed(code: u16, reason: &str) -> Closed {
        Closed {
            code: Some(code),
            reason: reason.into(),
        }
    }

    #[test]
    fn every_close_code_is_handled_as_the_protocol_requires() {
        let table: Vec<Value> =
            serde_json::from_str(include_str!("../../../../vectors/close.json")).unwrap();
        assert_eq!(table.len(), CloseCode::ALL.len());
        for row in table {
            let code = u16::try_from(row["code"].as_u64().unwrap()).unwrap();
            let expected = match row["reconnect"].as_str().unwrap() {
                "no" => Reconnect::Never,
                "with a new token" => Reconnect::WithNewToken,
                "yes" | "yes, with resume" | "after back-off" => Reconnect::AfterBackoff,
                "at once, spread over reconnect_after_ms" => Reconnect::AtOnce,
                other => panic!("{other}"),
            };
            assert_eq!(Reconnect::after(&closed(code, "")), expected, "{code}");
        }
        assert_eq!(Reconnect::after(&closed(4999, "")), Reconnect::AfterBackoff);
        assert_eq!(
            Reconnect::after(&Closed::broken("cut")),
            Reconnect::AfterBackoff
        );
    }

    #[test]
    fn refused_connect_is_handled_by_its_close_code_and_longer_hint() {
        let refused = |code, retry_after_ms, closed| ConnectError::Refused {
            error: ErrorBody {
                retry_after_ms,
                ..ErrorBody::new(code, "no")
            },
            closed,
        };
        let full = refused(
            ErrorCode::LimitReached,
            Some(5000),
            closed(4012, "full retry_after_ms=7000"),
        );
        assert_eq!(Reconnect::after_failure(&full), Reconnect::AfterBackoff);
        assert_eq!(Reconnect::hint(&full), Some(Duration::from_secs(7)));
        let expired = refused(ErrorCode::Unauthenticated, None, closed(4003, ""));
        assert_eq!(Reconnect::after_failure(&expired), Reconnect::WithNewToken);
        let revoked = refused(ErrorCode::Unauthenticated, None, closed(4002, ""));
        assert_eq!(Reconnect::after_failure(&revoked), Reconnect::Never);
        assert!(
            !Reconnect::elsewhere_after_failure(&revoked)
                && Reconnect::elsewhere_after_failure(&full)
        );
        let cut = refused(ErrorCode::Unavailable, Some(200), Closed::broken("cut"));
        assert_eq!(
            (Reconnect::after_failure(&cut), Reconnect::hint(&cut)),
            (Reconnect::AfterBackoff, Some(Duration::from_millis(200)))
        );
    }
}
