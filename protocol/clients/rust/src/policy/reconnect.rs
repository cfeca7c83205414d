//! Whether and how to come back, by how a connection ended: the table of close codes.

use std::time::Duration;

use protocol::{CloseCode, ErrorCode};

use crate::{Closed, ConnectError};

/// Whether and how to connect again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reconnect {
    /// At once: the server spreads its clients itself. Only once without a session that lasted; then after a back-off.
    AtOnce,
    /// After a back-off, whose first wait is short.
    AfterBackoff,
    /// With a new token; at once likewise.
    WithNewToken,
    /// Not at all: it would end the same way.
    Never,
}

impl Reconnect {
    /// After a session ended like this.
    pub fn after(closed: &Closed) -> Self {
        Self::by_code(closed.code)
    }

    /// After an attempt that failed like this.
    pub fn after_failure(error: &ConnectError) -> Self {
        match error {
            ConnectError::Address(_) => Self::Never,
            // What an upgrade is refused with may be a proxy's word, and pass.
            ConnectError::Unreachable(_)
            | ConnectError::Upgrade { .. }
            | ConnectError::Handshake(_) => Self::AfterBackoff,
            ConnectError::Unreadable(_) | ConnectError::Timeout => Self::AfterBackoff,
            ConnectError::Closed(closed) => Self::after(closed),
            ConnectError::Refused { closed, .. } if closed.close_code().is_some() => {
                Self::after(closed)
            }
            // The close frame was lost; the error tells less.
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
            // Broken, or a code of a later version.
            None => Self::AfterBackoff,
        }
    }

    /// Not before so long, where the server said so.
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

    /// Whether another node may do better after such an end.
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

    /// Whether another node may do better after such a failure.
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
    fn every_close_code_is_followed_as_the_wire_asks_for() {
        let table: Vec<Value> =
            serde_json::from_str(include_str!("../../../../vectors/close.json")).unwrap();
        assert_eq!(table.len(), CloseCode::ALL.len());
        for row in table {
            let code = u16::try_from(row["code"].as_u64().unwrap()).unwrap();
            let asked = match row["reconnect"].as_str().unwrap() {
                "no" => Reconnect::Never,
                "with a new token" => Reconnect::WithNewToken,
                "yes" | "yes, with resume" | "after back-off" => Reconnect::AfterBackoff,
                "at once, spread over reconnect_after_ms" => Reconnect::AtOnce,
                other => panic!("{other}"),
            };
            assert_eq!(Reconnect::after(&closed(code, "")), asked, "{code}");
        }
        assert_eq!(Reconnect::after(&closed(4999, "")), Reconnect::AfterBackoff);
        assert_eq!(
            Reconnect::after(&Closed::broken("cut")),
            Reconnect::AfterBackoff
        );
    }

    #[test]
    fn of_a_refusal_the_close_code_counts_and_the_longer_hint() {
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
