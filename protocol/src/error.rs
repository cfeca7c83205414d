//! Error codes: stable words, each with its HTTP status.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident $word:literal $status:literal,)*) => {
        /// A stable word for what went wrong.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum ErrorCode { $($(#[$doc])* $name,)* }

        impl ErrorCode {
            /// Every code.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The word on the wire.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $word,)* }
            }

            /// The HTTP status that goes with it.
            pub fn status(self) -> u16 {
                match self { $(Self::$name => $status,)* }
            }

            /// The code of a word. A client treats a word that it does not know like `internal`.
            pub fn of(word: &str) -> Self {
                match word { $($word => Self::$name,)* _ => Self::Internal }
            }
        }
    };
}

codes! {
    /// The request does not fit its description.
    BadRequest "bad_request" 400,
    /// No credential, or one that is not valid.
    Unauthenticated "unauthenticated" 401,
    /// It exists for this credential, but may not be done by it.
    Forbidden "forbidden" 403,
    /// It does not exist, or may not be seen.
    NotFound "not_found" 404,
    /// The path exists, with other methods.
    MethodNotAllowed "method_not_allowed" 405,
    /// It exists already, or changed meanwhile.
    Conflict "conflict" 409,
    /// `If-Match` names another version.
    PreconditionFailed "precondition_failed" 412,
    /// A body, a text or free data is larger than its limit.
    TooLarge "too_large" 413,
    /// An unknown method, or a media type that is not read here.
    Unsupported "unsupported" 415,
    /// A count is full; trying again does not help.
    LimitReached "limit_reached" 422,
    /// Too many requests; `retry_after_ms` tells when to go on.
    RateLimited "rate_limited" 429,
    /// A defect of the server.
    Internal "internal" 500,
    /// The store cannot be reached: nothing was done, or whether it was is unknown. Sending again with the same id is safe.
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

/// What a reply or an HTTP answer says of an error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[error("{code}: {message}")]
pub struct ErrorBody {
    /// A stable word.
    #[cfg_attr(feature = "schema", schema(value_type = String, example = "not_found"))]
    pub code: ErrorCode,
    /// A sentence for a person.
    pub message: String,
    /// When trying again may help, in milliseconds from now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
    /// Which field, and what is wrong with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<Object>))]
    pub details: Option<serde_json::Value>,
}

impl ErrorBody {
    /// A code with its sentence.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            retry_after_ms: None,
            details: None,
        }
    }
}
