//! What an error of a request means for asking again.

use std::time::Duration;

use protocol::{ErrorBody, ErrorCode};

/// What an error of a request means for asking again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The session asks too much (`rate_limited`): nothing of it is to be asked before so long.
    TooFast(Option<Duration>),
    /// It may pass (`unavailable`): again after a back-off, not before so long. Nothing was done, or whether it was is unknown.
    Passing(Option<Duration>),
    /// A defect of the server (`internal`, and words that are not known): again after a back-off, but not for ever.
    Defect,
    /// Asking again would not help.
    Definite,
}

impl Refusal {
    /// What this error means.
    pub fn of(error: &ErrorBody) -> Self {
        let hint = error.retry_after_ms.map(Duration::from_millis);
        match error.code {
            ErrorCode::RateLimited => Self::TooFast(hint),
            ErrorCode::Unavailable => Self::Passing(hint),
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
            | ErrorCode::LimitReached => Self::Definite,
        }
    }
}
