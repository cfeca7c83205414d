//! Refusals of connections that have no session yet, which are charged to their address.

use std::{borrow::Cow, time::Instant};

use fanout::LogRateLimit;
use protocol::{CloseCode, ErrorBody};

use crate::{
    auth::Attempt,
    limit::AddressGroup,
    metrics::{self, Metrics},
    session,
    sessions::Refused,
};

/// A connection that ended before it had a session.
#[derive(Debug)]
pub(super) enum OpeningError {
    /// The node closed it.
    Refused(ConnectionRefusal),
    /// The peer disconnected, which counts against its address.
    PeerDisconnected,
}

impl From<ConnectionRefusal> for OpeningError {
    fn from(refusal: ConnectionRefusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<Refused> for OpeningError {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused.into())
    }
}

/// The reason for which the node closes a connection without a session.
#[derive(Debug)]
pub(super) struct ConnectionRefusal {
    pub(super) code: CloseCode,
    /// The reason in the close frame.
    pub(super) reason: Cow<'static, str>,
    /// The id of the request and the error to reply with; `None` if the id could not be decoded.
    pub(super) answer: Option<(u32, ErrorBody)>,
    pub(super) retry_after_ms: Option<u64>,
    /// Whether the refusal counts against the address.
    pub(super) counts_against_address: bool,
}

impl ConnectionRefusal {
    /// A refusal that the peer caused. It counts against its address.
    pub(super) fn by_peer(code: CloseCode) -> Self {
        Self {
            code,
            reason: code.reason().into(),
            answer: None,
            retry_after_ms: None,
            counts_against_address: true,
        }
    }

    /// A refusal that the node caused. It does not count against the address.
    pub(super) fn by_node(code: CloseCode) -> Self {
        Self {
            counts_against_address: false,
            ..Self::by_peer(code)
        }
    }
}

impl From<Refused> for ConnectionRefusal {
    fn from(refused: Refused) -> Self {
        let Refused {
            id,
            error,
            close,
            reason,
            counts_against_address,
        } = refused;
        let retry_after_ms = error.retry_after_ms;
        Self {
            code: close,
            reason,
            answer: Some((id, error)),
            retry_after_ms,
            counts_against_address,
        }
    }
}

impl From<session::InvalidConnect> for ConnectionRefusal {
    fn from(refusal: session::InvalidConnect) -> Self {
        Self {
            answer: refusal.answer,
            reason: refusal.reason,
            ..Self::by_peer(refusal.close)
        }
    }
}

static REFUSALS: LogRateLimit = LogRateLimit::new(10);

/// Charges a connection without a session to its address. The next upgrade is refused while the
/// bucket of the address is empty.
pub(super) fn charge(attempt: &mut Attempt) {
    let _: Result<(), _> = attempt.charge();
}

/// Counts a refusal, and logs it at a limited rate.
pub(super) fn log(metrics: &Metrics, refusal: &ConnectionRefusal, address: AddressGroup) {
    match refusal.code {
        CloseCode::TokenRefused | CloseCode::TokenExpired => {
            metrics.refused(metrics::RefusalReason::Token)
        }
        CloseCode::TooManyConnections => metrics.refused(metrics::RefusalReason::Limit),
        CloseCode::GoingAway => metrics.refused(metrics::RefusalReason::NotReady),
        _ => metrics.refused(metrics::RefusalReason::Protocol),
    }
    if let Some(suppressed) = REFUSALS.pass(Instant::now()) {
        let error = refusal
            .answer
            .as_ref()
            .map_or(&*refusal.reason, |(_, error)| &error.message);
        tracing::info!(%address, code = refusal.code.code(), error, suppressed, "connection refused before a session");
    }
}
