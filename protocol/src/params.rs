//! What requests carry: the parameters of methods and the bodies of HTTP requests, which are the same but for the path.
//!
//! A method's parameters are the path's ids (`ChannelRef`, `MessageRef`, …) beside the body's fields in one map. A server
//! decodes the map once as each of them, since receivers ignore the fields that they do not know.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    ChannelId, MessageId, Metadata, Patch, UserId,
    model::{
        Algorithm, AppSettings, Attachment, ChannelType, Environment, MessageKind, Role,
        debug_without_secrets, wire,
    },
};

/// A position on the wire: `[seq, at]`, or `[]` for "from now on".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cursor {
    /// From now on.
    Now,
    /// After this event: its `seq` and `at`.
    After(u64, u64),
}

impl Serialize for Cursor {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Now => <[u64; 0]>::serialize(&[], serializer),
            Self::After(seq, at) => [*seq, *at].serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Cursor {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Position;
        impl<'de> serde::de::Visitor<'de> for Position {
            type Value = Cursor;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a position: [seq, at] or []")
            }
            fn visit_seq<A: serde::de::SeqAccess<'de>>(
                self,
                mut parts: A,
            ) -> Result<Cursor, A::Error> {
                let Some(seq) = parts.next_element()? else {
                    return Ok(Cursor::Now);
                };
                match (
                    parts.next_element()?,
                    parts.next_element::<serde::de::IgnoredAny>()?,
                ) {
                    (Some(at), None) => Ok(Cursor::After(seq, at)),
                    (at, _) => Err(serde::de::Error::invalid_length(
                        if at.is_some() { 3 } else { 1 },
                        &self,
                    )),
                }
            }
        }
        deserializer.deserialize_seq(Position)
    }
}

wire! { secret:
    /// `connect`: the first request of a connection.
    #[derive(Default)]
    pub struct Connect {
        /// A user token.
        pub token: String,
        /// Channels to go on with, each from a position.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        #[cfg_attr(feature = "schema", schema(value_type = Object))]
        pub resume: BTreeMap<ChannelId, Cursor>,
        /// The position in the user's own stream to go on from.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[cfg_attr(feature = "schema", schema(value_type = Option<Vec<u64>>))]
        pub user_position: Option<Cursor>,
        /// Which channels the session is subscribed to besides those in `resume`.
        #[serde(default)]
        pub watch: Watch,
        /// How much each entry tells.
        #[serde(default)]
        pub entries: Entries,
        /// The client's name and version.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub client: Option<String>,
    }

    /// `token.refresh`.
    pub struct RefreshToken {
        /// A new token of the same user.
        pub token: String,
    }
}

debug_without_secrets!(Connect { resume, user_position, watch, entries, client; token });
debug_without_secrets!(RefreshToken { ; token });

wire! {
    /// Which channels `connect` subscribes to.
    #[derive(Copy, Eq, Default)]
    #[serde(rename_all = "snake_case")]
    pub enum Watch {
        /// The user's channels, last active first, up to `limits.watched_channels`; and those it comes into later.
        #[default]
        All,
        /// None but those in `resume`.
        None,
    }

    /// How much an entry tells.
    #[derive(Copy, Eq, Default)]
    #[serde(rename_all = "snake_case")]
    pub enum Entries {
        /// Everything.
        #[default]
        Full,
        /// `channel_id, seq, at, number, read, gap`.
        Positions,
    }

    /// `channel.subscribe`.
    pub struct Subscribe {
        /// Up to 200 channels, each with the position to go on from.
        #[cfg_attr(feature = "schema", schema(value_type = Object))]
        pub channels: BTreeMap<ChannelId, Cursor>,
    }

    /// `channel.unsubscribe`.
    pub struct Unsubscribe {
        /// Which channels.
        pub channel_ids: Vec<ChannelId>,
    }

    /// A page of a list.
    #[derive(Default)]
    #[cfg_attr(feature = "schema", derive(utoipa::IntoParams), into_params(parameter_in = Query))]
    pub struct ListPage {
        /// Where the page before ended.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub cursor: Option<String>,
        /// At most this many items; default 50, at most `limits.page`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub limit: Option<u64>,
    }

    /// A channel by its id.
    pub struct ChannelRef {
        /// Which channel.
        pub channel_id: ChannelId,
    }

    /// A message by its ids.
    pub struct MessageRef {
        /// Which channel.
        pub channel_id: ChannelId,
        /// Which message.
        pub message_id: MessageId,
    }

    /// A participant by the ids of channel and user.
    pub struct ParticipantRef {
        /// Which channel.
        pub channel_id: ChannelId,
        /// Which user.
        pub user_id: UserId,
    }

    /// `channel.create`, `POST /v1/channels`.
    pub struct CreateChannel {
        /// Chosen by the app; app keys only.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub id: Option<ChannelId>,
        /// Who may find, join and send.
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
        /// Who becomes its owner; app keys only, a user is the creator itself.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub creator_id: Option<UserId>,
        /// Who is in it from the start, besides the creator; at most 100.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        pub participant_ids: Vec<UserId>,
        /// Free data.
        #[serde(default, skip_serializing_if = "Metadata::is_empty")]
        pub metadata: Metadata,
    }

    /// `channel.update`, `PATCH /v1/channels/{channel}`: a merge patch.
    #[derive(Default)]
    pub struct UpdateChannel {
        /// Up to 200 characters.
        #[serde(default, skip_serializing_if = "Patch::is_keep")]
        #[cfg_attr(feature = "schema", schema(value_type = Option<String>))]
        pub name: Patch<String>,
        /// Up to 2,048 characters.
        #[serde(default, skip_serializing_if = "Patch::is_keep")]
        #[cfg_attr(feature = "schema", schema(value_type = Option<String>))]
        pub description: Patch<String>,
        /// The address of a picture.
        #[serde(default, skip_serializing_if = "Patch::is_keep")]
        #[cfg_attr(feature = "schema", schema(value_type = Option<String>))]
        pub icon: Patch<String>,
        /// The address of a picture.
        #[serde(default, skip_serializing_if = "Patch::is_keep")]
        #[cfg_attr(feature = "schema", schema(value_type = Option<String>))]
        pub banner: Patch<String>,
        /// Merged into the free data.
        #[serde(default, skip_serializing_if = "Patch::is_keep")]
        #[cfg_attr(feature = "schema", schema(value_type = Option<Object>))]
        pub metadata: Patch<Metadata>,
    }

    /// `PUT /v1/channels/{channel}`: what is left out is cleared; the type of an existing channel cannot change.
    pub struct ReplaceChannel {
        /// Who may find, join and send.
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
        /// Free data.
        #[serde(default, skip_serializing_if = "Metadata::is_empty")]
        pub metadata: Metadata,
    }

    /// `participant.add`, `POST /v1/channels/{channel}/participants`.
    pub struct AddParticipant {
        /// Who comes.
        pub user_id: UserId,
        /// As what; default `member`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub role: Option<Role>,
    }

    /// `participant.update`, `PATCH /v1/channels/{channel}/participants/{user}`.
    pub struct UpdateParticipant {
        /// The new role; left out, nothing changes.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub role: Option<Role>,
    }

    /// `message.send`, `POST /v1/channels/{channel}/messages`.
    #[derive(Default)]
    pub struct SendMessage {
        /// Chosen by the sender, so that sending again is safe.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub message_id: Option<MessageId>,
        /// Up to `limits.text_bytes`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub text: Option<String>,
        /// Which message it answers: one of the same channel.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub reply_to_id: Option<MessageId>,
        /// What hangs on it.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        pub attachments: Vec<Attachment>,
        /// Whom it mentions: users of the app.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        pub mention_ids: Vec<UserId>,
        /// Free data.
        #[serde(default, skip_serializing_if = "Metadata::is_empty")]
        pub metadata: Metadata,
        /// In whose name; app keys only.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub sender_id: Option<UserId>,
        /// What it is; app keys only.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub kind: Option<MessageKind>,
    }

    /// `message.edit`, `PATCH …/messages/{message}`: a merge patch.
    #[derive(Default)]
    pub struct EditMessage {
        /// The new text.
        #[serde(default, skip_serializing_if = "Patch::is_keep")]
        #[cfg_attr(feature = "schema", schema(value_type = Option<String>))]
        pub text: Patch<String>,
        /// The new attachments.
        #[serde(default, skip_serializing_if = "Patch::is_keep")]
        #[cfg_attr(feature = "schema", schema(value_type = Option<Vec<Attachment>>))]
        pub attachments: Patch<Vec<Attachment>>,
        /// The new mentions.
        #[serde(default, skip_serializing_if = "Patch::is_keep")]
        #[cfg_attr(feature = "schema", schema(value_type = Option<Vec<String>>))]
        pub mention_ids: Patch<Vec<UserId>>,
        /// Merged into the free data.
        #[serde(default, skip_serializing_if = "Patch::is_keep")]
        #[cfg_attr(feature = "schema", schema(value_type = Option<Object>))]
        pub metadata: Patch<Metadata>,
    }

    /// Which messages to list: at most one of the three; without any, the newest.
    #[derive(Default, Copy)]
    #[cfg_attr(feature = "schema", derive(utoipa::IntoParams), into_params(parameter_in = Query))]
    pub struct ListMessages {
        /// Those with a lower `number`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub before: Option<u64>,
        /// Those with a higher `number`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub after: Option<u64>,
        /// Those that changed after the event with this `seq`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub changed_after: Option<u64>,
        /// At most this many; default 50, at most `limits.page`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub limit: Option<u64>,
    }

    /// `reaction.add`, `reaction.remove`.
    pub struct React {
        /// 1 to 64 bytes.
        pub emoji: String,
    }

    /// `read.mark`.
    pub struct MarkRead {
        /// Up to which number the user has read.
        pub number: u64,
    }

    /// `typing`.
    pub struct Typing {
        /// Whether the user types now.
        pub typing: bool,
    }

    /// `presence.watch`, `user.get`.
    pub struct UserIds {
        /// At most 100.
        pub user_ids: Vec<UserId>,
    }

    /// `user.update`, `PATCH /v1/users/{user}`: a merge patch.
    #[derive(Default)]
    pub struct UpdateUser {
        /// Up to 200 characters, like the other names.
        #[serde(default, skip_serializing_if = "Patch::is_keep")]
        #[cfg_attr(feature = "schema", schema(value_type = Option<String>))]
        pub username: Patch<String>,
        /// The first name.
        #[serde(default, skip_serializing_if = "Patch::is_keep")]
        #[cfg_attr(feature = "schema", schema(value_type = Option<String>))]
        pub first_name: Patch<String>,
        /// The last name.
        #[serde(default, skip_serializing_if = "Patch::is_keep")]
        #[cfg_attr(feature = "schema", schema(value_type = Option<String>))]
        pub last_name: Patch<String>,
        /// The address of a picture.
        #[serde(default, skip_serializing_if = "Patch::is_keep")]
        #[cfg_attr(feature = "schema", schema(value_type = Option<String>))]
        pub avatar: Patch<String>,
        /// Up to 2,048 characters.
        #[serde(default, skip_serializing_if = "Patch::is_keep")]
        #[cfg_attr(feature = "schema", schema(value_type = Option<String>))]
        pub bio: Patch<String>,
        /// Whether it is a bot; app keys only.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub bot: Option<bool>,
        /// Merged into the free data.
        #[serde(default, skip_serializing_if = "Patch::is_keep")]
        #[cfg_attr(feature = "schema", schema(value_type = Option<Object>))]
        pub metadata: Patch<Metadata>,
    }

    /// `PUT /v1/users/{user}`; with `id`, `POST /v1/users`.
    #[derive(Default)]
    pub struct PutUser {
        /// Chosen by the app; only where the path does not name it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub id: Option<UserId>,
        /// Up to 200 characters, like the other names.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub username: Option<String>,
        /// The first name.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub first_name: Option<String>,
        /// The last name.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub last_name: Option<String>,
        /// The address of a picture.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub avatar: Option<String>,
        /// Up to 2,048 characters.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub bio: Option<String>,
        /// Whether it is a bot or an agent.
        #[serde(default)]
        pub bot: bool,
        /// Free data.
        #[serde(default, skip_serializing_if = "Metadata::is_empty")]
        pub metadata: Metadata,
    }

    /// `POST /v1/users/{user}/tokens`.
    #[derive(Default)]
    pub struct MintToken {
        /// Seconds; default 3600, at most `limits.token_seconds`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub expires_in: Option<u64>,
    }

    /// `POST /v1/users/{user}/disconnect`.
    #[derive(Default)]
    pub struct Disconnect {
        /// Whether all tokens issued so far are refused from now on.
        #[serde(default)]
        pub revoke: bool,
    }

    /// `POST /v1/organizations`.
    pub struct CreateOrganization {
        /// 1 to 200 characters.
        pub name: String,
        /// Where its people are reached.
        pub email: String,
        /// The address of a picture.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub banner: Option<String>,
    }

    /// `PATCH /v1/organizations/{org}`: a merge patch.
    #[derive(Default)]
    pub struct UpdateOrganization {
        /// 1 to 200 characters.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub name: Option<String>,
        /// Where its people are reached.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub email: Option<String>,
        /// The address of a picture.
        #[serde(default, skip_serializing_if = "Patch::is_keep")]
        #[cfg_attr(feature = "schema", schema(value_type = Option<String>))]
        pub banner: Patch<String>,
    }

    /// `POST …/apps`.
    pub struct CreateApp {
        /// 1 to 200 characters.
        pub name: String,
        /// What the app decides.
        #[serde(default)]
        pub settings: AppSettings,
    }

    /// `PATCH …/apps/{app}`: a merge patch.
    #[derive(Default)]
    pub struct UpdateApp {
        /// 1 to 200 characters.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub name: Option<String>,
        /// What changes of the settings.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub settings: Option<UpdateAppSettings>,
    }

    /// What changes of an app's settings.
    #[derive(Default)]
    pub struct UpdateAppSettings {
        /// Whether a valid token for an unknown user makes that user.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub create_users_from_tokens: Option<bool>,
    }

    /// `POST …/organizations/{org}/keys`.
    #[derive(Default)]
    pub struct CreateOrganizationKey {
        /// What to call it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub name: Option<String>,
    }

    /// `POST …/apps/{app}/keys`.
    pub struct CreateAppKey {
        /// Which environment it reaches.
        pub environment: Environment,
        /// What to call it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub name: Option<String>,
    }

    /// `POST …/apps/{app}/access`.
    pub struct CreateAccess {
        /// Which environment it reaches.
        pub environment: Environment,
        /// Seconds; default and at most 3600.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub expires_in: Option<u64>,
    }

    /// `POST …/apps/{app}/token-keys`.
    pub struct CreateTokenKey {
        /// In which environment its users are.
        pub environment: Environment,
        /// The only algorithm accepted for it.
        pub algorithm: Algorithm,
        /// PEM (SPKI); for all algorithms but HS256.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub public_key: Option<String>,
    }
}

/// `POST …/batch`: up to 100 items, each done on its own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Batch<T> {
    /// The items.
    pub items: Vec<T>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::Encoding;

    #[test]
    fn a_position_has_two_parts_or_none() {
        for encoding in Encoding::ALL {
            let read = |parts: &[u64]| encoding.decode::<Cursor>(&encoding.encode(&parts));
            assert_eq!(read(&[]), Ok(Cursor::Now));
            assert_eq!(read(&[7, 8]), Ok(Cursor::After(7, 8)));
            assert!(read(&[7]).is_err());
            assert!(read(&[7, 8, 9]).is_err());
        }
    }
}
