//! How answers and errors are written.

use std::sync::Arc;

use axum::{
    Json,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use protocol::{ErrorCode, results::ErrorAnswer};
use serde::Serialize;

use super::conditions::Known;
use crate::error::{Error, Result};

/// An answer of JSON, with the entity's tag where it is one.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Answer<T> {
    pub(super) status: StatusCode,
    pub(super) etag: Option<String>,
    pub(super) value: T,
}

impl<T> Answer<T> {
    /// 200.
    pub(super) fn ok(value: T) -> Self {
        Self {
            status: StatusCode::OK,
            etag: None,
            value,
        }
    }

    /// 201.
    pub(super) fn created(value: T) -> Self {
        Self {
            status: StatusCode::CREATED,
            etag: None,
            value,
        }
    }

    /// 201 if the request made it, else 200.
    pub(super) fn made(is_new: bool, value: T) -> Self {
        if is_new {
            Self::created(value)
        } else {
            Self::ok(value)
        }
    }

    /// With a tag: the version that `If-Match` is held against, and what else shows in the entity, so that equal tags mean equal entities.
    pub(super) fn tagged(self, version: u64, shown: Option<u64>) -> Self {
        let tag = match shown {
            Some(shown) => format!("\"{version}.{shown}\""),
            None => format!("\"{version}\""),
        };
        Self {
            etag: Some(tag),
            ..self
        }
    }
}

impl<T: Serialize> Answer<T> {
    /// 304 without a body if the caller has this very state.
    pub(super) fn unless(self, known: &Known) -> Response {
        match &self.etag {
            Some(etag) if known.has(etag) => {
                (StatusCode::NOT_MODIFIED, [(header::ETAG, etag.clone())]).into_response()
            }
            _ => self.into_response(),
        }
    }
}

impl<T: Serialize> IntoResponse for Answer<T> {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.value)).into_response();
        if let Some(etag) = self.etag.and_then(|etag| HeaderValue::from_str(&etag).ok()) {
            response.headers_mut().insert(header::ETAG, etag);
        }
        response
    }
}

/// 204.
pub(super) fn done(result: Result<()>) -> Result<StatusCode> {
    result.map(|()| StatusCode::NO_CONTENT)
}

/// The error of a response, for whoever counts and logs.
#[derive(Debug, Clone)]
pub(super) struct Failure(pub(super) Arc<Error>);

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let status =
            StatusCode::from_u16(self.code().status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut headers = HeaderMap::new();
        if let Some(milliseconds) = self.body.retry_after_ms {
            headers.insert(header::RETRY_AFTER, milliseconds.div_ceil(1000).into());
        }
        if self.code() == ErrorCode::Unauthenticated {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        let mut response = (
            status,
            headers,
            Json(ErrorAnswer {
                error: self.body.clone(),
            }),
        )
            .into_response();
        response.extensions_mut().insert(Failure(Arc::new(self)));
        response
    }
}
