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
    perform::{Call, Done, Perform},
};

impl Perform for OrganizationCreate {
    const REPEATS_ANEW: bool = true;

    async fn repeat(services: &Services, call: Call<Self>) -> Result<Done<Self::Output>> {
        Ok(Done::entity(
            services
                .organization_made_by(&call.caller, call.seed)
                .await?,
        ))
    }

    async fn perform(services: &Services, call: Call<Self>) -> Result<Done<Self::Output>> {
        Ok(Done::entity(
            services
                .create_organization(&call.caller, call.input, call.seed)
                .await?,
        )
        .new_if(true))
    }
}

impl Perform for OrganizationList {
    async fn perform(services: &Services, call: Call<Self>) -> Result<Done<Self::Output>> {
        Ok(Done::plain(
            services
                .list_organizations(&call.caller, call.input)
                .await?,
        ))
    }
}

impl Perform for OrganizationRead {
    async fn perform(services: &Services, call: Call<Self>) -> Result<Done<Self::Output>> {
        Ok(Done::entity(
            services
                .organization(&call.caller, &call.path.organization_id)
                .await?,
        ))
    }
}

impl Perform for OrganizationUpdate {
    async fn perform(services: &Services, call: Call<Self>) -> Result<Done<Self::Output>> {
        Ok(Done::entity(
            services
                .update_organization(
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
        services
            .delete_organization(&call.caller, &call.path.organization_id, call.if_match)
            .await?;
        Ok(Done::plain(Empty {}))
    }
}
