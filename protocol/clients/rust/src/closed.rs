//! How a connection ended.

use std::{fmt, time::Duration};

use protocol::CloseCode;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

/// How a connection ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Closed {
    /// The code of the server's close frame. `None` if the connection broke, or the client ended
    /// it.
    pub code: Option<u16>,
    /// The reason of the server's close frame, or what broke.
    pub reason: String,
}

impl Closed {
    pub(crate) fn broken(reason: impl Into<String>) -> Self {
        Self {
            code: None,
            reason: reason.into(),
        }
    }

    pub(crate) fn by_server(frame: Option<CloseFrame>) -> Self {
        match frame {
            Some(frame) => Self {
                code: Some(frame.code.into()),
                reason: frame.reason.as_str().to_owned(),
            },
            // RFC 6455, 7.1.5: a close frame without a code has the code 1005.
            None => Self {
                code: Some(1005),
                reason: String::new(),
            },
        }
    }

    /// The code, if the protocol defines it.
    pub fn close_code(&self) -> Option<CloseCode> {
        self.code.and_then(CloseCode::of)
    }

    /// Delay before reconnecting, if the reason ends in `retry_after_ms=N`.
    pub fn retry_after(&self) -> Option<Duration> {
        let (_, millis) = self.reason.rsplit_once("retry_after_ms=")?;
        millis.parse().ok().map(Duration::from_millis)
    }
}

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.code {
            Some(code) => write!(f, "closed with {code}: {}", self.reason),
            None => write!(f, "connection ended: {}", self.reason),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_delay_is_parsed_from_the_reason() {
        let closed = Closed {
            code: Some(4012),
            reason: "too many connections retry_after_ms=1500".into(),
        };
        assert_eq!(closed.close_code(), Some(CloseCode::TooManyConnections));
        assert_eq!(closed.retry_after(), Some(Duration::from_millis(1500)));
        assert_eq!(Closed::broken("reset").retry_after(), None);
    }
}
