//! `If-Match` and `If-None-Match`.

use std::convert::Infallible;

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, header, request::Parts},
};
use domain::{
    document::{IfMatch, Precondition},
    error::{Error, Result},
};

use super::error_response::ErrorResponse;

/// The precondition of a change: `If-Match` with one tag or `*`, or `If-None-Match: *`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Insists(pub(super) IfMatch);

/// The versions that a reader has: `If-None-Match`.
#[derive(Debug, Clone, Default)]
pub(super) struct Known(Vec<String>);

impl<S: Send + Sync> FromRequestParts<S> for Insists {
    type Rejection = ErrorResponse;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ErrorResponse> {
        let wanted = tags(&parts.headers, &header::IF_MATCH);
        let unwanted = tags(&parts.headers, &header::IF_NONE_MATCH);
        match (wanted.as_slice(), unwanted.as_slice()) {
            ([], []) => Ok(Self(None)),
            ([tag], []) if tag == "*" => Ok(Self(Some(Precondition::Present))),
            // An unknown tag matches no version.
            ([tag], []) => Ok(Self(Some(Precondition::Version(
                version(tag).unwrap_or(u64::MAX),
            )))),
            ([], [tag]) if tag == "*" => Ok(Self(Some(Precondition::Absent))),
            _ => Err(Error::bad_request(
                "a change takes `If-Match` with one tag or *, or `If-None-Match: *`, and not both",
            )
            .into()),
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Known {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self(tags(&parts.headers, &header::IF_NONE_MATCH)))
    }
}

impl Known {
    /// Returns whether the tag is one of them, with the weak comparison of RFC 9110.
    pub(super) fn has(&self, etag: &str) -> bool {
        self.0
            .iter()
            .any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag)
    }
}

fn tags(headers: &HeaderMap, name: &header::HeaderName) -> Vec<String> {
    let values = headers
        .get_all(name)
        .iter()
        .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    values
        .flat_map(|value| {
            value
                .split(',')
                .map(|tag| tag.trim().to_owned())
                .collect::<Vec<_>>()
        })
        .collect()
}

/// Returns the version of a strong tag of this API.
fn version(tag: &str) -> Option<u64> {
    let inner = tag.strip_prefix('"')?.strip_suffix('"')?;
    let digits = inner.split_once('.').map_or(inner, |(version, _)| version);
    // `parse` would accept a sign.
    digits
        .bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| digits.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_strong_tag_names_a_version() {
        assert_eq!(version("\"7\""), Some(7));
        assert_eq!(version("\"7.3\""), Some(7));
        for tag in ["7", "W/\"7\"", "\"\"", "\"+7\"", "\"x\"", "*"] {
            assert_eq!(version(tag), None, "{tag}");
        }
    }
}
