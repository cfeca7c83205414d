//! Channels.

use super::is_zero;
use crate::{ChannelId, Metadata, UserId, wire::wire};

wire! {
    /// A channel: participants exchange messages in it.
    pub struct Channel {
        /// Id.
        pub id: ChannelId,
        /// Type: who may find the channel, join it and send in it.
        #[serde(rename = "type")]
        pub kind: ChannelType,
        /// Single line of up to 200 characters.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub name: Option<String>,
        /// Text of up to 2,048 characters, line breaks included.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub description: Option<String>,
        /// http or https URL of a picture.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub icon: Option<String>,
        /// http or https URL of a picture.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub banner: Option<String>,
        /// User who created it; absent if the app's backend did.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub creator_id: Option<UserId>,
        /// Free data.
        #[serde(default)]
        #[cfg_attr(feature = "schema", schema(required = true))]
        pub metadata: Metadata,
        /// Time of creation, in milliseconds since the Unix epoch; set by the store.
        #[serde(default, skip_serializing_if = "is_zero")]
        #[cfg_attr(feature = "schema", schema(required = true))]
        pub created_at: u64,
        /// Number of participants.
        #[serde(default)]
        #[cfg_attr(feature = "schema", schema(required = true))]
        pub participant_count: u64,
    }

    /// Type of a channel: who may find it, join it and send in it.
    #[derive(Copy, Eq, Hash)]
    #[serde(rename_all = "snake_case")]
    pub enum ChannelType {
        /// Two users, both owners; nobody joins or leaves.
        Direct,
        /// Participants are added by its owners and moderators.
        Group,
        /// Any user of the app may find it and join.
        Open,
        /// Owners and moderators send; any user may join.
        Broadcast,
    }
}

impl ChannelType {
    /// All types.
    pub const ALL: [Self; 4] = [Self::Direct, Self::Group, Self::Open, Self::Broadcast];

    /// Returns the word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Group => "group",
            Self::Open => "open",
            Self::Broadcast => "broadcast",
        }
    }
}
