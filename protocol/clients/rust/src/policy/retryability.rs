//! Whether and when to retry a request after an error.

use std::time::Duration;

use protocol::{ErrorBody, ErrorCode};

/// Whether and when to retry a request after an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retryability {
    /// `rate_limited`: the session must not make any request before the given time.
    RateLimited(Option<Duration>),
    /// `unavailable`: retry after a backoff, not before the given time. The request may have been
    /// carried out.
    Temporary(Option<Duration>),
    /// `internal` and unknown codes, a defect of the server: retry after a backoff a few times.
    Defect,
    /// Any other code: a retry would fail again.
    Permanent,
}

impl Retryability {
    /// Classifies an error.
    pub fn of(error: &ErrorBody) -> Self {
        let hint = error.retry_after_ms.map(Duration::from_millis);
        match error.code {
            ErrorCode::RateLimited => Self::RateLimited(hint),
            ErrorCode::Unavailable => Self::Temporary(hint),
            ErrorCode::Internal => Self::Defect,
            ErrorCode::BadRequest
            | ErrorCode::Unauthenticated
            | ErrorCode::Forbidden
            | ErrorCode::NotFound
            | ErrorCode::MethodNotAllowed
            | ErrorCode::Conflict
            | ErrorCode::PreconditionFailed
            | ErrorCode::TooLarge
            | ErrorCode::Unsupported
            | ErrorCode::LimitReached => Self::Permanent,
        }
    }
}
