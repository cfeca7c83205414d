//! The operations of reactions.

use protocol::operation::{
    path::ReactionPath,
    reaction::{ReactionAdd, ReactionRemove},
};

use crate::{
    Services,
    error::Result,
    perform::{Call, Done, Perform},
    reactions,
};

impl Perform for ReactionAdd {
    async fn perform(services: &Services, call: Call<Self>) -> Result<Done<Self::Output>> {
        let ReactionPath {
            channel_id,
            message_id,
            emoji,
        } = &call.path;
        Ok(Done::plain(
            reactions::add_reaction(
                services,
                call.caller.actor()?,
                channel_id,
                message_id,
                emoji,
                call.input.sender_id,
            )
            .await?,
        ))
    }
}

impl Perform for ReactionRemove {
    async fn perform(services: &Services, call: Call<Self>) -> Result<Done<Self::Output>> {
        let ReactionPath {
            channel_id,
            message_id,
            emoji,
        } = &call.path;
        Ok(Done::plain(
            reactions::remove_reaction(
                services,
                call.caller.actor()?,
                channel_id,
                message_id,
                emoji,
                call.input.sender_id,
            )
            .await?,
        ))
    }
}
