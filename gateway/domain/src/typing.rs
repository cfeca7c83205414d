//! Typing: a passing event to the other participants of a channel, at a bounded rate and to a
//! bounded audience.

mod operations;

use bytes::Bytes;
use protocol::{ChannelId, EventKind, event::TypingData};
use store::Control;

use crate::{
    Services, channel_state,
    credential::Actor,
    error::{Error, Result},
    permission::Action,
    reads::{self, InChannel},
};

/// Publishes that the caller types, or no longer does, to the other participants. Does nothing in
/// channels of more than `read_audience` participants.
pub async fn publish_typing(
    services: &Services,
    actor: &Actor,
    channel_id: &ChannelId,
    typing: bool,
) -> Result<()> {
    let Some(user) = actor.user() else {
        return Err(Error::forbidden("only a user types"));
    };
    let state = channel_state::read(services, actor, channel_id).await?;
    state.permit(actor, Action::Type)?;
    let topic = state.partition.topic();
    if services
        .limits
        .is_small_audience(state.channel.participant_count)
        && services
            .typists
            .admit(&topic, user, typing, services.clock.elapsed())
    {
        let others = Control::Except(Bytes::copy_from_slice(user.as_str().as_bytes()));
        let data = TypingData {
            user_id: user.clone(),
            typing,
        };
        reads::publish(
            services,
            &topic,
            EventKind::Typing,
            others,
            &InChannel { channel_id, data },
        )
        .await;
    }
    Ok(())
}
