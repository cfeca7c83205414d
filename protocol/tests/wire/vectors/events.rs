//! Every event. One that is not here by hand is made from its declaration.

use std::collections::BTreeMap;

use protocol::{
    ChannelId, EventKind, EventMessage,
    entity::{Channel, Entry, Gap, Message, Participant, Role, User},
    event::{
        DrainingData, ExpiringData, GapData, PresenceData, Reaction, ReadData, Shape, TypingData,
    },
};
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    Direction, NOW, Vector, example, id,
    replies::{channel, deleted, entry, message, participant, user},
};

/// Whether it has a place in a log, and in whose.
enum Stream {
    Channel(u64),
    User(u64),
    /// Passing, and about a channel.
    PassingChannel,
    Passing,
}

fn event(kind: EventKind, description: &str, stream: Stream, data: &impl Serialize) -> Vector {
    let data = serde_json::to_value(data).unwrap();
    let seq = match stream {
        Stream::Channel(seq) | Stream::User(seq) => Some(seq),
        _ => None,
    };
    let event = EventMessage {
        event: kind.as_str().into(),
        channel_id: matches!(stream, Stream::Channel(_) | Stream::PassingChannel)
            .then(|| id("general")),
        seq,
        at: seq.map(|seq| NOW + 1000 * seq.saturating_sub(42)),
        data,
    };
    Vector::new(
        kind.as_str(),
        description,
        Direction::ServerToClient,
        |encoding| encoding.encode(&event),
    )
}

pub(super) fn all() -> Vec<Vector> {
    use EventKind::{
        ChannelAdded, ChannelDeleted, ChannelGap, ChannelRemoved, ChannelUpdated, MessageCreated,
        MessageDeleted, MessageUpdated, ParticipantAdded, ParticipantRemoved, ParticipantUpdated,
        PresenceChanged, ReactionAdded, ReactionRemoved, ReadMarked, ServerDraining, TokenExpiring,
        Typing, UserUpdated,
    };
    use Stream::{Channel as InChannel, Passing, PassingChannel, User as OfUser};
    let edited = Message {
        seq: 44,
        text: "look at this".into(),
        edited_at: Some(NOW + 2000),
        ..message()
    };
    let reaction = |count| Reaction {
        message_id: id("msg_00000000000000a2"),
        number: 18,
        emoji: "👍".into(),
        user_id: id("bob"),
        count,
    };
    let with = |name: &str, value: Value| BTreeMap::from([(name.to_owned(), value)]);
    let renamed = Channel {
        name: Some("Dinner".into()),
        ..channel()
    };
    let joined = Entry {
        seq: 48,
        at: NOW + 6000,
        read: 18,
        unread: Some(0),
        role: Some(Role::Member),
        last_message: Some(deleted()),
        ..entry()
    };
    let mut all = vec![
        event(
            MessageCreated,
            "A message was sent.",
            InChannel(43),
            &with("message", json!(message())),
        ),
        event(
            MessageUpdated,
            "A message was edited.",
            InChannel(44),
            &with("message", json!(edited)),
        ),
        event(
            MessageDeleted,
            "A message was deleted.",
            InChannel(47),
            &with("message", json!(deleted())),
        ),
        event(
            ReactionAdded,
            "A reaction was given.",
            InChannel(45),
            &reaction(2),
        ),
        event(
            ReactionRemoved,
            "A reaction was taken back.",
            InChannel(46),
            &reaction(1),
        ),
        event(
            ParticipantAdded,
            "A user came.",
            InChannel(48),
            &with("participant", json!(participant())),
        ),
        event(
            ParticipantUpdated,
            "A role changed.",
            InChannel(49),
            &with(
                "participant",
                json!(Participant {
                    role: Role::Moderator,
                    ..participant()
                }),
            ),
        ),
        event(
            ParticipantRemoved,
            "A user left or was removed.",
            InChannel(50),
            &with("participant", json!(participant())),
        ),
        event(
            ChannelUpdated,
            "The channel's fields changed.",
            InChannel(51),
            &with("channel", json!(renamed)),
        ),
        event(
            ChannelDeleted,
            "The channel is gone.",
            InChannel(52),
            &with("channel", json!(renamed)),
        ),
        event(
            ChannelAdded,
            "On the user's own stream: the user came into a channel.",
            OfUser(8),
            &with("entry", json!(joined)),
        ),
        event(
            ChannelRemoved,
            "On the user's own stream: the user is no longer in a channel.",
            OfUser(9),
            &with("channel_id", json!("general")),
        ),
        event(
            UserUpdated,
            "On the user's own stream: the user's fields changed.",
            OfUser(10),
            &with(
                "user",
                json!(User {
                    bio: Some("Hello".into()),
                    ..user()
                }),
            ),
        ),
        event(
            Typing,
            "Somebody types.",
            PassingChannel,
            &TypingData {
                user_id: id("bob"),
                typing: true,
            },
        ),
        event(
            PresenceChanged,
            "Somebody who is watched went offline.",
            Passing,
            &PresenceData {
                user_id: id("bob"),
                online: false,
                last_seen: Some(NOW),
                at: NOW + 10_000,
            },
        ),
        event(
            ReadMarked,
            "Somebody has read up to a number.",
            PassingChannel,
            &ReadData {
                user_id: id("bob"),
                number: 18,
                back: false,
                version: Some(7),
            },
        ),
        Vector {
            name: "read.marked backwards".into(),
            ..event(
                ReadMarked,
                "Somebody's read position moved backwards.",
                PassingChannel,
                &ReadData {
                    user_id: id("bob"),
                    number: 15,
                    back: true,
                    version: Some(8),
                },
            )
        },
        event(
            ChannelGap,
            "The live subscription could not go on: read what changed, and take this head as the position.",
            PassingChannel,
            &GapData {
                reason: Gap::Trimmed,
                seq: 2000,
                at: NOW + 60_000,
            },
        ),
        event(
            TokenExpiring,
            "The token ends in a minute.",
            Passing,
            &ExpiringData {
                expires_at: NOW + 60_000,
            },
        ),
        event(
            ServerDraining,
            "The node ends soon.",
            Passing,
            &DrainingData {
                reconnect_after_ms: 4200,
            },
        ),
    ];
    let later = EventMessage {
        event: "message.pinned".into(),
        channel_id: Some(id("general")),
        seq: Some(53),
        at: Some(NOW + 11_000),
        data: json!({ "by": "bob" }),
    };
    all.push(Vector::new(
        "an unknown event",
        "Of a later version: it says nothing to this client, and still advances the channel's position.",
        Direction::ServerToClient,
        |encoding| encoding.encode(&later),
    ));
    all.extend(missing(&all));
    all
}

/// Returns a vector of every event that has none in `all`.
fn missing(all: &[Vector]) -> Vec<Vector> {
    let mut missing = Vec::new();
    macro_rules! add_missing {
        ($($(#[doc = $doc:literal])* $name:ident = $number:literal $word:literal: $data:ident $(in $field:literal)?, $shape:ident;)*) => {
            $(if all.iter().all(|vector| vector.name != $word) {
                let data = serde_json::json!(example::of::<$data>());
                $(let data = serde_json::json!({ $field: data });)?
                let stream = match Shape::$shape {
                    Shape::Whole => Stream::PassingChannel,
                    _ => Stream::Channel(60),
                };
                let description = concat!($($doc),*).trim();
                missing.push(event(EventKind::$name, description, stream, &data));
            })*
        };
    }
    protocol::events!(add_missing);
    missing
}
