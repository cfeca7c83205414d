//! The one error of services and transports: a code and a sentence for the caller, the cause for the log.

use std::{borrow::Cow, fmt};

use protocol::{ErrorBody, ErrorCode, codec::DecodeError, value::OutOfBounds};

use crate::store::StoreError;

/// What went wrong with a request.
#[derive(Debug, Clone)]
pub struct Error {
    /// What the caller is told.
    pub body: ErrorBody,
    /// What only the log is told.
    pub cause: Option<String>,
}

/// The result of a service.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// A code with its sentence.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            body: ErrorBody::new(code, message),
            cause: None,
        }
    }

    /// The code.
    pub fn code(&self) -> ErrorCode {
        self.body.code
    }

    /// Adds when to try again.
    pub fn retry_after(mut self, milliseconds: u64) -> Self {
        self.body.retry_after_ms = Some(milliseconds);
        self
    }

    /// A defect: the caller learns nothing of the cause.
    pub fn internal(cause: impl fmt::Display) -> Self {
        Self {
            cause: Some(cause.to_string()),
            ..Self::new(
                ErrorCode::Internal,
                "the server made a mistake; it is in its log",
            )
        }
    }

    /// The request does not fit its description.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::BadRequest, message)
    }

    /// It does not exist, or may not be seen: both sound the same.
    pub fn not_found(what: &str) -> Self {
        Self::new(ErrorCode::NotFound, format!("there is no such {what}"))
    }

    /// It may be seen, and not be done.
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::Forbidden, message)
    }

    /// It exists already, or changed meanwhile.
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::Conflict, message)
    }

    /// No credential, or one that is not valid.
    pub fn unauthenticated(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::Unauthenticated, message)
    }

    /// Larger than its limit.
    pub fn too_large(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::TooLarge, message)
    }

    /// A count is full.
    pub fn limit_reached(limit: &str, value: u64) -> Self {
        let mut error = Self::new(
            ErrorCode::LimitReached,
            format!("the limit `{limit}` of {value} is reached"),
        );
        error.body.details = Some(serde_json::json!({ "limit": limit, "value": value }));
        error
    }

    /// Too many requests.
    pub fn rate_limited(limit: &str, retry_after_ms: u64) -> Self {
        Self::new(
            ErrorCode::RateLimited,
            format!("too many requests: the limit `{limit}` is reached"),
        )
        .retry_after(retry_after_ms)
    }

    /// Documents kept changing under a request.
    pub fn busy() -> Self {
        Self::new(
            ErrorCode::Unavailable,
            "too many changes at once to the same thing; nothing was done",
        )
        .retry_after(100)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.body)?;
        match &self.cause {
            Some(cause) => write!(f, " ({cause})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(cause) => Self {
                cause: Some(cause),
                ..Self::new(
                    ErrorCode::Unavailable,
                    "the store cannot be reached; sending again with the same id is safe",
                )
                .retry_after(1000)
            },
            StoreError::Corrupt(cause) => Self::internal(cause),
        }
    }
}

impl From<DecodeError> for Error {
    fn from(error: DecodeError) -> Self {
        Self::bad_request(format!(
            "the request does not fit: {}",
            without_value(&error.to_string())
        ))
    }
}

/// What a reader says of a value that does not fit, without the value: it may be a secret in the wrong place.
pub fn without_value(why: &str) -> Cow<'_, str> {
    // Serde quotes the value with the one or the other, and ends with what it expected, which is ours.
    match (why.find(['`', '"']), why.rfind(", expected ")) {
        (Some(value), Some(expected)) if value < expected => {
            format!("{}{}", why[..value].trim_end(), &why[expected..]).into()
        }
        _ => why.into(),
    }
}

impl From<OutOfBounds> for Error {
    fn from(error: OutOfBounds) -> Self {
        match error {
            OutOfBounds::Size => Self::too_large(error.to_string()),
            OutOfBounds::Depth | OutOfBounds::Integer => Self::bad_request(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_that_does_not_fit_is_not_told() {
        for (why, told) in [
            (
                "unknown variant `canary`, expected `live` or `test`",
                "unknown variant, expected `live` or `test`",
            ),
            (
                r#"type: invalid type: string "a, expected b", expected u64"#,
                "type: invalid type: string, expected u64",
            ),
            (
                "invalid value: integer `-1`, expected u64 at line 1 column 9",
                "invalid value: integer, expected u64 at line 1 column 9",
            ),
            (
                "missing field `name` at line 1 column 2",
                "missing field `name` at line 1 column 2",
            ),
            (
                "invalid type: null, expected a `role`",
                "invalid type: null, expected a `role`",
            ),
        ] {
            assert_eq!(without_value(why), told);
        }
    }
}
