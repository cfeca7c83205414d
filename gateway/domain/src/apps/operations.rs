//! The operations of apps.

use protocol::{
    AppId,
    operation::{
        app::{AppCreate, AppDelete, AppList, AppRead, AppUpdate},
        empty::Empty,
        path::AppPath,
    },
};

use crate::{
    Services, apps,
    error::Result,
    perform::{Call, Done, Perform},
};

impl Perform for AppCreate {
    const REPEATS_ANEW: bool = true;

    async fn repeat(services: &Services, call: Call<Self>) -> Result<Done<Self::Output>> {
        let id = AppId::from_bits(call.seed);
        Ok(Done::entity(
            apps::read_app(services, &call.caller, &call.path.organization_id, &id).await?,
        ))
    }

    async fn perform(services: &Services, call: Call<Self>) -> Result<Done<Self::Output>> {
        Ok(Done::entity(
            apps::create_app(
                services,
                &call.caller,
                &call.path.organization_id,
                call.input,
                call.seed,
            )
            .await?,
        )
        .new_if(true))
    }
}

impl Perform for AppList {
    async fn perform(services: &Services, call: Call<Self>) -> Result<Done<Self::Output>> {
        Ok(Done::plain(
            apps::list_apps(
                services,
                &call.caller,
                &call.path.organization_id,
                call.input,
            )
            .await?,
        ))
    }
}

impl Perform for AppRead {
    async fn perform(services: &Services, call: Call<Self>) -> Result<Done<Self::Output>> {
        Ok(Done::entity(
            apps::read_app(
                services,
                &call.caller,
                &call.path.organization_id,
                &call.path.app_id,
            )
            .await?,
        ))
    }
}

impl Perform for AppUpdate {
    async fn perform(services: &Services, call: Call<Self>) -> Result<Done<Self::Output>> {
        let AppPath {
            organization_id,
            app_id,
        } = &call.path;
        Ok(Done::entity(
            apps::update_app(
                services,
                &call.caller,
                organization_id,
                app_id,
                call.input,
                call.if_match,
            )
            .await?,
        ))
    }
}

impl Perform for AppDelete {
    async fn perform(services: &Services, call: Call<Self>) -> Result<Done<Self::Output>> {
        apps::delete_app(
            services,
            &call.caller,
            &call.path.organization_id,
            &call.path.app_id,
            call.if_match,
        )
        .await?;
        Ok(Done::plain(Empty {}))
    }
}
