//! The operations of token keys.

use protocol::operation::{
    credential::{TokenKeyCreate, TokenKeyList, TokenKeyRevoke},
    empty::Empty,
    path::{AppPath, TokenKeyPath},
};

use crate::{
    Services,
    error::Result,
    perform::{Call, Done, Perform},
    token_keys,
};

impl Perform for TokenKeyCreate {
    async fn perform(services: &Services, call: Call<Self>) -> Result<Done<Self::Output>> {
        let AppPath {
            organization_id,
            app_id,
        } = &call.path;
        Ok(Done::created(
            token_keys::create_token_key(
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

impl Perform for TokenKeyList {
    async fn perform(services: &Services, call: Call<Self>) -> Result<Done<Self::Output>> {
        Ok(Done::plain(
            token_keys::list_token_keys(
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

impl Perform for TokenKeyRevoke {
    async fn perform(services: &Services, call: Call<Self>) -> Result<Done<Self::Output>> {
        let TokenKeyPath {
            organization_id,
            app_id,
            key_id,
        } = &call.path;
        token_keys::revoke_token_key(services, &call.caller, organization_id, app_id, key_id)
            .await?;
        Ok(Done::plain(Empty {}))
    }
}
