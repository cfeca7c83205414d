//! Middleware of every request: task, span, metrics, log line and request id.

use std::{sync::Arc, time::Instant};

use axum::{
    extract::{MatchedPath, Request, State},
    http::{HeaderName, HeaderValue},
    middleware::Next,
    response::{IntoResponse, Response},
};
use domain::{error::Error, random};
use fanout::LogRateLimit;
use protocol::ErrorCode;
use tracing::{Instrument, field::Empty};

use super::{
    Shared,
    error_response::{ErrorResponse, Failure},
    operations::READINESS,
};
use crate::metrics::{Transport, method_word};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Runs a request in a task of its own. A client that disconnects does not cancel it, and a panic
/// becomes an `internal` error.
pub(super) async fn observe(State(state): State<Shared>, request: Request, next: Next) -> Response {
    let method = request.method().clone();
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map(|path| path.as_str().to_owned());
    let id = format!("{:016x}", random::bits());
    let span = tracing::info_span!(
        "request",
        id,
        method = method_word(&method),
        route = route.as_deref().unwrap_or("none"),
        principal = Empty,
        organization = Empty,
        app = Empty,
        environment = Empty
    );
    let started_at = Instant::now();
    let task = tokio::spawn(next.run(request).instrument(span.clone()));
    let mut response = task.await.unwrap_or_else(|error| {
        let cause = if error.is_panic() {
            "a handler panicked"
        } else {
            "the node stopped"
        };
        ErrorResponse(Error::internal(cause)).into_response()
    });
    let status = response.status().as_u16();
    state.metrics.http(route.as_deref(), &method, status);
    let failure = response.extensions_mut().remove::<Failure>();
    span.in_scope(|| {
        let elapsed_us = started_at.elapsed().as_micros() as u64;
        match failure {
            Some(Failure(error)) => {
                state.metrics.error(Transport::Http, error.code());
                log(&error, route.as_deref(), status, elapsed_us);
            }
            None => tracing::debug!(status, elapsed_us, "answered"),
        }
    });
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

/// Logs a refused or failed request. Failures of the node are logged with their cause, for a
/// bounded number of requests per second. A failed readiness probe is not a failure of the node;
/// `readiness` logs changes of the store's state.
fn log(error: &Arc<Error>, route: Option<&str>, status: u16, elapsed_us: u64) {
    static FAILURES: LogRateLimit = LogRateLimit::new(10);
    let cause = error.cause.as_deref().unwrap_or_default();
    let code = error.code();
    let is_failure =
        matches!(code, ErrorCode::Internal | ErrorCode::Unavailable) && route != Some(READINESS);
    let Some(suppressed) = is_failure.then(|| FAILURES.pass(Instant::now())).flatten() else {
        tracing::debug!(
            status,
            elapsed_us,
            code = code.as_str(),
            cause,
            "request refused"
        );
        return;
    };
    match code {
        ErrorCode::Internal => {
            tracing::error!(status, elapsed_us, cause, suppressed, "request failed")
        }
        _ => tracing::warn!(
            status,
            elapsed_us,
            cause,
            suppressed,
            "request failed for now, a retry may succeed"
        ),
    }
}
