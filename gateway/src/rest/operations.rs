//! `/healthz`, `/readyz`, `/metrics` and the OpenAPI document itself.

use axum::{
    extract::{FromRequestParts, Request, State},
    http::header,
    response::IntoResponse,
    routing::get,
};
use protocol::ErrorCode;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{Shared, address::is_local, answer::Answer, credentials::Bearer};
use crate::{
    error::{Error, Result},
    metrics::CONTENT_TYPE,
};

pub(super) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(healthz))
        .routes(routes!(readyz))
        .routes(routes!(metrics))
        .routes(routes!(openapi))
}

/// The same for an address of their own, where metrics need no credential.
pub(super) fn open_routes() -> axum::Router<Shared> {
    axum::Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(open_metrics))
}

/// How a node is.
#[derive(Debug, Serialize, ToSchema)]
struct Condition {
    /// `alive` or `ready`.
    status: &'static str,
}

/// Whether the process is alive
#[utoipa::path(get, path = "/healthz", tag = "operations", responses((status = 200, description = "It is", body = Condition)))]
async fn healthz() -> Answer<Condition> {
    Answer::ok(Condition { status: "alive" })
}

/// Whether the node takes requests
///
/// It does while its store can be reached and it is not going away.
#[utoipa::path(get, path = "/readyz", tag = "operations", responses((status = 200, description = "It does", body = Condition)))]
async fn readyz(State(state): State<Shared>) -> Result<Answer<Condition>> {
    if (state.draining)() {
        return Err(Error::new(ErrorCode::Unavailable, "the node is going away"));
    }
    state.pulse.ask().await?;
    Ok(Answer::ok(Condition { status: "ready" }))
}

/// What the node counts, in the format of Prometheus
///
/// For requests from the machine itself, or with the admin key.
#[utoipa::path(get, path = "/metrics", tag = "operations", security((), ("admin_key" = [])),
    responses((status = 200, description = "The text of a scrape", body = String, content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8")))]
async fn metrics(State(state): State<Shared>, request: Request) -> Result<impl IntoResponse> {
    let (mut parts, _) = request.into_parts();
    if !is_local(&parts) {
        let Bearer(principal) = Bearer::from_request_parts(&mut parts, &state).await?;
        principal.admin()?;
    }
    Ok(open_metrics(State(state)).await)
}

async fn open_metrics(State(state): State<Shared>) -> impl IntoResponse {
    (
        [(header::CONTENT_TYPE, CONTENT_TYPE)],
        state.metrics.encode(),
    )
}

/// This document
#[utoipa::path(get, path = "/v1/openapi.json", tag = "operations", responses((status = 200, description = "OpenAPI 3.1", body = Object)))]
async fn openapi(State(state): State<Shared>) -> impl IntoResponse {
    (
        [(header::CONTENT_TYPE, "application/json")],
        state.document.clone(),
    )
}
