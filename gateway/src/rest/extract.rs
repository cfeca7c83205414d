//! What requests bring: ids in paths, queries, bodies. Each in the product's own errors.

use std::time::Duration;

use axum::{
    body::Body as RawBody,
    extract::{FromRequest, FromRequestParts, MatchedPath, Query, RawPathParams, Request},
    http::{HeaderMap, Method, header, request::Parts},
};
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use protocol::ErrorCode;
use serde::de::{DeserializeOwned, value::MapDeserializer};
use serde_json::json;

use super::Shared;
use crate::error::{Error, Result, without_value};

/// How long a body may take to arrive.
const BODY_TIME: Duration = Duration::from_secs(10);

/// The ids in the path. What cannot be an id is as absent as an id that nobody has.
#[derive(Debug, Clone)]
pub(super) struct In<P>(pub(super) P);

/// The query.
#[derive(Debug, Clone)]
pub(super) struct Asked<Q>(pub(super) Q);

/// A body of JSON.
#[derive(Debug, Clone)]
pub(super) struct Body<T>(pub(super) T);

/// A body of JSON that may be left out.
#[derive(Debug, Clone)]
pub(super) struct Perhaps<T>(pub(super) T);

impl<P: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for In<P> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        let raw = RawPathParams::from_request_parts(parts, state)
            .await
            .map_err(|_| Error::not_found("path"))?;
        let mut pairs: Vec<(String, String)> = raw
            .iter()
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        // A user may be called `batch`: what is not the batch itself is about that user.
        if parts
            .extensions
            .get::<MatchedPath>()
            .is_some_and(|path| path.as_str().ends_with("/batch"))
        {
            pairs.push(("user".to_owned(), "batch".to_owned()));
        }
        let ids = MapDeserializer::<_, serde::de::value::Error>::new(pairs.into_iter());
        match serde_path_to_error::deserialize(ids) {
            Ok(ids) => Ok(Self(ids)),
            Err(error) => Err(Error::not_found(match error.path().to_string().as_str() {
                "org" => "organization",
                "app" => "app",
                "key" => "key",
                "user" => "user",
                "channel" => "channel",
                "message" => "message",
                _ => "path",
            })),
        }
    }
}

impl<Q: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Asked<Q> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self> {
        match Query::try_from_uri(&parts.uri) {
            Ok(Query(query)) => Ok(Self(query)),
            Err(rejection) => {
                let text = std::error::Error::source(&rejection)
                    .map(ToString::to_string)
                    .unwrap_or_default();
                let field = text
                    .split_once(": ")
                    .map(|(field, _)| field)
                    .filter(|field| !field.contains(' '));
                Err(misfit("query", field, &text))
            }
        }
    }
}

impl<T: DeserializeOwned> FromRequest<Shared> for Body<T> {
    type Rejection = Error;

    async fn from_request(request: Request, state: &Shared) -> Result<Self> {
        let bytes = read(request, state.services.limits.frame_bytes).await?;
        parse(&bytes).map(Self)
    }
}

impl<T: DeserializeOwned + Default> FromRequest<Shared> for Perhaps<T> {
    type Rejection = Error;

    async fn from_request(request: Request, state: &Shared) -> Result<Self> {
        if http_body::Body::is_end_stream(request.body()) {
            return Ok(Self(T::default()));
        }
        let bytes = read(request, state.services.limits.frame_bytes).await?;
        if bytes.is_empty() {
            Ok(Self(T::default()))
        } else {
            parse(&bytes).map(Self)
        }
    }
}

/// Reads a body of at most so many bytes (0: any), in time.
async fn read(request: Request, most: u64) -> Result<Bytes> {
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
    let body: Limited<RawBody> = Limited::new(request.into_body(), most_here);
    match tokio::time::timeout(BODY_TIME, body.collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(_)) => Err(Error::bad_request("the body ended before it was complete")),
        Err(_) => Err(Error::bad_request(
            "the body did not arrive within 10 seconds",
        )),
    }
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

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    // Serde would also read a struct from an array of its fields.
    if bytes
        .iter()
        .find(|byte| !byte.is_ascii_whitespace())
        .is_some_and(|byte| *byte != b'{')
    {
        return Err(misfit("body", None, "it is no JSON object"));
    }
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let path = error.path().to_string();
        let why = error.into_inner().to_string();
        // Serde names the place of a missing field, not the field.
        let missing = why
            .strip_prefix("missing field `")
            .and_then(|rest| rest.split('`').next());
        let field = match (path.as_str(), missing) {
            (".", missing) => missing.map(str::to_owned),
            (path, Some(missing)) => Some(format!("{path}.{missing}")),
            (path, None) => Some(path.to_owned()),
        };
        misfit("body", field.as_deref(), &why)
    })?;
    reader
        .end()
        .map_err(|_| misfit("body", None, "something follows the JSON object"))?;
    Ok(value)
}

/// A request that does not fit its description, with where and why.
pub(super) fn misfit(part: &str, field: Option<&str>, why: &str) -> Error {
    let mut error = Error::bad_request(format!("the {part} does not fit: {}", without_value(why)));
    error.body.details = field.map(|field| json!({ "field": field, "in": part }));
    error
}
