//! Extracts the input of requests: ids in paths, queries, bodies. Each in the product's own errors.

use std::time::Duration;

use axum::{
    BoxError,
    body::Body as RawBody,
    extract::{FromRequestParts, Request},
    http::{HeaderMap, Method, header, request::Parts},
};
use domain::{
    error::{Error, Result},
    strict,
};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use protocol::ErrorCode;
use serde::de::DeserializeOwned;

use super::{Shared, error_response::ErrorResponse};
use crate::limit::{NoRoom, Share, request_bytes};

/// How long a body may take to arrive.
const BODY_TIME: Duration = Duration::from_secs(10);

/// Bytes of a body that does not count.
const SMALL_BODY: usize = 2 * 1024;

/// The query.
#[derive(Debug, Clone)]
pub(super) struct QueryParams<Q>(pub(super) Q);

impl<Q: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for QueryParams<Q> {
    type Rejection = ErrorResponse;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ErrorResponse> {
        let query = parts.uri.query().unwrap_or_default();
        let pairs = serde_urlencoded::Deserializer::new(form_urlencoded::parse(query.as_bytes()));
        Ok(Self(strict::read("query", pairs)?))
    }
}

/// Reads a JSON body. Sets the share to the estimated memory of the decoded body.
pub(super) async fn body<T: DeserializeOwned>(
    request: Request,
    state: &Shared,
    share: &mut Share,
) -> Result<T> {
    strict::read_body(&read(request, state, share).await?)
}

/// Reads an optional JSON body. Sets the share to the estimated memory of the decoded body.
pub(super) async fn optional_body<T: DeserializeOwned>(
    request: Request,
    state: &Shared,
    share: &mut Share,
) -> Result<T> {
    if http_body::Body::is_end_stream(request.body()) {
        return strict::read_body(b"{}");
    }
    let bytes = read(request, state, share).await?;
    strict::read_body(if bytes.is_empty() { b"{}" } else { &bytes })
}

/// Reads a body of at most `frame_bytes`, in time. Bytes beyond [`SMALL_BODY`] count towards
/// `requests_total_bytes` while they arrive, and the estimated memory of the decoded body
/// afterwards.
async fn read(request: Request, state: &Shared, share: &mut Share) -> Result<Vec<u8>> {
    let most = state.services.limits.frame_bytes;
    check_media(request.method(), request.headers())?;
    let too_large = || Error::too_large(format!("the body is larger than {most} bytes"));
    let max_bytes = if most == 0 {
        usize::MAX
    } else {
        usize::try_from(most).unwrap_or(usize::MAX)
    };
    let announced = http_body::Body::size_hint(request.body()).lower();
    if usize::try_from(announced).map_or(true, |announced| announced > max_bytes) {
        return Err(too_large());
    }
    let body: Limited<RawBody> = Limited::new(request.into_body(), max_bytes);
    let body = match tokio::time::timeout(BODY_TIME, collect(body, share)).await {
        Ok(Ok(body)) => body,
        Ok(Err(error)) if error.is::<LengthLimitError>() => return Err(too_large()),
        Ok(Err(error)) if error.is::<NoRoom>() => return Err(no_room(state)),
        Ok(Err(_)) => {
            return Err(Error::bad_request("the body ended before it was complete"));
        }
        Err(_) => {
            return Err(Error::bad_request(
                "the body did not arrive within 10 seconds",
            ));
        }
    };
    if body.len() > SMALL_BODY {
        let held = request_bytes::decoded(body.len());
        share.resize(held).map_err(|NoRoom| no_room(state))?;
    }
    Ok(body)
}

/// Counts a refusal for lack of room, and returns its error.
pub(super) fn no_room(state: &Shared) -> Error {
    state.metrics.limit_hit(request_bytes::LIMIT);
    Error::rate_limited(request_bytes::LIMIT, request_bytes::RETRY_MS)
}

async fn collect(mut body: Limited<RawBody>, share: &mut Share) -> Result<Vec<u8>, BoxError> {
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else {
            continue;
        };
        let needed = bytes.len() + data.len();
        if needed > bytes.capacity() {
            // A vector doubles when it grows.
            let capacity = needed.max(2 * bytes.capacity());
            if capacity > SMALL_BODY {
                share.resize(capacity)?;
            }
            bytes.reserve_exact(capacity - bytes.len());
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes)
}

fn check_media(method: &Method, headers: &HeaderMap) -> Result<()> {
    let unsupported = |sentence: &str| Err(Error::new(ErrorCode::Unsupported, sentence));
    if headers
        .get(header::CONTENT_ENCODING)
        .is_some_and(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity"))
    {
        return unsupported("bodies are sent without a Content-Encoding");
    }
    let media = headers
        .get(header::CONTENT_TYPE)
        .and_then(|media| media.to_str().ok())
        .unwrap_or_default();
    let essence = media.split(';').next().unwrap_or_default().trim();
    let is_json = essence.eq_ignore_ascii_case("application/json");
    let is_patch =
        method == Method::PATCH && essence.eq_ignore_ascii_case("application/merge-patch+json");
    match method {
        _ if is_json || is_patch => Ok(()),
        &Method::PATCH => unsupported(
            "a patch is sent with `Content-Type: application/merge-patch+json` or `application/json`",
        ),
        _ => unsupported("a body is sent with `Content-Type: application/json`"),
    }
}
