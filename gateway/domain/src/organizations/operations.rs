//! The operations of organizations.

use protocol::operation::{
    empty::Empty,
    organization::{
        OrganizationCreate, OrganizationDelete, OrganizationList, OrganizationRead,
        OrganizationUpdate,
    },
};

use crate::{
    Services,
    error::Result,
    organizations,
    perform::{Call, Done, Perform},
};

impl Perform for OrganizationCreate {
    const REPEATS_ANEW: bool = true;

    async fn repeat(services: &Services, call: Call<Self>) -> Result<Done<Self::Output>> {
        Ok(Done::entity(
            organizations::organization_made_by(services, &call.caller, call.seed).await?,
        ))
    }

    async fn perform(services: &Services, call: Call<Self>) -> Result<Done<Self::Output>> {
        Ok(Done::entity(
            organizations::create_organization(services, &call.caller, call.input, call.seed)
                .await?,
        )
        .new_if(true))
    }
}

impl Perform for OrganizationList {
    async fn perform(services: &Services, call: Call<Self>) -> Result<Done<Self::Output>> {
        Ok(Done::plain(
            organizations::list_organizations(services, &call.caller, call.input).await?,
        ))
    }
}

impl Perform for OrganizationRead {
    async fn perform(services: &Services, call: Call<Self>) -> Result<Done<Self::Output>> {
        Ok(Done::entity(
            organizations::read_organization(services, &call.caller, &call.path.organization_id)
                .await?,
        ))
    }
}

impl Perform for OrganizationUpdate {
    async fn perform(services: &Services, call: Call<Self>) -> Result<Done<Self::Output>> {
        Ok(Done::entity(
            organizations::update_organization(
                services,
                &call.caller,
                &call.path.organization_id,
                call.input,
                call.if_match,
            )
            .await?,
        ))
    }
}

impl Perform for OrganizationDelete {
    async fn perform(services: &Services, call: Call<Self>) -> Result<Done<Self::Output>> {
        organizations::delete_organization(
            services,
            &call.caller,
            &call.path.organization_id,
            call.if_match,
        )
        .await?;
        Ok(Done::plain(Empty {}))
    }
}
