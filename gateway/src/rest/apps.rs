//! `/v1/organizations/{org}/apps`.

use axum::{extract::State, http::StatusCode, response::Response};
use protocol::{
    AppId, OrganizationId,
    model::App,
    params::{CreateApp, ListPage, UpdateApp},
    results::List,
};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Shared,
    answer::{Answer, done},
    conditions::{IfMatchHeader, IfNoneMatchHeader, Insists, Known},
    credentials::Bearer,
    extract::{Asked, Body, In},
    idempotency::{Idempotency, IdempotencyHeader},
    organizations::OrganizationPath,
};
use crate::{error::Result, service::document::Versioned};

pub(super) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(create, list))
        .routes(routes!(read, update, delete))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct AppPath {
    /// The organization's id.
    pub(super) org: OrganizationId,
    /// The app's id.
    pub(super) app: AppId,
}

fn entity(app: Versioned<App>) -> Answer<App> {
    Answer::ok(app.value).tagged(app.version, None)
}

/// Make an app
#[utoipa::path(post, path = "/v1/organizations/{org}/apps", tag = "apps", security(("organization_key" = []), ("admin_key" = [])),
    params(OrganizationPath, IdempotencyHeader), request_body = CreateApp,
    responses((status = 201, description = "The new app", body = App)))]
async fn create(
    State(state): State<Shared>,
    Bearer(principal): Bearer,
    In(path): In<OrganizationPath>,
    idempotency: Idempotency,
    Body(body): Body<CreateApp>,
) -> Result<Response> {
    let services = &state.services;
    idempotency
        .once(services, &body.clone(), async |bits| {
            let app = services
                .create_app(&principal, &path.org, body, bits)
                .await?;
            Ok(Answer::created(app.value).tagged(app.version, None))
        })
        .await
}

/// List an organization's apps
#[utoipa::path(get, path = "/v1/organizations/{org}/apps", tag = "apps", security(("organization_key" = []), ("admin_key" = [])),
    params(OrganizationPath, ListPage), responses((status = 200, description = "A page, by id", body = List<App>)))]
async fn list(
    State(state): State<Shared>,
    Bearer(principal): Bearer,
    In(path): In<OrganizationPath>,
    Asked(page): Asked<ListPage>,
) -> Result<Answer<List<App>>> {
    Ok(Answer::ok(
        state
            .services
            .list_apps(&principal, &path.org, page)
            .await?,
    ))
}

/// Read an app
#[utoipa::path(get, path = "/v1/organizations/{org}/apps/{app}", tag = "apps", security(("organization_key" = []), ("admin_key" = [])),
    params(AppPath, IfNoneMatchHeader), responses((status = 200, description = "The app", body = App)))]
async fn read(
    State(state): State<Shared>,
    Bearer(principal): Bearer,
    In(path): In<AppPath>,
    known: Known,
) -> Result<Response> {
    Ok(entity(state.services.app(&principal, &path.org, &path.app).await?).unless(&known))
}

/// Change an app
#[utoipa::path(patch, path = "/v1/organizations/{org}/apps/{app}", tag = "apps", security(("organization_key" = []), ("admin_key" = [])),
    params(AppPath, IfMatchHeader), request_body = UpdateApp,
    responses((status = 200, description = "The changed app", body = App)))]
async fn update(
    State(state): State<Shared>,
    Bearer(principal): Bearer,
    In(path): In<AppPath>,
    Insists(if_match): Insists,
    Body(body): Body<UpdateApp>,
) -> Result<Answer<App>> {
    Ok(entity(
        state
            .services
            .update_app(&principal, &path.org, &path.app, body, if_match)
            .await?,
    ))
}

/// Delete an app
///
/// With its users, channels and messages, in both environments.
#[utoipa::path(delete, path = "/v1/organizations/{org}/apps/{app}", tag = "apps", security(("organization_key" = []), ("admin_key" = [])),
    params(AppPath, IfMatchHeader), responses((status = 204, description = "It is gone")))]
async fn delete(
    State(state): State<Shared>,
    Bearer(principal): Bearer,
    In(path): In<AppPath>,
    Insists(if_match): Insists,
) -> Result<StatusCode> {
    done(
        state
            .services
            .delete_app(&principal, &path.org, &path.app, if_match)
            .await,
    )
}
