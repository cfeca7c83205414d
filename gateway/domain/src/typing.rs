//! Typing: a passing event to everybody else in a channel, at a bounded rate and to a bounded
//! audience.

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

/// Tells the other participants that the caller types, or no longer does.
///
/// Nobody is told in channels of more than `read_audience` participants.
pub async fn typing(
    services: &Services,
    actor: &Actor,
    channel_id: &ChannelId,
    typing: bool,
) -> Result<()> {
    let Some(user) = actor.user() else {
        return Err(Error::forbidden("only a user types"));
    };
    let state = channel_state::channel_state(services, actor, channel_id).await?;
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
        reads::tell(
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
