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
    keys,
    perform::{Call, Done, Perform},
};

impl Perform for OrganizationKeyCreate {
    async fn perform(services: &Services, call: Call<Self>) -> Result<Done<Self::Output>> {
        Ok(Done::created(
            keys::create_organization_key(
                services,
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
            keys::list_organization_keys(
                services,
                &call.caller,
                &call.path.organization_id,
                call.input,
            )
            .await?,
        ))
    }
}

impl Perform for OrganizationKeyRevoke {
    async fn perform(services: &Services, call: Call<Self>) -> Result<Done<Self::Output>> {
        keys::revoke_organization_key(
            services,
            &call.caller,
            &call.path.organization_id,
            &call.path.key_id,
        )
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
            keys::create_app_key(
                services,
                &call.caller,
                organization_id,
                app_id,
                call.input,
                call.seed,
            )
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
            keys::create_access(
                services,
                &call.caller,
                organization_id,
                app_id,
                call.input,
                call.seed,
            )
            .await?,
        ))
    }
}

impl Perform for AppKeyList {
    async fn perform(services: &Services, call: Call<Self>) -> Result<Done<Self::Output>> {
        Ok(Done::plain(
            keys::list_app_keys(
                services,
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
        keys::revoke_app_key(services, &call.caller, organization_id, app_id, key_id).await?;
        Ok(Done::plain(Empty {}))
    }
}
