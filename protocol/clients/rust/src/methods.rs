//! The methods of the wire, one thin call each. What is not here goes through [`Session::request`].

use std::collections::BTreeMap;

use protocol::{
    ChannelId, MessageId, Method, UserId,
    model::{Channel, Entry, EntryResult, Message, Participant, Presence, Role, User},
    params::{
        AddParticipant, ChannelRef, CreateChannel, Cursor, EditMessage, ListMessages, ListPage,
        MarkRead, MessageRef, ParticipantRef, React, RefreshToken, SendMessage, Subscribe, Typing,
        Unsubscribe, UpdateChannel, UpdateParticipant, UpdateUser, UserIds,
    },
    results::{
        ChannelResult, Count, List, MessageList, MessageResult, ParticipantResult, Pong, Presences,
        ReadResult, Refreshed, Subscribed, UserResult, Users,
    },
};
use serde::Serialize;

use crate::{PendingReply, RequestError, Session};

/// The ids of what a request is about, beside its fields, in one map.
#[derive(Serialize)]
pub(crate) struct Of<I, P> {
    #[serde(flatten)]
    ids: I,
    #[serde(flatten)]
    fields: P,
}

pub(crate) fn in_channel<P>(channel_id: &ChannelId, fields: P) -> Of<ChannelRef, P> {
    Of {
        ids: ChannelRef {
            channel_id: channel_id.clone(),
        },
        fields,
    }
}

fn message_ref(channel_id: &ChannelId, message_id: &MessageId) -> MessageRef {
    MessageRef {
        channel_id: channel_id.clone(),
        message_id: message_id.clone(),
    }
}

impl Session {
    /// `message.send`.
    pub async fn send(
        &self,
        channel_id: &ChannelId,
        message: &SendMessage,
    ) -> Result<Message, RequestError> {
        Ok(self
            .begin_send(channel_id, message)
            .await?
            .reply::<MessageResult>()
            .await?
            .message)
    }

    /// `message.send` with the reply ([`MessageResult`]) left for later: messages of one channel are numbered in the order
    /// of these calls.
    pub async fn begin_send(
        &self,
        channel_id: &ChannelId,
        message: &SendMessage,
    ) -> Result<PendingReply, RequestError> {
        self.begin(Method::MessageSend, &in_channel(channel_id, message))
            .await
    }

    /// `message.edit`.
    pub async fn edit(
        &self,
        channel_id: &ChannelId,
        message_id: &MessageId,
        edit: &EditMessage,
    ) -> Result<Message, RequestError> {
        let params = Of {
            ids: message_ref(channel_id, message_id),
            fields: edit,
        };
        Ok(self
            .request::<_, MessageResult>(Method::MessageEdit, &params)
            .await?
            .message)
    }

    /// `message.delete`.
    pub async fn delete_message(
        &self,
        channel_id: &ChannelId,
        message_id: &MessageId,
    ) -> Result<(), RequestError> {
        self.tell(Method::MessageDelete, &message_ref(channel_id, message_id))
            .await
    }

    /// `message.list`.
    pub async fn messages(
        &self,
        channel_id: &ChannelId,
        which: &ListMessages,
    ) -> Result<MessageList, RequestError> {
        self.request(Method::MessageList, &in_channel(channel_id, which))
            .await
    }

    /// `reaction.add`: how often the reaction was given by now.
    pub async fn react(
        &self,
        channel_id: &ChannelId,
        message_id: &MessageId,
        emoji: &str,
    ) -> Result<u64, RequestError> {
        let params = Of {
            ids: message_ref(channel_id, message_id),
            fields: React {
                emoji: emoji.to_owned(),
            },
        };
        Ok(self
            .request::<_, Count>(Method::ReactionAdd, &params)
            .await?
            .count)
    }

    /// `reaction.remove`: how often the reaction stands now.
    pub async fn unreact(
        &self,
        channel_id: &ChannelId,
        message_id: &MessageId,
        emoji: &str,
    ) -> Result<u64, RequestError> {
        let params = Of {
            ids: message_ref(channel_id, message_id),
            fields: React {
                emoji: emoji.to_owned(),
            },
        };
        Ok(self
            .request::<_, Count>(Method::ReactionRemove, &params)
            .await?
            .count)
    }

    /// `read.mark`: up to which number the user has read now.
    pub async fn mark_read(
        &self,
        channel_id: &ChannelId,
        number: u64,
    ) -> Result<u64, RequestError> {
        Ok(self
            .request::<_, ReadResult>(
                Method::ReadMark,
                &in_channel(channel_id, MarkRead { number }),
            )
            .await?
            .read)
    }

    /// `typing`.
    pub async fn typing(&self, channel_id: &ChannelId, typing: bool) -> Result<(), RequestError> {
        self.tell(Method::Typing, &in_channel(channel_id, Typing { typing }))
            .await
    }

    /// `channel.subscribe`: each channel from its position, or from now on.
    pub async fn subscribe(
        &self,
        channels: BTreeMap<ChannelId, Cursor>,
    ) -> Result<Vec<EntryResult>, RequestError> {
        Ok(self
            .request::<_, Subscribed>(Method::ChannelSubscribe, &Subscribe { channels })
            .await?
            .channels)
    }

    /// `channel.unsubscribe`.
    pub async fn unsubscribe(&self, channel_ids: Vec<ChannelId>) -> Result<(), RequestError> {
        self.tell(Method::ChannelUnsubscribe, &Unsubscribe { channel_ids })
            .await
    }

    /// `channel.list`.
    pub async fn channels(&self, page: &ListPage) -> Result<List<Entry>, RequestError> {
        self.request(Method::ChannelList, page).await
    }

    /// `channel.create`.
    pub async fn create_channel(&self, channel: &CreateChannel) -> Result<Channel, RequestError> {
        Ok(self
            .request::<_, ChannelResult>(Method::ChannelCreate, channel)
            .await?
            .channel)
    }

    /// `channel.update`.
    pub async fn update_channel(
        &self,
        channel_id: &ChannelId,
        update: &UpdateChannel,
    ) -> Result<Channel, RequestError> {
        Ok(self
            .request::<_, ChannelResult>(Method::ChannelUpdate, &in_channel(channel_id, update))
            .await?
            .channel)
    }

    /// `channel.delete`.
    pub async fn delete_channel(&self, channel_id: &ChannelId) -> Result<(), RequestError> {
        self.tell(
            Method::ChannelDelete,
            &ChannelRef {
                channel_id: channel_id.clone(),
            },
        )
        .await
    }

    /// `channel.join`.
    pub async fn join(&self, channel_id: &ChannelId) -> Result<Participant, RequestError> {
        let params = ChannelRef {
            channel_id: channel_id.clone(),
        };
        Ok(self
            .request::<_, ParticipantResult>(Method::ChannelJoin, &params)
            .await?
            .participant)
    }

    /// `channel.leave`.
    pub async fn leave(&self, channel_id: &ChannelId) -> Result<(), RequestError> {
        self.tell(
            Method::ChannelLeave,
            &ChannelRef {
                channel_id: channel_id.clone(),
            },
        )
        .await
    }

    /// `participant.add`.
    pub async fn add_participant(
        &self,
        channel_id: &ChannelId,
        user_id: &UserId,
        role: Option<Role>,
    ) -> Result<Participant, RequestError> {
        let params = in_channel(
            channel_id,
            AddParticipant {
                user_id: user_id.clone(),
                role,
            },
        );
        Ok(self
            .request::<_, ParticipantResult>(Method::ParticipantAdd, &params)
            .await?
            .participant)
    }

    /// `participant.update`.
    pub async fn give_role(
        &self,
        channel_id: &ChannelId,
        user_id: &UserId,
        role: Role,
    ) -> Result<Participant, RequestError> {
        let ids = ParticipantRef {
            channel_id: channel_id.clone(),
            user_id: user_id.clone(),
        };
        let params = Of {
            ids,
            fields: UpdateParticipant { role: Some(role) },
        };
        Ok(self
            .request::<_, ParticipantResult>(Method::ParticipantUpdate, &params)
            .await?
            .participant)
    }

    /// `participant.remove`.
    pub async fn remove_participant(
        &self,
        channel_id: &ChannelId,
        user_id: &UserId,
    ) -> Result<(), RequestError> {
        let params = ParticipantRef {
            channel_id: channel_id.clone(),
            user_id: user_id.clone(),
        };
        self.tell(Method::ParticipantRemove, &params).await
    }

    /// `participant.list`.
    pub async fn participants(
        &self,
        channel_id: &ChannelId,
        page: &ListPage,
    ) -> Result<List<Participant>, RequestError> {
        self.request(Method::ParticipantList, &in_channel(channel_id, page))
            .await
    }

    /// `presence.watch`: these users in place of those watched before.
    pub async fn watch_presence(
        &self,
        user_ids: Vec<UserId>,
    ) -> Result<BTreeMap<UserId, Presence>, RequestError> {
        Ok(self
            .request::<_, Presences>(Method::PresenceWatch, &UserIds { user_ids })
            .await?
            .presence)
    }

    /// `user.get`: those that exist.
    pub async fn users(&self, user_ids: Vec<UserId>) -> Result<Vec<User>, RequestError> {
        Ok(self
            .request::<_, Users>(Method::UserGet, &UserIds { user_ids })
            .await?
            .items)
    }

    /// `user.update`.
    pub async fn update_user(&self, update: &UpdateUser) -> Result<User, RequestError> {
        Ok(self
            .request::<_, UserResult>(Method::UserUpdate, update)
            .await?
            .user)
    }

    /// `token.refresh`: when the new token ends, in milliseconds since the Unix epoch.
    pub async fn refresh_token(&self, token: &str) -> Result<u64, RequestError> {
        let params = RefreshToken {
            token: token.to_owned(),
        };
        Ok(self
            .request::<_, Refreshed>(Method::TokenRefresh, &params)
            .await?
            .expires_at)
    }

    /// `ping`: the server's clock, in milliseconds since the Unix epoch.
    pub async fn ping(&self) -> Result<u64, RequestError> {
        Ok(self
            .request::<_, Pong>(Method::Ping, &BTreeMap::<String, u64>::new())
            .await?
            .at)
    }
}
