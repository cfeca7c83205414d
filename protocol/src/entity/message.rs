//! Messages.

use std::collections::BTreeMap;

use super::{Attachment, is_zero};
use crate::{ChannelId, MessageId, Metadata, UserId, wire::wire};

wire! {
    /// A message.
    pub struct Message {
        /// Id.
        pub id: MessageId,
        /// Id of the channel.
        pub channel_id: ChannelId,
        /// Position among the channel's messages: 1, 2, 3 … without gaps.
        #[serde(default, skip_serializing_if = "is_zero")]
        #[cfg_attr(feature = "schema", schema(required = true))]
        pub number: u64,
        /// `seq` of the event that last changed it. Of two states, the one with the greater `seq`
        /// is newer.
        #[serde(default, skip_serializing_if = "is_zero")]
        #[cfg_attr(feature = "schema", schema(required = true))]
        pub seq: u64,
        /// Sender; a system message may have none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub sender_id: Option<UserId>,
        /// Kind of the message.
        pub kind: MessageKind,
        /// Text; empty when deleted.
        pub text: String,
        /// At most 32 attachments.
        pub attachments: Vec<Attachment>,
        /// Message that it replies to.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub reply_to_id: Option<MessageId>,
        /// Mentioned users, at most 100.
        pub mention_ids: Vec<UserId>,
        /// Number of users who give each reaction.
        #[serde(default)]
        #[cfg_attr(feature = "schema", schema(required = true))]
        pub reactions: BTreeMap<String, u64>,
        /// The caller's own reactions; in `message.list` only.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub own_reactions: Option<Vec<String>>,
        /// Free data.
        pub metadata: Metadata,
        /// Time of creation, in milliseconds since the Unix epoch.
        #[serde(default, skip_serializing_if = "is_zero")]
        #[cfg_attr(feature = "schema", schema(required = true))]
        pub created_at: u64,
        /// Time of the last edit.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub edited_at: Option<u64>,
        /// Time of the deletion.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub deleted_at: Option<u64>,
    }

    /// Kind of a message.
    #[derive(Copy, Eq, Hash, Default)]
    #[serde(rename_all = "snake_case")]
    pub enum MessageKind {
        /// Written by a user.
        #[default]
        Text,
        /// A notice of the app; sent with an app key only.
        System,
    }
}
