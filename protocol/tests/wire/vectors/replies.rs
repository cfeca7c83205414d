//! Replies that show more than one example of the result, and the entities of all vectors.

use std::collections::BTreeMap;

use protocol::{
    Limits,
    entity::{
        Channel, ChannelType, Entry, EntryResult, Environment, FailedEntry, Gap, Message,
        MessageKind, Participant, Presence, Role, User,
    },
    operation::{
        Operation,
        channel::{ChannelList, ChannelSubscribe, EntryList, Subscribed},
        message::{MessageEdit, MessageList, MessagePage},
        participant::{ParticipantList, ParticipantUpdate},
        presence::{PresenceWatch, Presences},
        reaction::{Count, ReactionAdd, ReactionRemove},
        read::{ReadMark, ReadResult, ReadUnmark},
        session::{Connected, Refreshed, SessionConnect, TokenRefresh},
        user::{UserGet, Users},
    },
};
use serde_json::json;

use super::{NOW, draft::Draft, failures::error, id, requests::picture};
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

/// A deleted message: the fields that remain.
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

struct List(Vec<Draft>);

impl List {
    /// The name begins with the method. A vector with the name of its method replaces the one from
    /// the declaration.
    fn add<O: Operation>(&mut self, name: &str, description: &str, output: &O::Output) {
        let draft = Draft::reply::<O>(name, Some(description), output.clone());
        self.0.push(draft);
    }
}

pub(super) fn all() -> Vec<Draft> {
    let mut list = List(Vec::new());
    list.add::<SessionConnect>(
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
    list.add::<SessionConnect>(
        "connect resumed",
        "Entries with positions only: one goes on, two have gaps, one channel is not there; the user's own stream has a gap.",
        &resumed,
    );
    list.add::<TokenRefresh>(
        "token.refresh",
        "When the new token ends.",
        &Refreshed {
            expires_at: NOW + 3_600_000,
        },
    );
    list.add::<ChannelSubscribe>(
        "channel.subscribe",
        "One entry, one error.",
        &Subscribed {
            channels: vec![EntryResult::Entry(entry()), EntryResult::Failed(failed)],
        },
    );
    list.add::<ChannelList>(
        "channel.list",
        "A page with another one behind it.",
        &EntryList {
            items: vec![entry()],
            cursor: Some("b3BhcXVl".into()),
        },
    );
    list.add::<ChannelList>(
        "channel.list last",
        "The last page has no cursor.",
        &EntryList {
            items: vec![],
            cursor: None,
        },
    );
    let observer = Participant {
        role: Role::Observer,
        ..participant()
    };
    list.add::<ParticipantUpdate>("participant.update", "The place as it is now.", &observer);
    let reading = Participant {
        read: Some(17),
        ..participant()
    };
    list.add::<ParticipantList>(
        "participant.list",
        "Participants with their read positions.",
        &protocol::operation::page::List {
            items: vec![reading],
            cursor: None,
        },
    );
    let edited = Message {
        seq: 44,
        text: "look at this".into(),
        mention_ids: vec![],
        edited_at: Some(NOW + 2000),
        ..message()
    };
    list.add::<MessageEdit>("message.edit", "The message as it is now.", &edited);
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
    list.add::<MessageList>(
        "message.list",
        "Two messages, one with reactions, one by the system.",
        &MessagePage {
            items: vec![reacted, system],
            more: true,
        },
    );
    list.add::<MessageList>(
        "message.list with a deleted one",
        "What stays of a deleted message.",
        &MessagePage {
            items: vec![Message {
                own_reactions: Some(vec![]),
                ..deleted()
            }],
            more: false,
        },
    );
    list.add::<ReactionAdd>(
        "reaction.add",
        "How often it was given by now.",
        &Count { count: 2 },
    );
    list.add::<ReactionRemove>(
        "reaction.remove",
        "How often it stands now.",
        &Count { count: 1 },
    );
    list.add::<ReadMark>(
        "read.mark",
        "Up to which number the user has read.",
        &ReadResult { read: 17 },
    );
    list.add::<ReadUnmark>(
        "read.unmark",
        "Up to which number the user has read now.",
        &ReadResult { read: 15 },
    );
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
    list.add::<PresenceWatch>(
        "presence.watch",
        "One is online, one was here a minute ago.",
        &Presences { presence },
    );
    list.add::<UserGet>(
        "user.get",
        "Those that exist.",
        &Users {
            items: vec![user()],
            more: false,
        },
    );
    list.0
}
