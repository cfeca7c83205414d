//! Events: their names, and how a client reads them.

use serde::{Deserialize, Serialize};

use crate::{
    ChannelId, MessageId, UserId,
    model::{Channel, Entry, Gap, Message, Participant, User},
};

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident $number:literal $word:literal $shape:ident,)*) => {
        /// What happened. The number stands in the log and on the bus, the word on the wire.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum EventKind { $($(#[$doc])* $name = $number,)* }

        impl EventKind {
            /// Every kind.
            pub const ALL: &[Self] = &[$(Self::$name,)*];
            /// The word on the wire.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $word,)* }
            }
            /// The kind with this number.
            pub fn of(number: u8) -> Option<Self> {
                match number { $($number => Some(Self::$name),)* _ => None }
            }
            /// How its data is made from a record.
            pub fn shape(self) -> Shape {
                match self { $(Self::$name => Shape::$shape,)* }
            }
        }
    };
}

/// How the data of an event is made from a record's body and stamps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// `{message: body with stamps and reactions}`.
    Message,
    /// `{participant: body with stamps}`.
    Participant,
    /// `{channel: body}`.
    Channel,
    /// `{user: body with stamps}`.
    User,
    /// The body with its stamps and count is the data.
    Data,
    /// The body holds the event's fields beside `event`: `data`, and `channel_id` if it has one.
    Whole,
}

kinds! {
    /// A message was sent.
    MessageCreated 1 "message.created" Message,
    /// A message was edited.
    MessageUpdated 2 "message.updated" Message,
    /// A message was deleted.
    MessageDeleted 3 "message.deleted" Message,
    /// A reaction was given.
    ReactionAdded 4 "reaction.added" Data,
    /// A reaction was taken back.
    ReactionRemoved 5 "reaction.removed" Data,
    /// A user came.
    ParticipantAdded 6 "participant.added" Participant,
    /// A role changed.
    ParticipantUpdated 7 "participant.updated" Participant,
    /// A user left or was removed.
    ParticipantRemoved 8 "participant.removed" Participant,
    /// The channel's fields changed.
    ChannelUpdated 9 "channel.updated" Channel,
    /// The channel is gone.
    ChannelDeleted 10 "channel.deleted" Channel,
    /// On the user's own stream: the user came into a channel.
    ChannelAdded 11 "channel.added" Data,
    /// On the user's own stream: the user is no longer in a channel.
    ChannelRemoved 12 "channel.removed" Data,
    /// On the user's own stream: the user's fields changed.
    UserUpdated 13 "user.updated" User,
    /// Passing: somebody types.
    Typing 32 "typing" Whole,
    /// Passing: somebody came online or went offline.
    PresenceChanged 33 "presence.changed" Whole,
    /// Passing: somebody has read.
    ReadMarked 34 "read.marked" Whole,
    /// Passing: the stream does not go on from where it was.
    ChannelGap 35 "channel.gap" Whole,
    /// Passing: the token ends soon.
    TokenExpiring 36 "token.expiring" Whole,
    /// Passing: the node ends soon.
    ServerDraining 37 "server.draining" Whole,
}

impl EventKind {
    /// Whether it may be dropped for a slow reader.
    pub fn may_be_dropped(self) -> bool {
        matches!(self, Self::Typing | Self::PresenceChanged)
    }
}

/// An event as it stands on the wire.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EventMessage {
    /// Its name; one that a client does not know still advances the position.
    pub event: String,
    /// Of which channel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel_id: Option<ChannelId>,
    /// Durable events only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
    /// Durable events only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<u64>,
    /// What it tells.
    pub data: serde_json::Value,
}

/// An event's data, read by its name.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "each variant is the event of that name")]
#[allow(
    clippy::large_enum_variant,
    reason = "made once for each event that a client receives, and matched at once"
)]
pub enum Event {
    MessageCreated(Message),
    MessageUpdated(Message),
    MessageDeleted(Message),
    ReactionAdded(Reaction),
    ReactionRemoved(Reaction),
    ParticipantAdded(Participant),
    ParticipantUpdated(Participant),
    ParticipantRemoved(Participant),
    ChannelUpdated(Channel),
    ChannelDeleted(Channel),
    ChannelAdded(Entry),
    ChannelRemoved(ChannelId),
    UserUpdated(User),
    Typing(TypingData),
    PresenceChanged(PresenceData),
    ReadMarked(ReadData),
    ChannelGap(GapData),
    TokenExpiring(ExpiringData),
    ServerDraining(DrainingData),
    /// A newer server's.
    Unknown,
}

macro_rules! data {
    ($($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* })*) => {
        $($(#[$doc])* #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)] pub struct $name { $($(#[$field_doc])* pub $field: $type,)* })*
    };
}

data! {
    /// The data of `reaction.added` and `reaction.removed`.
    Reaction {
        /// To which message.
        message_id: MessageId,
        /// Its number.
        number: u64,
        /// Which reaction.
        emoji: String,
        /// Whose.
        user_id: UserId,
        /// How often it was given by now.
        count: u64,
    }
    /// The data of `typing`.
    TypingData {
        /// Who.
        user_id: UserId,
        /// Whether still; it ends by itself after 6 s.
        typing: bool,
    }
    /// The data of `presence.changed`.
    PresenceData {
        /// Who.
        user_id: UserId,
        /// Whether online.
        online: bool,
        /// When the last session ended.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        last_seen: Option<u64>,
        /// Of two, the later one is newer.
        at: u64,
    }
    /// The data of `read.marked`.
    ReadData {
        /// Who.
        user_id: UserId,
        /// Up to which message.
        number: u64,
    }
    /// The data of `channel.gap`.
    GapData {
        /// Why.
        reason: Gap,
        /// The head that was adopted.
        seq: u64,
        /// Its instant.
        at: u64,
    }
    /// The data of `token.expiring`.
    ExpiringData {
        /// When, in milliseconds since the Unix epoch.
        expires_at: u64,
    }
    /// The data of `server.draining`.
    DrainingData {
        /// Reconnect after this many milliseconds.
        reconnect_after_ms: u64,
    }
}

impl EventMessage {
    /// Reads the data by the event's name.
    pub fn read(&self) -> Result<Event, serde_json::Error> {
        fn field<T: serde::de::DeserializeOwned>(
            data: &serde_json::Value,
            name: &str,
        ) -> Result<T, serde_json::Error> {
            T::deserialize(data.get(name).unwrap_or(&serde_json::Value::Null))
        }
        let data = &self.data;
        let Some(kind) = EventKind::ALL.iter().find(|k| k.as_str() == self.event) else {
            return Ok(Event::Unknown);
        };
        Ok(match kind {
            EventKind::MessageCreated => Event::MessageCreated(field(data, "message")?),
            EventKind::MessageUpdated => Event::MessageUpdated(field(data, "message")?),
            EventKind::MessageDeleted => Event::MessageDeleted(field(data, "message")?),
            EventKind::ReactionAdded => Event::ReactionAdded(Reaction::deserialize(data)?),
            EventKind::ReactionRemoved => Event::ReactionRemoved(Reaction::deserialize(data)?),
            EventKind::ParticipantAdded => Event::ParticipantAdded(field(data, "participant")?),
            EventKind::ParticipantUpdated => Event::ParticipantUpdated(field(data, "participant")?),
            EventKind::ParticipantRemoved => Event::ParticipantRemoved(field(data, "participant")?),
            EventKind::ChannelUpdated => Event::ChannelUpdated(field(data, "channel")?),
            EventKind::ChannelDeleted => Event::ChannelDeleted(field(data, "channel")?),
            EventKind::ChannelAdded => Event::ChannelAdded(field(data, "entry")?),
            EventKind::ChannelRemoved => Event::ChannelRemoved(field(data, "channel_id")?),
            EventKind::UserUpdated => Event::UserUpdated(field(data, "user")?),
            EventKind::Typing => Event::Typing(TypingData::deserialize(data)?),
            EventKind::PresenceChanged => Event::PresenceChanged(PresenceData::deserialize(data)?),
            EventKind::ReadMarked => Event::ReadMarked(ReadData::deserialize(data)?),
            EventKind::ChannelGap => Event::ChannelGap(GapData::deserialize(data)?),
            EventKind::TokenExpiring => Event::TokenExpiring(ExpiringData::deserialize(data)?),
            EventKind::ServerDraining => Event::ServerDraining(DrainingData::deserialize(data)?),
        })
    }
}
