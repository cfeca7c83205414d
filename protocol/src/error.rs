//! Errors: stable codes with their HTTP statuses, and the bodies that carry them.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::wire::wire;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident $word:literal $status:literal,)*) => {
        /// A stable code of an error.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum ErrorCode { $($(#[$doc])* $name,)* }

        impl ErrorCode {
            /// All codes.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// Returns the word on the wire.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $word,)* }
            }

            /// Returns the HTTP status.
            pub fn status(self) -> u16 {
                match self { $(Self::$name => $status,)* }
            }

            /// Returns the code of a word. An unknown word is treated as `internal`.
            pub fn of(word: &str) -> Self {
                match word { $($word => Self::$name,)* _ => Self::Internal }
            }
        }
    };
}

codes! {
    /// The request is malformed, or a parameter is invalid.
    BadRequest "bad_request" 400,
    /// The credential is missing or invalid.
    Unauthenticated "unauthenticated" 401,
    /// The object is visible to the credential, but the operation is not permitted.
    Forbidden "forbidden" 403,
    /// The object does not exist, or is not visible to the credential.
    NotFound "not_found" 404,
    /// The path does not support the method.
    MethodNotAllowed "method_not_allowed" 405,
    /// The object exists already, or changed concurrently.
    Conflict "conflict" 409,
    /// `If-Match` names another version than the current one.
    PreconditionFailed "precondition_failed" 412,
    /// A body, a text or free data exceeds its limit.
    TooLarge "too_large" 413,
    /// The method is unknown, or the media type is not supported.
    Unsupported "unsupported" 415,
    /// A maximum count is reached; a retry does not help.
    LimitReached "limit_reached" 422,
    /// Too many requests; `retry_after_ms` says when to retry.
    RateLimited "rate_limited" 429,
    /// A defect of the server.
    Internal "internal" 500,
    /// The store cannot be reached: nothing was done, or it is unknown whether it was. A retry with
    /// the same id is safe.
    Unavailable "unavailable" 503,
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for ErrorCode {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for ErrorCode {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let word = String::deserialize(deserializer)?;
        Ok(Self::of(&word))
    }
}

/// An error in a reply or an HTTP response.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[error("{code}: {message}")]
pub struct ErrorBody {
    /// Stable code.
    #[cfg_attr(feature = "schema", schema(value_type = String, example = "not_found"))]
    pub code: ErrorCode,
    /// Description for people.
    pub message: String,
    /// Milliseconds after which a retry may succeed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
    /// The invalid field and the reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<Object>))]
    pub details: Option<serde_json::Value>,
}

impl ErrorBody {
    /// Returns a body with this code and description.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            retry_after_ms: None,
            details: None,
        }
    }
}

wire! {
    /// The body of every HTTP error.
    pub struct ErrorAnswer {
        /// The error.
        pub error: ErrorBody,
    }
}
