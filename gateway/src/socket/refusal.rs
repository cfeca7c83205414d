//! Why a connection has no session, and what that costs its address.

use std::{borrow::Cow, time::Instant};

use protocol::{CloseCode, ErrorBody};

use crate::{
    auth::Attempt,
    limit::AddressGroup,
    log::LogRateLimit,
    metrics::{self, Metrics},
    session,
    sessions::Refused,
};

/// How a connection ended before there was a session.
#[derive(Debug)]
pub(super) enum Ended {
    /// The node closed it.
    Refused(Refusal),
    /// The peer was gone before that, which counts against the address.
    Gone,
}

impl From<Refusal> for Ended {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<Refused> for Ended {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused.into())
    }
}

/// Why the node closes a connection that has no session.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) code: CloseCode,
    /// The reason in the close frame.
    pub(super) reason: Cow<'static, str>,
    /// The reply to its request, if it could be read that far.
    pub(super) answer: Option<(u32, ErrorBody)>,
    pub(super) retry_after_ms: Option<u64>,
    /// Whether it counts against the address.
    pub(super) counts: bool,
}

impl Refusal {
    /// The peer's own fault.
    pub(super) fn fault(code: CloseCode) -> Self {
        Self {
            code,
            reason: code.reason().into(),
            answer: None,
            retry_after_ms: None,
            counts: true,
        }
    }

    /// The node's choice.
    pub(super) fn choice(code: CloseCode) -> Self {
        Self {
            counts: false,
            ..Self::fault(code)
        }
    }
}

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Self {
        let Refused {
            id,
            error,
            close,
            reason,
            counts,
        } = refused;
        let retry_after_ms = error.retry_after_ms;
        Self {
            code: close,
            reason,
            answer: Some((id, error)),
            retry_after_ms,
            counts,
        }
    }
}

impl From<session::InvalidConnect> for Refusal {
    fn from(refusal: session::InvalidConnect) -> Self {
        Self {
            answer: refusal.answer,
            reason: refusal.reason,
            ..Self::fault(refusal.close)
        }
    }
}

static REFUSALS: LogRateLimit = LogRateLimit::new(10);

/// Counts a connection without a session against its address, which is refused at its next upgrade
/// if it has no token left.
pub(super) fn charge(attempt: &mut Attempt) {
    let _: Result<(), _> = attempt.charge();
}

/// Counts a refusal, and logs it now and then.
pub(super) fn log(metrics: &Metrics, refusal: &Refusal, address: AddressGroup) {
    match refusal.code {
        CloseCode::TokenRefused | CloseCode::TokenExpired => {
            metrics.refused(metrics::Refusal::Token)
        }
        CloseCode::TooManyConnections => metrics.refused(metrics::Refusal::Limit),
        CloseCode::GoingAway => metrics.refused(metrics::Refusal::NotReady),
        _ => metrics.refused(metrics::Refusal::Protocol),
    }
    if let Some(held_back) = REFUSALS.pass(Instant::now()) {
        let error = refusal
            .answer
            .as_ref()
            .map_or(&*refusal.reason, |(_, error)| &error.message);
        tracing::info!(%address, code = refusal.code.code(), error, held_back, "connection refused before a session");
    }
}
