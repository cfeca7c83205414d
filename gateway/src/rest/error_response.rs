//! Responses of errors.

use std::sync::Arc;

use axum::{
    Json,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use domain::error::Error;
use protocol::{ErrorCode, error::ErrorAnswer};

/// The error of a response, for metrics and log.
#[derive(Debug, Clone)]
pub(super) struct Failure(pub(super) Arc<Error>);

/// An error as a response.
#[derive(Debug)]
pub(crate) struct ErrorResponse(pub(crate) Error);

impl From<Error> for ErrorResponse {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

impl From<ErrorResponse> for Error {
    fn from(ErrorResponse(error): ErrorResponse) -> Self {
        error
    }
}

impl IntoResponse for ErrorResponse {
    fn into_response(self) -> Response {
        let Self(error) = self;
        let status = StatusCode::from_u16(error.code().status())
            .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut headers = HeaderMap::new();
        if let Some(milliseconds) = error.body.retry_after_ms {
            headers.insert(header::RETRY_AFTER, milliseconds.div_ceil(1000).into());
        }
        if error.code() == ErrorCode::Unauthenticated {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        let mut response = (
            status,
            headers,
            Json(ErrorAnswer {
                error: error.body.clone(),
            }),
        )
            .into_response();
        response.extensions_mut().insert(Failure(Arc::new(error)));
        response
    }
}
