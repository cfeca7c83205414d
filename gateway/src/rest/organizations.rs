//! `/v1/organizations`.

use axum::{extract::State, http::StatusCode, response::Response};
use protocol::{
    OrganizationId,
    model::Organization,
    params::{CreateOrganization, ListPage, UpdateOrganization},
    results::{List, OrganizationCreated},
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
};
use crate::{error::Result, service::document::Versioned};

pub(super) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(create, list))
        .routes(routes!(read, update, delete))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct OrganizationPath {
    /// The organization's id.
    pub(super) org: OrganizationId,
}

fn entity(organization: Versioned<Organization>) -> Answer<Organization> {
    Answer::ok(organization.value).tagged(organization.version, None)
}

/// Make an organization
///
/// The answer shows the secret of its first key, once.
#[utoipa::path(post, path = "/v1/organizations", tag = "organizations", security(("admin_key" = [])),
    params(IdempotencyHeader), request_body = CreateOrganization,
    responses((status = 201, description = "The new organization and its first key", body = OrganizationCreated)))]
async fn create(
    State(state): State<Shared>,
    Bearer(principal): Bearer,
    idempotency: Idempotency,
    Body(body): Body<CreateOrganization>,
) -> Result<Response> {
    let services = &state.services;
    idempotency
        .once(services, &body.clone(), async |bits| {
            let created = services.create_organization(&principal, body, bits).await?;
            Ok(Answer::created(created.value).tagged(created.version, None))
        })
        .await
}

/// List organizations
#[utoipa::path(get, path = "/v1/organizations", tag = "organizations", security(("admin_key" = [])),
    params(ListPage), responses((status = 200, description = "A page, by id", body = List<Organization>)))]
async fn list(
    State(state): State<Shared>,
    Bearer(principal): Bearer,
    Asked(page): Asked<ListPage>,
) -> Result<Answer<List<Organization>>> {
    Ok(Answer::ok(
        state.services.list_organizations(&principal, page).await?,
    ))
}

/// Read an organization
#[utoipa::path(get, path = "/v1/organizations/{org}", tag = "organizations", security(("organization_key" = []), ("admin_key" = [])),
    params(OrganizationPath, IfNoneMatchHeader), responses((status = 200, description = "The organization", body = Organization)))]
async fn read(
    State(state): State<Shared>,
    Bearer(principal): Bearer,
    In(path): In<OrganizationPath>,
    known: Known,
) -> Result<Response> {
    Ok(entity(state.services.organization(&principal, &path.org).await?).unless(&known))
}

/// Change an organization
#[utoipa::path(patch, path = "/v1/organizations/{org}", tag = "organizations", security(("organization_key" = []), ("admin_key" = [])),
    params(OrganizationPath, IfMatchHeader), request_body = UpdateOrganization,
    responses((status = 200, description = "The changed organization", body = Organization)))]
async fn update(
    State(state): State<Shared>,
    Bearer(principal): Bearer,
    In(path): In<OrganizationPath>,
    Insists(if_match): Insists,
    Body(body): Body<UpdateOrganization>,
) -> Result<Answer<Organization>> {
    Ok(entity(
        state
            .services
            .update_organization(&principal, &path.org, body, if_match)
            .await?,
    ))
}

/// Delete an organization
///
/// With its apps and everything in them.
#[utoipa::path(delete, path = "/v1/organizations/{org}", tag = "organizations", security(("organization_key" = []), ("admin_key" = [])),
    params(OrganizationPath, IfMatchHeader), responses((status = 204, description = "It is gone")))]
async fn delete(
    State(state): State<Shared>,
    Bearer(principal): Bearer,
    In(path): In<OrganizationPath>,
    Insists(if_match): Insists,
) -> Result<StatusCode> {
    done(
        state
            .services
            .delete_organization(&principal, &path.org, if_match)
            .await,
    )
}
