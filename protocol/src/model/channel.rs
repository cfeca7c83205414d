//! Channels, and what a user's list of channels says of each.

use super::{Message, user::is_zero};
use crate::{ChannelId, ErrorBody, Metadata, UserId};

wire! {
    /// Where messages are exchanged.
    pub struct Channel {
        /// Its id.
        pub id: ChannelId,
        /// Who may find it, join it and send in it.
        #[serde(rename = "type")]
        pub kind: ChannelType,
        /// Up to 200 characters.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub name: Option<String>,
        /// Up to 2,048 characters.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub description: Option<String>,
        /// The address of a picture.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub icon: Option<String>,
        /// The address of a picture.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub banner: Option<String>,
        /// Who made it; absent if the app's backend did so itself.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub creator_id: Option<UserId>,
        /// Free data.
        #[serde(default)]
        pub metadata: Metadata,
        /// When it was made, in milliseconds since the Unix epoch; set by the store.
        #[serde(default, skip_serializing_if = "is_zero")]
        pub created_at: u64,
        /// How many participants it has.
        #[serde(default)]
        pub participant_count: u64,
    }

    /// Who may find, join and send.
    #[derive(Copy, Eq, Hash)]
    #[serde(rename_all = "snake_case")]
    pub enum ChannelType {
        /// Two users, both owners; nobody joins or leaves.
        Direct,
        /// By invitation.
        Group,
        /// Any user of the app may find it and join.
        Open,
        /// Owners and moderators send; any user may join.
        Broadcast,
    }

    /// A channel as a user's session or list shows it.
    pub struct Entry {
        /// Which channel.
        pub channel_id: ChannelId,
        /// The channel; absent with `entries: "positions"`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub channel: Option<Channel>,
        /// The user's role in it; absent with `entries: "positions"`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub role: Option<super::Role>,
        /// Of the newest durable event when this was made.
        pub seq: u64,
        /// The instant of that event.
        pub at: u64,
        /// The number of the newest message.
        pub number: u64,
        /// Up to which number the user has read.
        pub read: u64,
        /// `number − read`; absent with `entries: "positions"`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub unread: Option<u64>,
        /// The newest message.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub last_message: Option<Message>,
        /// How many participants the channel has; absent with `entries: "positions"`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub participant_count: Option<u64>,
        /// Why a resume could not go on from the client's position.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub gap: Option<Gap>,
    }

    /// An entry that could not be made.
    pub struct FailedEntry {
        /// Which channel was asked for.
        pub channel_id: ChannelId,
        /// Why there is no entry.
        pub error: ErrorBody,
    }

    /// Why a stream does not go on from a position.
    #[derive(Copy, Eq, Hash)]
    #[serde(rename_all = "snake_case")]
    pub enum Gap {
        /// The position is older than the kept log.
        Trimmed,
        /// No event stands at that position.
        Diverged,
        /// Only in `channel.gap`: the session has as many subscriptions as it may, so this channel is not among them.
        LimitReached,
    }
}

wire! {
    /// The answer for one channel of a subscription.
    #[serde(untagged)]
    #[allow(clippy::large_enum_variant, reason = "failures are the rare case, and these live only while a reply is made")]
    pub enum EntryResult {
        /// Why there is none.
        Failed(FailedEntry),
        /// The entry.
        Entry(Entry),
    }
}

impl ChannelType {
    /// Every type.
    pub const ALL: [Self; 4] = [Self::Direct, Self::Group, Self::Open, Self::Broadcast];

    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Group => "group",
            Self::Open => "open",
            Self::Broadcast => "broadcast",
        }
    }
}

impl Gap {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Trimmed => "trimmed",
            Self::Diverged => "diverged",
            Self::LimitReached => "limit_reached",
        }
    }
}
