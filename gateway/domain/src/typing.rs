//! Typing: a passing event to everybody else in a channel, at a bounded rate and to a bounded
//! audience.

mod operations;

use bytes::Bytes;
use protocol::{ChannelId, EventKind, event::TypingData};
use store::Control;

use super::{Services, permission::Action, reads::InChannel};
use crate::{
    credential::Actor,
    error::{Error, Result},
};

impl Services {
    /// Tells the other participants that the caller types, or no longer does.
    ///
    /// Nobody is told in channels of more than `read_audience` participants.
    pub async fn typing(&self, actor: &Actor, channel_id: &ChannelId, typing: bool) -> Result<()> {
        let Some(user) = actor.user() else {
            return Err(Error::forbidden("only a user types"));
        };
        let state = self.channel_state(actor, channel_id, Vec::new()).await?;
        state.permit(actor, Action::Type)?;
        let topic = state.partition.topic();
        if self
            .limits
            .is_small_audience(state.channel.participant_count)
            && self
                .typists
                .admit(&topic, user, typing, self.clock.elapsed())
        {
            let others = Control::Except(Bytes::copy_from_slice(user.as_str().as_bytes()));
            let data = TypingData {
                user_id: user.clone(),
                typing,
            };
            self.tell(
                &topic,
                EventKind::Typing,
                others,
                &InChannel { channel_id, data },
            )
            .await;
        }
        Ok(())
    }
}
