//! The operations of organization keys and app keys.

use protocol::operation::{
    credential::{
        AccessKeyCreate, AppKeyCreate, AppKeyList, AppKeyRevoke, OrganizationKeyCreate,
        OrganizationKeyList, OrganizationKeyRevoke,
    },
    empty::Empty,
    path::{AppKeyPath, AppPath},
};

use crate::{
    Services,
    error::Result,
    perform::{Call, Done, Perform},
};

impl Perform for OrganizationKeyCreate {
    async fn perform(services: &Services, call: Call<Self>) -> Result<Done<Self::Output>> {
        Ok(Done::created(
            services
                .create_organization_key(
                    &call.caller,
                    &call.path.organization_id,
                    call.input,
                    call.seed,
                )
                .await?,
        ))
    }
}

impl Perform for OrganizationKeyList {
    async fn perform(services: &Services, call: Call<Self>) -> Result<Done<Self::Output>> {
        Ok(Done::plain(
            services
                .list_organization_keys(&call.caller, &call.path.organization_id, call.input)
                .await?,
        ))
    }
}

impl Perform for OrganizationKeyRevoke {
    async fn perform(services: &Services, call: Call<Self>) -> Result<Done<Self::Output>> {
        services
            .revoke_organization_key(&call.caller, &call.path.organization_id, &call.path.key_id)
            .await?;
        Ok(Done::plain(Empty {}))
    }
}

impl Perform for AppKeyCreate {
    async fn perform(services: &Services, call: Call<Self>) -> Result<Done<Self::Output>> {
        let AppPath {
            organization_id,
            app_id,
        } = &call.path;
        Ok(Done::created(
            services
                .create_app_key(&call.caller, organization_id, app_id, call.input, call.seed)
                .await?,
        ))
    }
}

impl Perform for AccessKeyCreate {
    async fn perform(services: &Services, call: Call<Self>) -> Result<Done<Self::Output>> {
        let AppPath {
            organization_id,
            app_id,
        } = &call.path;
        Ok(Done::created(
            services
                .create_access(&call.caller, organization_id, app_id, call.input, call.seed)
                .await?,
        ))
    }
}

impl Perform for AppKeyList {
    async fn perform(services: &Services, call: Call<Self>) -> Result<Done<Self::Output>> {
        Ok(Done::plain(
            services
                .list_app_keys(
                    &call.caller,
                    &call.path.organization_id,
                    &call.path.app_id,
                    call.input,
                )
                .await?,
        ))
    }
}

impl Perform for AppKeyRevoke {
    async fn perform(services: &Services, call: Call<Self>) -> Result<Done<Self::Output>> {
        let AppKeyPath {
            organization_id,
            app_id,
            key_id,
        } = &call.path;
        services
            .revoke_app_key(&call.caller, organization_id, app_id, key_id)
            .await?;
        Ok(Done::plain(Empty {}))
    }
}
