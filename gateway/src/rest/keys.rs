//! `…/keys` of organizations and of apps, and `…/access`.

use axum::{extract::State, http::StatusCode, response::Response};
use protocol::{
    AppId, KeyId, OrganizationId,
    model::Key,
    params::{CreateAccess, CreateAppKey, CreateOrganizationKey, ListPage},
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
    extract::{Asked, Body, In, Perhaps},
    idempotency::{Idempotency, IdempotencyHeader},
    organizations::OrganizationPath,
};
use crate::error::Result;

pub(super) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(create_of_organization, list_of_organization))
        .routes(routes!(revoke_of_organization))
        .routes(routes!(create_of_app, list_of_app))
        .routes(routes!(revoke_of_app))
        .routes(routes!(create_access))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
struct OrganizationKeyPath {
    /// The organization's id.
    org: OrganizationId,
    /// The key's id.
    key: KeyId,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
struct AppKeyPath {
    /// The organization's id.
    org: OrganizationId,
    /// The app's id.
    app: AppId,
    /// The key's id.
    key: KeyId,
}

/// Make an organization key
///
/// The answer shows its secret, once.
#[utoipa::path(post, operation_id = "organization_keys_create", path = "/v1/organizations/{org}/keys", tag = "organization_keys", security(("organization_key" = []), ("admin_key" = [])),
    params(OrganizationPath, IdempotencyHeader), request_body = Option<CreateOrganizationKey>,
    responses((status = 201, description = "The new key with its secret", body = Key)))]
async fn create_of_organization(
    State(state): State<Shared>,
    Bearer(principal): Bearer,
    In(path): In<OrganizationPath>,
    idempotency: Idempotency,
    Perhaps(body): Perhaps<CreateOrganizationKey>,
) -> Result<Response> {
    let services = &state.services;
    idempotency
        .once(services, &body.clone(), async |bits| {
            Ok(Answer::created(
                services
                    .create_organization_key(&principal, &path.org, body, bits)
                    .await?,
            ))
        })
        .await
}

/// List an organization's keys
#[utoipa::path(get, operation_id = "organization_keys_list", path = "/v1/organizations/{org}/keys", tag = "organization_keys", security(("organization_key" = []), ("admin_key" = [])),
    params(OrganizationPath, ListPage), responses((status = 200, description = "A page without secrets, by id", body = List<Key>)))]
async fn list_of_organization(
    State(state): State<Shared>,
    Bearer(principal): Bearer,
    In(path): In<OrganizationPath>,
    Asked(page): Asked<ListPage>,
) -> Result<Answer<List<Key>>> {
    Ok(Answer::ok(
        state
            .services
            .list_organization_keys(&principal, &path.org, page)
            .await?,
    ))
}

/// Revoke an organization key
#[utoipa::path(delete, operation_id = "organization_keys_revoke", path = "/v1/organizations/{org}/keys/{key}", tag = "organization_keys", security(("organization_key" = []), ("admin_key" = [])),
    params(OrganizationKeyPath), responses((status = 204, description = "It is refused from now on")))]
async fn revoke_of_organization(
    State(state): State<Shared>,
    Bearer(principal): Bearer,
    In(path): In<OrganizationKeyPath>,
) -> Result<StatusCode> {
    done(
        state
            .services
            .revoke_organization_key(&principal, &path.org, &path.key)
            .await,
    )
}

/// Make an app key
///
/// The answer shows its secret, once.
#[utoipa::path(post, operation_id = "app_keys_create", path = "/v1/organizations/{org}/apps/{app}/keys", tag = "app_keys", security(("organization_key" = []), ("admin_key" = [])),
    params(AppPath, IdempotencyHeader), request_body = CreateAppKey,
    responses((status = 201, description = "The new key with its secret", body = Key)))]
async fn create_of_app(
    State(state): State<Shared>,
    Bearer(principal): Bearer,
    In(path): In<AppPath>,
    idempotency: Idempotency,
    Body(body): Body<CreateAppKey>,
) -> Result<Response> {
    let services = &state.services;
    idempotency
        .once(services, &body.clone(), async |bits| {
            Ok(Answer::created(
                services
                    .create_app_key(&principal, &path.org, &path.app, body, bits)
                    .await?,
            ))
        })
        .await
}

/// List an app's keys
///
/// Access keys that have not ended are among them.
#[utoipa::path(get, operation_id = "app_keys_list", path = "/v1/organizations/{org}/apps/{app}/keys", tag = "app_keys", security(("organization_key" = []), ("admin_key" = [])),
    params(AppPath, ListPage), responses((status = 200, description = "A page without secrets, by id", body = List<Key>)))]
async fn list_of_app(
    State(state): State<Shared>,
    Bearer(principal): Bearer,
    In(path): In<AppPath>,
    Asked(page): Asked<ListPage>,
) -> Result<Answer<List<Key>>> {
    Ok(Answer::ok(
        state
            .services
            .list_app_keys(&principal, &path.org, &path.app, page)
            .await?,
    ))
}

/// Revoke an app key or access key
#[utoipa::path(delete, operation_id = "app_keys_revoke", path = "/v1/organizations/{org}/apps/{app}/keys/{key}", tag = "app_keys", security(("organization_key" = []), ("admin_key" = [])),
    params(AppKeyPath), responses((status = 204, description = "It is refused from now on")))]
async fn revoke_of_app(
    State(state): State<Shared>,
    Bearer(principal): Bearer,
    In(path): In<AppKeyPath>,
) -> Result<StatusCode> {
    done(
        state
            .services
            .revoke_app_key(&principal, &path.org, &path.app, &path.key)
            .await,
    )
}

/// Make an access key
///
/// It may do what an app key may, for at most an hour. The answer shows its secret, once.
#[utoipa::path(post, operation_id = "app_keys_create_access", path = "/v1/organizations/{org}/apps/{app}/access", tag = "app_keys", security(("organization_key" = []), ("admin_key" = [])),
    params(AppPath, IdempotencyHeader), request_body = CreateAccess,
    responses((status = 201, description = "The new key with its secret", body = Key)))]
async fn create_access(
    State(state): State<Shared>,
    Bearer(principal): Bearer,
    In(path): In<AppPath>,
    idempotency: Idempotency,
    Body(body): Body<CreateAccess>,
) -> Result<Response> {
    let services = &state.services;
    idempotency
        .once(services, &body.clone(), async |bits| {
            Ok(Answer::created(
                services
                    .create_access(&principal, &path.org, &path.app, body, bits)
                    .await?,
            ))
        })
        .await
}
