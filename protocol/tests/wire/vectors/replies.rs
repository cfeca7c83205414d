//! A reply to every method.

use std::collections::BTreeMap;

use protocol::{Limits, frame::encode_result, model::*, results::*};
use serde::Serialize;
use serde_json::json;

use super::{Direction, NOW, Vector, failures::error, id, requests::picture};
use crate::strategies::free;

pub(super) fn user() -> User {
    User {
        id: id("alice"),
        username: Some("alice".into()),
        first_name: Some("Alice".into()),
        last_name: None,
        avatar: Some("https://example.org/alice.png".into()),
        bio: None,
        bot: false,
        metadata: free(json!({ "team": "blue" })),
        created_at: NOW,
    }
}

pub(super) fn channel() -> Channel {
    Channel {
        id: id("general"),
        kind: ChannelType::Open,
        name: Some("General".into()),
        description: None,
        icon: None,
        banner: None,
        creator_id: Some(id("alice")),
        metadata: free(json!({})),
        created_at: NOW,
        participant_count: 2,
    }
}

pub(super) fn participant() -> Participant {
    Participant {
        id: id("prt_00000000000000f1"),
        channel_id: id("general"),
        user_id: id("bob"),
        role: Role::Member,
        created_at: NOW + 6000,
        read: None,
    }
}

pub(super) fn message() -> Message {
    Message {
        id: id("msg_00000000000000a2"),
        channel_id: id("general"),
        number: 18,
        seq: 43,
        sender_id: Some(id("alice")),
        kind: MessageKind::Text,
        text: "look, @bob".into(),
        attachments: vec![picture()],
        reply_to_id: Some(id("msg_00000000000000a1")),
        mention_ids: vec![id("bob")],
        reactions: BTreeMap::new(),
        own_reactions: None,
        metadata: free(json!({ "draft": false })),
        created_at: NOW + 1000,
        edited_at: None,
        deleted_at: None,
    }
}

/// What stays of a message.
pub(super) fn deleted() -> Message {
    Message {
        seq: 47,
        text: String::new(),
        attachments: vec![],
        mention_ids: vec![],
        metadata: free(json!({})),
        edited_at: Some(NOW + 2000),
        deleted_at: Some(NOW + 5000),
        ..message()
    }
}

pub(super) fn entry() -> Entry {
    Entry {
        channel_id: id("general"),
        channel: Some(channel()),
        role: Some(Role::Owner),
        seq: 43,
        at: NOW + 1000,
        number: 18,
        read: 17,
        unread: Some(1),
        last_message: Some(message()),
        participant_count: Some(2),
        gap: None,
    }
}

fn positions(gap: Option<Gap>) -> Entry {
    Entry {
        channel: None,
        role: None,
        unread: None,
        last_message: None,
        participant_count: None,
        gap,
        ..entry()
    }
}

fn connected() -> Connected {
    Connected {
        session_id: id("ses_00000000000000e1"),
        user: user(),
        app_id: id("app_00000000000000d1"),
        environment: Environment::Live,
        features: vec![],
        heartbeat_ms: 25_000,
        limits: Limits::default().for_clients(),
        user_position: (7, NOW),
        user_gap: None,
        channels: vec![EntryResult::Entry(entry())],
        more: false,
    }
}

struct List(Vec<Vector>);

impl List {
    /// The name begins with the method that is answered.
    fn add<R: Serialize>(&mut self, name: &str, description: &str, result: &R) {
        let id = self.0.len() as u32 + 1;
        self.0.push(Vector::new(
            name,
            description,
            Direction::ServerToClient,
            |encoding| encode_result(encoding, id, result),
        ));
    }
}

pub(super) fn all() -> Vec<Vector> {
    let mut list = List(Vec::new());
    list.add(
        "connect",
        "A session with one channel, whose entry is full.",
        &connected(),
    );
    let failed = FailedEntry {
        channel_id: id("gone"),
        error: error(protocol::ErrorCode::NotFound),
    };
    let resumed = Connected {
        user_gap: Some(Gap::Trimmed),
        channels: vec![
            EntryResult::Entry(positions(None)),
            EntryResult::Entry(Entry {
                channel_id: id("old"),
                ..positions(Some(Gap::Trimmed))
            }),
            EntryResult::Entry(Entry {
                channel_id: id("restored"),
                ..positions(Some(Gap::Diverged))
            }),
            EntryResult::Failed(failed.clone()),
        ],
        more: true,
        ..connected()
    };
    list.add(
        "connect resumed",
        "Entries with positions only: one goes on, two have gaps, one channel is not there; the user's own stream has a gap.",
        &resumed,
    );
    list.add(
        "token.refresh",
        "When the new token ends.",
        &Refreshed {
            expires_at: NOW + 3_600_000,
        },
    );
    list.add("ping", "The server's clock.", &Pong { at: NOW });
    list.add(
        "channel.subscribe",
        "One entry, one error.",
        &Subscribed {
            channels: vec![EntryResult::Entry(entry()), EntryResult::Failed(failed)],
        },
    );
    list.add("channel.unsubscribe", "Done.", &Empty {});
    list.add(
        "channel.list",
        "A page with another one behind it.",
        &EntryList {
            items: vec![entry()],
            cursor: Some("b3BhcXVl".into()),
        },
    );
    list.add(
        "channel.list last",
        "The last page has no cursor.",
        &EntryList {
            items: vec![],
            cursor: None,
        },
    );
    list.add(
        "channel.create",
        "The channel.",
        &ChannelResult { channel: channel() },
    );
    list.add(
        "channel.update",
        "The channel as it is now.",
        &ChannelResult { channel: channel() },
    );
    list.add("channel.delete", "Done.", &Empty {});
    list.add(
        "channel.join",
        "The user's place.",
        &ParticipantResult {
            participant: participant(),
        },
    );
    list.add("channel.leave", "Done.", &Empty {});
    list.add(
        "participant.add",
        "The user's place.",
        &ParticipantResult {
            participant: participant(),
        },
    );
    let observer = Participant {
        role: Role::Observer,
        ..participant()
    };
    list.add(
        "participant.update",
        "The place as it is now.",
        &ParticipantResult {
            participant: observer,
        },
    );
    list.add("participant.remove", "Done.", &Empty {});
    let reading = Participant {
        read: Some(17),
        ..participant()
    };
    list.add(
        "participant.list",
        "Participants with their read positions.",
        &protocol::results::List {
            items: vec![reading],
            cursor: None,
        },
    );
    list.add(
        "message.send",
        "The message as it is stored.",
        &MessageResult { message: message() },
    );
    let edited = Message {
        seq: 44,
        text: "look at this".into(),
        mention_ids: vec![],
        edited_at: Some(NOW + 2000),
        ..message()
    };
    list.add(
        "message.edit",
        "The message as it is now.",
        &MessageResult { message: edited },
    );
    list.add("message.delete", "Done.", &Empty {});
    let reacted = Message {
        seq: 45,
        reactions: BTreeMap::from([("👍".into(), 2)]),
        own_reactions: Some(vec!["👍".into()]),
        ..message()
    };
    let system = Message {
        id: id("msg_00000000000000a3"),
        number: 19,
        seq: 46,
        sender_id: None,
        kind: MessageKind::System,
        text: "The server room is warm.".into(),
        attachments: vec![],
        reply_to_id: None,
        mention_ids: vec![],
        own_reactions: Some(vec![]),
        ..message()
    };
    list.add(
        "message.list",
        "Two messages, one with reactions, one by the system.",
        &MessageList {
            items: vec![reacted, system],
            more: true,
        },
    );
    list.add(
        "message.list with a deleted one",
        "What stays of a deleted message.",
        &MessageList {
            items: vec![Message {
                own_reactions: Some(vec![]),
                ..deleted()
            }],
            more: false,
        },
    );
    list.add(
        "reaction.add",
        "How often it was given by now.",
        &Count { count: 2 },
    );
    list.add(
        "reaction.remove",
        "How often it stands now.",
        &Count { count: 1 },
    );
    list.add(
        "read.mark",
        "Up to which number the user has read.",
        &ReadResult { read: 17 },
    );
    list.add("typing", "Done.", &Empty {});
    let presence = BTreeMap::from([
        (
            id("bob"),
            Presence {
                online: true,
                last_seen: None,
                at: NOW,
            },
        ),
        (
            id("usr_00000000000000b1"),
            Presence {
                online: false,
                last_seen: Some(NOW - 60_000),
                at: NOW,
            },
        ),
    ]);
    list.add(
        "presence.watch",
        "One is online, one was here a minute ago.",
        &Presences { presence },
    );
    list.add(
        "user.get",
        "Those that exist.",
        &Users {
            items: vec![user()],
            more: false,
        },
    );
    list.add(
        "user.update",
        "The user as it is now.",
        &UserResult { user: user() },
    );
    list.0
}
