//! The reason why no session was opened.

use std::io;

use protocol::{ErrorBody, codec::DecodeError};

use crate::{Closed, RequestError};

/// The reason why no session was opened.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The address cannot be used.
    #[error("invalid address of a node: {0}")]
    Address(String),
    /// The TCP connection could not be made.
    #[error("cannot reach the node: {0}")]
    Unreachable(#[from] io::Error),
    /// The upgrade got an HTTP status other than 101.
    #[error("the upgrade was refused with HTTP {status}: {body}")]
    Upgrade {
        /// The status code.
        status: u16,
        /// The body, as text.
        body: String,
    },
    /// The upgrade failed otherwise.
    #[error("the upgrade failed: {0}")]
    Handshake(String),
    /// The server refused `connect`.
    #[error("connect was refused: {error}")]
    Refused {
        /// The server's error.
        error: ErrorBody,
        /// How the server closed the connection afterwards.
        closed: Closed,
    },
    /// The connection ended before the reply to `connect`.
    #[error(transparent)]
    Closed(#[from] Closed),
    /// The reply to `connect` cannot be parsed.
    #[error("the reply to connect cannot be parsed: {0}")]
    Unreadable(#[from] DecodeError),
    /// Connecting took longer than [`Connector::timeout`](crate::Connector::timeout).
    #[error("connecting took too long")]
    Timeout,
}

impl ConnectError {
    pub(crate) fn refused(error: RequestError, closed: impl FnOnce() -> Closed) -> Self {
        match error {
            RequestError::Refused(error) => Self::Refused {
                error,
                closed: closed(),
            },
            RequestError::Closed(closed) => Self::Closed(closed),
            RequestError::Timeout => Self::Timeout,
            RequestError::Unreadable(error) => Self::Unreadable(error),
        }
    }
}
