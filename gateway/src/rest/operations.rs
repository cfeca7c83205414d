//! `/healthz`, `/readyz`, `/metrics` and the OpenAPI document itself.

use axum::{extract::State, http::header, response::IntoResponse, routing::get};
use domain::error::{Error, Result};
use protocol::{ErrorCode, operation::empty::Empty};
use serde::Serialize;

use super::{
    Shared, answer::JsonResponse, credentials::Bearer, error_response::ErrorResponse,
    extract::QueryParams,
};
use crate::metrics::CONTENT_TYPE;

/// Path of the readiness check.
pub(super) const READINESS: &str = "/readyz";

pub(super) fn routes() -> axum::Router<Shared> {
    axum::Router::new()
        .route("/healthz", get(healthz))
        .route(READINESS, get(readyz))
        .route("/metrics", get(metrics))
        .route("/v1/openapi.json", get(openapi))
}

/// The same for an address of their own, where metrics need no credential.
pub(super) fn open_routes() -> axum::Router<Shared> {
    axum::Router::new()
        .route("/healthz", get(healthz))
        .route(READINESS, get(readyz))
        .route("/metrics", get(open_metrics))
}

/// How a node is.
#[derive(Debug, Serialize)]
struct Condition {
    /// `alive` or `ready`.
    status: &'static str,
}

/// Whether the process is alive
async fn healthz() -> JsonResponse<Condition> {
    JsonResponse::ok(Condition { status: "alive" })
}

/// Whether the node takes requests
///
/// It does while its store can be reached and it is not going away.
async fn readyz(State(state): State<Shared>) -> Result<JsonResponse<Condition>, ErrorResponse> {
    if (state.draining)() {
        return Err(Error::new(ErrorCode::Unavailable, "the node is going away").into());
    }
    state.pulse.ask().await?;
    Ok(JsonResponse::ok(Condition { status: "ready" }))
}

/// What the node counts, in the format of Prometheus
///
/// With the admin key; without a credential on `--ops-listen`. The peer's address proves nothing: a
/// proxy on the same machine has a loopback address too.
async fn metrics(
    State(state): State<Shared>,
    Bearer(principal): Bearer,
) -> Result<impl IntoResponse, ErrorResponse> {
    principal.admin()?;
    Ok(open_metrics(State(state)).await)
}

async fn open_metrics(State(state): State<Shared>) -> impl IntoResponse {
    (
        [(header::CONTENT_TYPE, CONTENT_TYPE)],
        state.metrics.encode(),
    )
}

/// This document
async fn openapi(
    State(state): State<Shared>,
    QueryParams(_): QueryParams<Empty>,
) -> impl IntoResponse {
    (
        [(header::CONTENT_TYPE, "application/json")],
        state.document.clone(),
    )
}
