//! Events: what clients receive without a request, each declared once.
//!
//! [`events!`](crate::events) is the list of them all. Names, decoding, test vectors and the checks
//! of the specification's tables follow from it.

mod data;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    ChannelId,
    entity::{Channel, Entry, Message, Participant, User},
};

pub use data::{DrainingData, ExpiringData, GapData, PresenceData, Reaction, ReadData, TypingData};

/// Calls a macro with every event: its variant of [`EventKind`] and
/// [`Event`], its number in logs and on the bus, its name on the wire, the
/// type of its data (`in` a field of that name, if the data is a map with one field), and the
/// [`Shape`] of its records.
///
/// Numbers never change. Those below 32 are durable events.
#[macro_export]
macro_rules! events {
    ($callback:ident) => {
        $callback! {
            /// A message was sent.
            MessageCreated = 1 "message.created": Message in "message", Message;
            /// A message was edited.
            MessageUpdated = 2 "message.updated": Message in "message", Message;
            /// A message was deleted.
            MessageDeleted = 3 "message.deleted": Message in "message", Message;
            /// A reaction was added.
            ReactionAdded = 4 "reaction.added": Reaction, Data;
            /// A reaction was removed.
            ReactionRemoved = 5 "reaction.removed": Reaction, Data;
            /// A user was added or joined.
            ParticipantAdded = 6 "participant.added": Participant in "participant", Participant;
            /// A role changed.
            ParticipantUpdated = 7 "participant.updated": Participant in "participant", Participant;
            /// A user left or was removed.
            ParticipantRemoved = 8 "participant.removed": Participant in "participant", Participant;
            /// The channel's fields changed.
            ChannelUpdated = 9 "channel.updated": Channel in "channel", Channel;
            /// The channel was deleted.
            ChannelDeleted = 10 "channel.deleted": Channel in "channel", Channel;
            /// On the user's own stream: the user was added to a channel.
            ChannelAdded = 11 "channel.added": Entry in "entry", Data;
            /// On the user's own stream: the user is no longer in a channel.
            ChannelRemoved = 12 "channel.removed": ChannelId in "channel_id", Data;
            /// On the user's own stream: the user's fields changed.
            UserUpdated = 13 "user.updated": User in "user", User;
            /// Passing: a user types, or stopped.
            Typing = 32 "typing": TypingData, Whole;
            /// Passing: a user came online or went offline.
            PresenceChanged = 33 "presence.changed": PresenceData, Whole;
            /// Passing: a user's read position moved.
            ReadMarked = 34 "read.marked": ReadData, Whole;
            /// Passing: the stream does not continue at the session's position.
            ChannelGap = 35 "channel.gap": GapData, Whole;
            /// Passing: the token expires soon.
            TokenExpiring = 36 "token.expiring": ExpiringData, Whole;
            /// Passing: the node shuts down soon.
            ServerDraining = 37 "server.draining": DrainingData, Whole;
        }
    };
}

/// The construction of an event's data from a record's body and stamps.
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

macro_rules! declare {
    ($($(#[$doc:meta])* $name:ident = $number:literal $word:literal: $data:ident $(in $field:literal)?, $shape:ident;)*) => {
        /// The kind of an event. The log and the bus have its number, the wire its word.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum EventKind {
            $($(#[$doc])* $name = $number,)*
        }

        impl EventKind {
            /// Every kind.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// Returns the word on the wire.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $word,)* }
            }

            /// Returns the kind with this number.
            pub fn of(number: u8) -> Option<Self> {
                match number { $($number => Some(Self::$name),)* _ => None }
            }

            /// Returns the construction of its data.
            pub fn shape(self) -> Shape {
                match self { $(Self::$name => Shape::$shape,)* }
            }
        }

        /// An event's data, decoded by the event's name.
        #[derive(Debug, Clone, PartialEq)]
        #[allow(
            clippy::large_enum_variant,
            reason = "made once for each event that a client receives, and matched at once"
        )]
        pub enum Event {
            $($(#[$doc])* $name($data),)*
            /// An event of a later version.
            Unknown,
        }

        impl EventMessage {
            /// Decodes the data by the event's name.
            pub fn read(&self) -> Result<Event, serde_json::Error> {
                match self.event.as_str() {
                    $($word => {
                        let field: &[&str] = &[$($field)?];
                        decode(&self.data, field.first().copied()).map(Event::$name)
                    })*
                    _ => Ok(Event::Unknown),
                }
            }
        }
    };
}
events!(declare);

impl EventKind {
    /// Returns whether it may be dropped for a slow reader.
    pub fn may_be_dropped(self) -> bool {
        matches!(self, Self::Typing | Self::PresenceChanged)
    }
}

/// An event on the wire.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EventMessage {
    /// Name of the event. One that a client does not know still advances the position.
    pub event: String,
    /// Channel that the event is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel_id: Option<ChannelId>,
    /// Durable events only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
    /// Durable events only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<u64>,
    /// Data of the event.
    pub data: serde_json::Value,
}

fn decode<T: DeserializeOwned>(
    data: &serde_json::Value,
    field: Option<&str>,
) -> Result<T, serde_json::Error> {
    match field {
        Some(name) => T::deserialize(data.get(name).unwrap_or(&serde_json::Value::Null)),
        None => T::deserialize(data),
    }
}
