//! Typing: a passing event to everybody else in a channel.

use bytes::Bytes;
use protocol::{ChannelId, EventKind, event::TypingData};

use super::{Services, permissions::Operation, reads::InChannel};
use crate::{
    auth::Actor,
    error::{Error, Result},
};

impl Services {
    /// Tells the others that the caller types, or no longer does.
    pub async fn typing(&self, actor: &Actor, channel_id: &ChannelId, typing: bool) -> Result<()> {
        let Some(user) = actor.user() else {
            return Err(Error::forbidden("only a user types"));
        };
        let state = self.channel_state(actor, channel_id, Vec::new()).await?;
        state.permit(actor, Operation::Type)?;
        let control =
            fanout::record::Control::Except(Bytes::copy_from_slice(user.as_str().as_bytes()));
        let data = TypingData {
            user_id: user.clone(),
            typing,
        };
        self.tell(
            &state.partition.topic(),
            EventKind::Typing,
            control,
            &InChannel { channel_id, data },
        )
        .await;
        Ok(())
    }
}
