//! The operations of users.

use protocol::{
    UserId,
    operation::{
        empty::Empty,
        user::{
            UserChannels, UserCreate, UserDelete, UserDisconnect, UserGet, UserList, UserMintToken,
            UserPutBatch, UserRead, UserReplace, UserUpdate,
        },
    },
};

use crate::{
    Services,
    channels::create::Made,
    entry_list,
    error::Result,
    perform::{Call, Done, Perform},
    sessions, tokens, users,
};

impl Perform for UserCreate {
    const REPEATS_ANEW: bool = true;

    async fn repeat(services: &Services, call: Call<Self>) -> Result<Done<Self::Output>> {
        let id = call
            .input
            .id
            .clone()
            .unwrap_or_else(|| UserId::from_bits(call.seed));
        Ok(Done::entity(
            users::read_user(services, call.caller.actor()?, &id).await?,
        ))
    }

    async fn perform(services: &Services, call: Call<Self>) -> Result<Done<Self::Output>> {
        Ok(Done::entity(
            users::create_user_as(services, call.caller.actor()?, call.input, call.seed).await?,
        )
        .new_if(true))
    }
}

impl Perform for UserList {
    async fn perform(services: &Services, call: Call<Self>) -> Result<Done<Self::Output>> {
        Ok(Done::plain(
            users::lists::list_users(services, call.caller.actor()?, call.input).await?,
        ))
    }
}

impl Perform for UserPutBatch {
    async fn perform(services: &Services, call: Call<Self>) -> Result<Done<Self::Output>> {
        Ok(Done::plain(
            users::put_users(services, call.caller.actor()?, call.input.items).await?,
        ))
    }
}

impl Perform for UserGet {
    async fn perform(services: &Services, call: Call<Self>) -> Result<Done<Self::Output>> {
        Ok(Done::plain(
            users::lists::read_users(services, call.caller.actor()?, &call.input.user_ids).await?,
        ))
    }
}

impl Perform for UserRead {
    async fn perform(services: &Services, call: Call<Self>) -> Result<Done<Self::Output>> {
        Ok(Done::entity(
            users::read_user(services, call.caller.actor()?, &call.path.user_id).await?,
        ))
    }
}

impl Perform for UserReplace {
    async fn perform(services: &Services, call: Call<Self>) -> Result<Done<Self::Output>> {
        let (user, made) = users::put_user(
            services,
            call.caller.actor()?,
            &call.path.user_id,
            call.input,
            call.if_match,
        )
        .await?;
        Ok(Done::entity(user).new_if(made == Made::ByThisCall))
    }
}

impl Perform for UserUpdate {
    async fn perform(services: &Services, call: Call<Self>) -> Result<Done<Self::Output>> {
        Ok(Done::entity(
            users::update_user(
                services,
                call.caller.actor()?,
                &call.path.user_id,
                call.input,
                call.if_match,
            )
            .await?,
        ))
    }
}

impl Perform for UserDelete {
    async fn perform(services: &Services, call: Call<Self>) -> Result<Done<Self::Output>> {
        users::delete_user(
            services,
            call.caller.actor()?,
            &call.path.user_id,
            call.if_match,
        )
        .await?;
        Ok(Done::plain(Empty {}))
    }
}

impl Perform for UserMintToken {
    async fn perform(services: &Services, call: Call<Self>) -> Result<Done<Self::Output>> {
        Ok(Done::created(
            tokens::mint_token(
                services,
                call.caller.actor()?,
                &call.path.user_id,
                call.input,
            )
            .await?,
        ))
    }
}

impl Perform for UserDisconnect {
    const FREES: bool = true;

    async fn perform(services: &Services, call: Call<Self>) -> Result<Done<Self::Output>> {
        Ok(Done::plain(
            sessions::disconnect_user(
                services,
                call.caller.actor()?,
                &call.path.user_id,
                call.input,
            )
            .await?,
        ))
    }
}

impl Perform for UserChannels {
    async fn perform(services: &Services, call: Call<Self>) -> Result<Done<Self::Output>> {
        Ok(Done::plain(
            entry_list::list_entries(
                services,
                call.caller.actor()?,
                &call.path.user_id,
                call.input,
            )
            .await?,
        ))
    }
}
