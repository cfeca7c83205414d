//! Entries of a user's list of channels.

use super::{Channel, Message, Role};
use crate::{ChannelId, ErrorBody, wire::wire};

wire! {
    /// A channel in a user's list of channels, with the user's place in it.
    pub struct Entry {
        /// Id of the channel.
        pub channel_id: ChannelId,
        /// The channel; absent in an entry of positions.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub channel: Option<Channel>,
        /// The user's role; absent in an entry of positions.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub role: Option<Role>,
        /// `seq` of the newest durable event of the channel.
        pub seq: u64,
        /// `at` of that event.
        pub at: u64,
        /// Number of the newest message.
        pub number: u64,
        /// Number of the newest message that the user has read.
        pub read: u64,
        /// `number − read`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub unread: Option<u64>,
        /// The newest message.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub last_message: Option<Message>,
        /// Number of participants; absent in an entry of positions.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub participant_count: Option<u64>,
        /// Why the channel could not be resumed from the client's position.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub gap: Option<Gap>,
    }

    /// A requested channel that has no entry.
    pub struct FailedEntry {
        /// Id of the requested channel.
        pub channel_id: ChannelId,
        /// Why there is no entry.
        pub error: ErrorBody,
    }
}

wire! {
    /// Result of a subscription to one channel.
    #[serde(untagged)]
    #[allow(clippy::large_enum_variant, reason = "failures are the rare case, and these live only while a reply is made")]
    pub enum EntryResult {
        /// The channel could not be subscribed to.
        Failed(FailedEntry),
        /// Entry of the channel.
        Entry(Entry),
    }
}

wire! {
    /// Why a stream cannot be continued from a position.
    #[derive(Copy, Eq, Hash)]
    #[serde(rename_all = "snake_case")]
    pub enum Gap {
        /// The log no longer reaches back to the position.
        Trimmed,
        /// No event stands at that position.
        Diverged,
        /// Only in `channel.gap`: the session has its maximum number of subscriptions, so that this
        /// channel is not subscribed to.
        LimitReached,
    }
}

impl Gap {
    /// Returns the word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Trimmed => "trimmed",
            Self::Diverged => "diverged",
            Self::LimitReached => "limit_reached",
        }
    }
}
