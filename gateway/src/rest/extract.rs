//! What requests bring: ids in paths, queries, bodies. Each in the product's own errors.

use std::time::Duration;

use axum::{
    BoxError,
    body::Body as RawBody,
    extract::{FromRequest, FromRequestParts, Request},
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
use crate::limit::{NoRoom, Share};

/// How long a body may take to arrive.
const BODY_TIME: Duration = Duration::from_secs(10);

/// Bytes of a body that count towards no total.
const SMALL_BODY: usize = 2 * 1024;
/// The limit of what is not whole yet.
const LIMIT: &str = "incoming_total_bytes";
/// When a client whose body finds no room tries again, in milliseconds.
const NO_ROOM_RETRY_MS: u64 = 1000;

/// The query.
#[derive(Debug, Clone)]
pub(super) struct Asked<Q>(pub(super) Q);

/// A body of JSON.
#[derive(Debug, Clone)]
pub(super) struct Body<T>(pub(super) T);

/// A body of JSON that may be left out.
#[derive(Debug, Clone)]
pub(super) struct Perhaps<T>(pub(super) T);

impl<Q: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Asked<Q> {
    type Rejection = ErrorResponse;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ErrorResponse> {
        let query = parts.uri.query().unwrap_or_default();
        let pairs = serde_urlencoded::Deserializer::new(form_urlencoded::parse(query.as_bytes()));
        Ok(Self(strict::read("query", pairs)?))
    }
}

impl<T: DeserializeOwned> FromRequest<Shared> for Body<T> {
    type Rejection = ErrorResponse;

    async fn from_request(request: Request, state: &Shared) -> Result<Self, ErrorResponse> {
        let bytes = read(request, state).await?;
        Ok(Self(strict::read_body(&bytes)?))
    }
}

impl<T: DeserializeOwned> FromRequest<Shared> for Perhaps<T> {
    type Rejection = ErrorResponse;

    async fn from_request(request: Request, state: &Shared) -> Result<Self, ErrorResponse> {
        if http_body::Body::is_end_stream(request.body()) {
            return Ok(Self(strict::read_body(b"{}")?));
        }
        let bytes = read(request, state).await?;
        Ok(Self(strict::read_body(if bytes.is_empty() {
            b"{}"
        } else {
            &bytes
        })?))
    }
}

/// Reads a body of at most `frame_bytes`, in time. While it is not whole, what is beyond
/// [`SMALL_BODY`] counts towards `incoming_total_bytes`.
async fn read(request: Request, state: &Shared) -> Result<Vec<u8>> {
    let most = state.services.limits.frame_bytes;
    check_media(request.method(), request.headers())?;
    let too_large = || Error::too_large(format!("the body is larger than {most} bytes"));
    let most_here = if most == 0 {
        usize::MAX
    } else {
        usize::try_from(most).unwrap_or(usize::MAX)
    };
    let announced = http_body::Body::size_hint(request.body()).lower();
    if usize::try_from(announced).map_or(true, |announced| announced > most_here) {
        return Err(too_large());
    }
    let mut share = state.incoming.share();
    let body: Limited<RawBody> = Limited::new(request.into_body(), most_here);
    match tokio::time::timeout(BODY_TIME, collect(body, &mut share)).await {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(error)) if error.is::<NoRoom>() => {
            state.metrics.limit_hit(LIMIT);
            Err(Error::rate_limited(LIMIT, NO_ROOM_RETRY_MS))
        }
        Ok(Err(_)) => Err(Error::bad_request("the body ended before it was complete")),
        Err(_) => Err(Error::bad_request(
            "the body did not arrive within 10 seconds",
        )),
    }
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
