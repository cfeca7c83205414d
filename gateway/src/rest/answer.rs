//! Responses in JSON, with entity tags.

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;

use super::conditions::Known;

/// A response with a JSON body and, if that is an entity, its `ETag`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct JsonResponse<T> {
    pub(super) status: StatusCode,
    pub(super) etag: Option<String>,
    pub(super) value: T,
}

impl<T> JsonResponse<T> {
    pub(super) fn ok(value: T) -> Self {
        Self {
            status: StatusCode::OK,
            etag: None,
            value,
        }
    }

    pub(super) fn with_status(self, status: StatusCode) -> Self {
        Self { status, ..self }
    }

    /// Sets the `ETag` from the version, which `If-Match` is compared with, and from `shown`, which
    /// changes with the other fields of the entity. Equal tags mean equal entities.
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

impl<T: Serialize> JsonResponse<T> {
    /// Returns 304 without a body if the caller has this version already.
    pub(super) fn unless(self, known: &Known) -> Response {
        match &self.etag {
            Some(etag) if known.has(etag) => {
                (StatusCode::NOT_MODIFIED, [(header::ETAG, etag.clone())]).into_response()
            }
            _ => self.into_response(),
        }
    }
}

impl<T: Serialize> IntoResponse for JsonResponse<T> {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.value)).into_response();
        if let Some(etag) = self.etag.and_then(|etag| HeaderValue::from_str(&etag).ok()) {
            response.headers_mut().insert(header::ETAG, etag);
        }
        response
    }
}
