//! The error of services and transports: a code and a sentence for the caller, and a cause for the
//! log.

use std::{borrow::Cow, fmt};

use protocol::{
    ErrorBody, ErrorCode,
    input::{FIELDS_WITH_CLIENT_KEYS, Misfit},
    value::OutOfBounds,
};
use serde_json::json;
use store::StoreError;

/// The error of a request.
#[derive(Debug, Clone)]
pub struct Error {
    /// The sentence for the caller.
    pub body: ErrorBody,
    /// The cause, for the log only.
    pub cause: Option<String>,
}

/// The result of a service.
pub type Result<T, E = Error> = std::result::Result<T, E>;

const BUSY: &str = "too many changes at once to the same thing; nothing was done";

impl Error {
    /// Returns an error with this code and sentence.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            body: ErrorBody::new(code, message),
            cause: None,
        }
    }

    /// Returns the code.
    pub fn code(&self) -> ErrorCode {
        self.body.code
    }

    /// Sets the time in milliseconds after which the caller should retry.
    pub fn retry_after(mut self, milliseconds: u64) -> Self {
        self.body.retry_after_ms = Some(milliseconds);
        self
    }

    /// A defect. The cause is for the log only.
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

    /// The object does not exist, or the caller may not see it.
    pub fn not_found(what: &str) -> Self {
        Self::new(ErrorCode::NotFound, format!("there is no such {what}"))
    }

    /// The caller may not do this.
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::Forbidden, message)
    }

    /// The object exists already, or changed meanwhile.
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::Conflict, message)
    }

    /// The credential is missing or not valid.
    pub fn unauthenticated(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::Unauthenticated, message)
    }

    /// A value exceeds its maximum size.
    pub fn too_large(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::TooLarge, message)
    }

    /// A count has reached its limit.
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

    /// Other commits conflicted with every attempt of the request.
    pub fn busy() -> Self {
        Self::new(ErrorCode::Unavailable, BUSY).retry_after(100)
    }

    /// Returns whether this is [`busy`](Self::busy).
    pub fn is_busy(&self) -> bool {
        self.body.message == BUSY
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
            StoreError::Full(cause) => Self {
                cause: Some(cause),
                ..Self::new(
                    ErrorCode::Unavailable,
                    "the store is full, nothing was done; what frees room is still done",
                )
                .retry_after(1000)
            },
            StoreError::Busy => Self::new(
                ErrorCode::RateLimited,
                "too many requests read much at once; nothing was done",
            )
            .retry_after(1000),
            StoreError::Corrupt(cause) => Self::internal(cause),
        }
    }
}

impl From<Misfit> for Error {
    fn from(Misfit { field, why, .. }: Misfit) -> Self {
        let why = without_value(&why);
        let mut error = Self::bad_request(format!("the request does not fit: {why}"));
        let field = field.and_then(|field| plain_path(&field));
        error.body.details = field.map(|field| json!({ "field": field, "in": "params" }));
        error
    }
}

/// Maximum characters of an unknown name or word that an error repeats. Secrets, which may be in
/// the wrong place, are longer.
pub const NAME_LENGTH: usize = 32;

fn is_plain_word(word: &str) -> bool {
    word.len() <= NAME_LENGTH
        && word
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'))
}

/// Returns the path of a field without keys that the client chose, which may be secrets in the
/// wrong place. `None` if nothing is left.
pub fn plain_path(path: &str) -> Option<String> {
    let is_plain = |part: &&str| is_plain_word(part.split('[').next().unwrap_or_default());
    let mut parts: Vec<&str> = path.split('.').take_while(is_plain).collect();
    let map = parts
        .iter()
        .position(|part| FIELDS_WITH_CLIENT_KEYS.contains(part));
    parts.truncate(map.map_or(parts.len(), |map| map + 1));
    Some(parts.join(".")).filter(|path| !path.is_empty())
}

/// Returns a parser's error message without the rejected value, which may be a secret in the wrong
/// place.
///
/// An unknown word of an enum is quoted where it is too short to be a secret.
pub fn without_value(why: &str) -> Cow<'_, str> {
    let word = why
        .split_once("unknown variant `")
        .and_then(|(_, rest)| rest.split_once("`, expected "));
    if word.is_some_and(|(word, _)| is_plain_word(word)) {
        return why.into();
    }
    // Serde quotes the value with one of these, and ends with the expectation, which does not come
    // from the client.
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
    fn a_read_whose_turn_did_not_come_is_rate_limited_with_a_hint() {
        let error = Error::from(StoreError::Busy);
        assert_eq!(error.code(), ErrorCode::RateLimited);
        assert!(error.body.retry_after_ms.is_some() && error.cause.is_none());
    }

    #[test]
    fn the_path_of_a_field_ends_before_a_key_that_may_be_a_secret() {
        let secret = "s".repeat(NAME_LENGTH + 1);
        for (path, told) in [
            ("attachments[0].size", Some("attachments[0].size")),
            (&format!("channels.{secret}"), Some("channels")),
            ("channels.eyJ.x", Some("channels")),
            ("resume.general[0]", Some("resume")),
            (
                "attachments[1].metadata.pin",
                Some("attachments[1].metadata"),
            ),
            ("message.channels_more.x", Some("message.channels_more.x")),
            (&format!("{secret}.size"), None),
            ("a b", None),
        ] {
            assert_eq!(plain_path(path).as_deref(), told, "{path}");
        }
    }

    #[test]
    fn a_value_that_does_not_fit_is_not_told() {
        for (why, told) in [
            (
                "unknown variant `prod`, expected `live` or `test`",
                "unknown variant `prod`, expected `live` or `test`",
            ),
            (
                "unknown variant `a canary`, expected `live` or `test`",
                "unknown variant, expected `live` or `test`",
            ),
            (
                "unknown variant `sk_live_0123456789abcdef0123456789`, expected `live`",
                "unknown variant, expected `live`",
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
