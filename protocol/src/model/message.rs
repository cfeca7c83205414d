//! Messages, their attachments and reactions.

use std::collections::BTreeMap;

use super::user::is_zero;
use crate::{ChannelId, MessageId, Metadata, UploadId, UserId};

wire! {
    /// A message.
    pub struct Message {
        /// Its id.
        pub id: MessageId,
        /// Where it stands.
        pub channel_id: ChannelId,
        /// Its place among the channel's messages: 1, 2, 3 … without a hole.
        #[serde(default, skip_serializing_if = "is_zero")]
        pub number: u64,
        /// Of the event that last changed it: of two states the one with the greater `seq` is newer.
        #[serde(default, skip_serializing_if = "is_zero")]
        pub seq: u64,
        /// Who sent it; a system message may lack one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub sender_id: Option<UserId>,
        /// What it is.
        pub kind: MessageKind,
        /// Always a readable fallback; empty when deleted.
        pub text: String,
        /// What hangs on it, at most [`MAX_ATTACHMENTS`].
        pub attachments: Vec<Attachment>,
        /// Which message it answers.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub reply_to_id: Option<MessageId>,
        /// Whom it mentions, at most [`MAX_MENTIONS`].
        pub mention_ids: Vec<UserId>,
        /// How often each reaction was given.
        #[serde(default)]
        pub reactions: BTreeMap<String, u64>,
        /// The reader's own reactions; in `message.list` only.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub own_reactions: Option<Vec<String>>,
        /// Free data.
        pub metadata: Metadata,
        /// When it was stored, in milliseconds since the Unix epoch.
        #[serde(default, skip_serializing_if = "is_zero")]
        pub created_at: u64,
        /// When it was last edited.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub edited_at: Option<u64>,
        /// When it was deleted.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub deleted_at: Option<u64>,
    }

    /// What a message is.
    #[derive(Copy, Eq, Hash, Default)]
    #[serde(rename_all = "snake_case")]
    pub enum MessageKind {
        /// Somebody's words.
        #[default]
        Text,
        /// A notice by the app; sent with an app key only.
        System,
    }

    /// Something that hangs on a message: an upload, or an address.
    pub struct Attachment {
        /// What it is, in the app's words: `image`, `file`, …; 1 to 64 characters.
        #[serde(rename = "type")]
        pub kind: String,
        /// The upload, unless there is a `url`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub upload_id: Option<UploadId>,
        /// The address, unless there is an `upload_id`; up to 2,048 characters.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub url: Option<String>,
        /// A file name.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub name: Option<String>,
        /// Bytes.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub size: Option<u64>,
        /// A media type.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub mime: Option<String>,
        /// Pixels.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub width: Option<u64>,
        /// Pixels.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub height: Option<u64>,
        /// Milliseconds.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub duration_ms: Option<u64>,
        /// Free data.
        #[serde(default, skip_serializing_if = "Metadata::is_empty")]
        pub metadata: Metadata,
    }
}

/// The most attachments of a message.
pub const MAX_ATTACHMENTS: usize = 32;
/// The most mentions of a message.
pub const MAX_MENTIONS: usize = 100;
/// The longest reaction, in bytes.
pub const MAX_EMOJI: usize = 64;
