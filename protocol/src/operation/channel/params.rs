//! Parameters of operations on channels.

use std::collections::BTreeMap;

use crate::{ChannelId, Cursor, Metadata, Patch, UserId, entity::ChannelType, wire::wire};

wire! {
    /// `channel.subscribe`.
    pub struct Subscribe {
        /// Up to 200 channels, each with the position to resume from.
        pub channels: BTreeMap<ChannelId, Cursor>,
    }

    /// `channel.unsubscribe`.
    pub struct Unsubscribe {
        /// Channels to unsubscribe from.
        pub channel_ids: Vec<ChannelId>,
    }

    /// `channel.create`, `POST /v1/channels`.
    pub struct CreateChannel {
        /// Id chosen by the app; app keys only.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub id: Option<ChannelId>,
        /// Type: who may find the channel, join it and send in it.
        #[serde(rename = "type")]
        pub kind: ChannelType,
        /// Single line.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub name: Option<String>,
        /// Text of one or more lines.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub description: Option<String>,
        /// http or https URL of a picture.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub icon: Option<String>,
        /// http or https URL of a picture.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub banner: Option<String>,
        /// User who becomes the owner; app keys only. A user is always the owner itself.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub creator_id: Option<UserId>,
        /// Initial participants besides the creator.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        pub participant_ids: Vec<UserId>,
        /// Free data.
        #[serde(default, skip_serializing_if = "Metadata::is_empty")]
        pub metadata: Metadata,
    }

    /// `channel.search`.
    #[derive(Default)]
    pub struct ListChannels {
        /// Only channels of this type.
        #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
        pub kind: Option<ChannelType>,
        /// Only channels of this user.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub participant_id: Option<UserId>,
        /// Only these, separated by commas: at most 200.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[cfg_attr(feature = "schema", schema(value_type = Option<Vec<ChannelId>>))]
        pub ids: Option<String>,
        /// The `cursor` of the previous page.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub cursor: Option<String>,
        /// Maximum number of items; default 50. A page never has more than `limits.page`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub limit: Option<u64>,
    }

    /// `PUT /v1/channels/{channel}`: fields that are left out are cleared; the type of an existing
    /// channel cannot change.
    pub struct ReplaceChannel {
        /// Type: who may find the channel, join it and send in it.
        #[serde(rename = "type")]
        pub kind: ChannelType,
        /// Single line.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub name: Option<String>,
        /// Text of one or more lines.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub description: Option<String>,
        /// http or https URL of a picture.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub icon: Option<String>,
        /// http or https URL of a picture.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub banner: Option<String>,
        /// Free data.
        #[serde(default, skip_serializing_if = "Metadata::is_empty")]
        pub metadata: Metadata,
    }

    /// `channel.update`, `PATCH /v1/channels/{channel}`: a merge patch.
    #[derive(Default)]
    pub struct UpdateChannel {
        /// Single line.
        #[serde(default, skip_serializing_if = "Patch::is_keep")]
        #[cfg_attr(feature = "schema", schema(value_type = Option<String>))]
        pub name: Patch<String>,
        /// Text of one or more lines.
        #[serde(default, skip_serializing_if = "Patch::is_keep")]
        #[cfg_attr(feature = "schema", schema(value_type = Option<String>))]
        pub description: Patch<String>,
        /// http or https URL of a picture.
        #[serde(default, skip_serializing_if = "Patch::is_keep")]
        #[cfg_attr(feature = "schema", schema(value_type = Option<String>))]
        pub icon: Patch<String>,
        /// http or https URL of a picture.
        #[serde(default, skip_serializing_if = "Patch::is_keep")]
        #[cfg_attr(feature = "schema", schema(value_type = Option<String>))]
        pub banner: Patch<String>,
        /// Merge patch of the free data.
        #[serde(default, skip_serializing_if = "Patch::is_keep")]
        #[cfg_attr(feature = "schema", schema(value_type = Option<Object>))]
        pub metadata: Patch<Metadata>,
    }
}
