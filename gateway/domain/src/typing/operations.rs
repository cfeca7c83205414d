//! The operations of typing.

use protocol::operation::{empty::Empty, typing::TypingSet};

use crate::{
    Services,
    error::Result,
    perform::{Call, Done, Perform},
    typing,
};

impl Perform for TypingSet {
    async fn perform(services: &Services, call: Call<Self>) -> Result<Done<Self::Output>> {
        typing::publish_typing(
            services,
            call.caller.actor()?,
            &call.path.channel_id,
            call.input.typing,
        )
        .await?;
        Ok(Done::plain(Empty {}))
    }
}
