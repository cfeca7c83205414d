//! `/v1/organizations/{org}/apps/{app}/token-keys`.

use axum::{extract::State, http::StatusCode, response::Response};
use protocol::{
    AppId, OrganizationId, TokenKeyId,
    model::TokenKey,
    params::{CreateTokenKey, ListPage},
    results::List,
};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Shared,
    answer::{Answer, done},
    apps::AppPath,
    credentials::Bearer,
    extract::{Asked, Body, In},
    idempotency::{Idempotency, IdempotencyHeader},
};
use crate::error::Result;

pub(super) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(create, list))
        .routes(routes!(revoke))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
struct TokenKeyPath {
    /// The organization's id.
    org: OrganizationId,
    /// The app's id.
    app: AppId,
    /// The token key's id.
    key: TokenKeyId,
}

/// Make a token key
///
/// With HS256 the answer shows its secret, once; with the others the customer gives the public key.
#[utoipa::path(post, path = "/v1/organizations/{org}/apps/{app}/token-keys", tag = "token_keys", security(("organization_key" = []), ("admin_key" = [])),
    params(AppPath, IdempotencyHeader), request_body = CreateTokenKey,
    responses((status = 201, description = "The new token key", body = TokenKey)))]
async fn create(
    State(state): State<Shared>,
    Bearer(principal): Bearer,
    In(path): In<AppPath>,
    idempotency: Idempotency,
    Body(body): Body<CreateTokenKey>,
) -> Result<Response> {
    let services = &state.services;
    idempotency
        .once(services, &body.clone(), async |bits| {
            Ok(Answer::created(
                services
                    .create_token_key(&principal, &path.org, &path.app, body, bits)
                    .await?,
            ))
        })
        .await
}

/// List an app's token keys
#[utoipa::path(get, path = "/v1/organizations/{org}/apps/{app}/token-keys", tag = "token_keys", security(("organization_key" = []), ("admin_key" = [])),
    params(AppPath, ListPage), responses((status = 200, description = "A page without secrets, by id", body = List<TokenKey>)))]
async fn list(
    State(state): State<Shared>,
    Bearer(principal): Bearer,
    In(path): In<AppPath>,
    Asked(page): Asked<ListPage>,
) -> Result<Answer<List<TokenKey>>> {
    Ok(Answer::ok(
        state
            .services
            .list_token_keys(&principal, &path.org, &path.app, page)
            .await?,
    ))
}

/// Revoke a token key
///
/// Its tokens are refused and their sessions closed.
#[utoipa::path(delete, path = "/v1/organizations/{org}/apps/{app}/token-keys/{key}", tag = "token_keys", security(("organization_key" = []), ("admin_key" = [])),
    params(TokenKeyPath), responses((status = 204, description = "It is refused from now on")))]
async fn revoke(
    State(state): State<Shared>,
    Bearer(principal): Bearer,
    In(path): In<TokenKeyPath>,
) -> Result<StatusCode> {
    done(
        state
            .services
            .revoke_token_key(&principal, &path.org, &path.app, &path.key)
            .await,
    )
}
