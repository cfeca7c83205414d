//! A request of every method.

use std::collections::BTreeMap;

use protocol::{
    Method, Patch,
    frame::encode_request,
    model::{Attachment, ChannelType, Role},
    params::*,
    results::Empty,
};
use serde::Serialize;
use serde_json::json;

use super::{Direction, NOW, Vector, id};
use crate::strategies::free;

#[derive(Serialize)]
struct Of<I, P> {
    #[serde(flatten)]
    ids: I,
    #[serde(flatten)]
    fields: P,
}

fn channel() -> ChannelRef {
    ChannelRef {
        channel_id: id("general"),
    }
}

fn message() -> MessageRef {
    MessageRef {
        channel_id: id("general"),
        message_id: id("msg_00000000000000a1"),
    }
}

fn participant() -> ParticipantRef {
    ParticipantRef {
        channel_id: id("general"),
        user_id: id("bob"),
    }
}

/// The attachment that messages of the vectors carry.
pub(super) fn picture() -> Attachment {
    Attachment {
        kind: "image".into(),
        upload_id: None,
        url: Some("https://example.org/cat.png".into()),
        name: Some("cat.png".into()),
        size: Some(48_213),
        mime: Some("image/png".into()),
        width: Some(640),
        height: Some(480),
        duration_ms: None,
        metadata: free(json!({})),
    }
}

struct List(Vec<Vector>);

impl List {
    /// Requests are numbered as a client would do it.
    fn add<P: Serialize>(&mut self, name: &str, method: Method, description: &str, params: &P) {
        let id = self.0.len() as u32 + 1;
        let frame = |encoding| encode_request(encoding, id, method.as_str(), params);
        self.0.push(Vector::new(
            name,
            description,
            Direction::ClientToServer,
            frame,
        ));
    }
}

pub(super) fn all() -> Vec<Vector> {
    let mut list = List(Vec::new());
    list.add(
        "connect",
        Method::Connect,
        "Opens a session with all defaults: the user's channels are watched, entries are full.",
        &Connect {
            token: "eyJhbGciOiJIUzI1NiJ9.e30.c2ln".into(),
            ..Connect::default()
        },
    );
    list.add(
        "connect with resume",
        Method::Connect,
        "Goes on in two channels after their last events, and in the user's own stream; wants positions only, and no other channel.",
        &Connect {
            token: "eyJhbGciOiJIUzI1NiJ9.e30.c2ln".into(),
            resume: BTreeMap::from([(id("general"), Cursor::After(42, NOW)), (id("chn_00000000000000c1"), Cursor::After(0, 0))]),
            user_position: Some(Cursor::After(7, NOW)),
            watch: Watch::None,
            entries: Entries::Positions,
            client: Some("example/1.0".into()),
        },
    );
    list.add(
        "token.refresh",
        Method::TokenRefresh,
        "Replaces the credential.",
        &RefreshToken {
            token: "eyJhbGciOiJIUzI1NiJ9.e30.bmV3".into(),
        },
    );
    list.add(
        "ping",
        Method::Ping,
        "Asks for the server's clock.",
        &Empty {},
    );
    list.add(
        "channel.subscribe",
        Method::ChannelSubscribe,
        "One channel from a position, one from now on.",
        &Subscribe {
            channels: BTreeMap::from([
                (id("general"), Cursor::After(42, NOW)),
                (id("random"), Cursor::Now),
            ]),
        },
    );
    list.add(
        "channel.unsubscribe",
        Method::ChannelUnsubscribe,
        "Ends a subscription.",
        &Unsubscribe {
            channel_ids: vec![id("random")],
        },
    );
    list.add(
        "channel.list",
        Method::ChannelList,
        "The first page.",
        &ListPage::default(),
    );
    list.add(
        "channel.list further",
        Method::ChannelList,
        "A further page of ten.",
        &ListPage {
            cursor: Some("b3BhcXVl".into()),
            limit: Some(10),
        },
    );
    list.add(
        "channel.create",
        Method::ChannelCreate,
        "A group with two others in it.",
        &CreateChannel {
            id: None,
            kind: ChannelType::Group,
            name: Some("Lunch".into()),
            description: Some("Where to today?".into()),
            icon: None,
            banner: None,
            creator_id: None,
            participant_ids: vec![id("bob"), id("carol@example.org")],
            metadata: free(json!({ "color": "#ffcc00", "floor": 3 })),
        },
    );
    let update = UpdateChannel {
        name: Patch::Set("Dinner".into()),
        description: Patch::Clear,
        ..UpdateChannel::default()
    };
    list.add(
        "channel.update",
        Method::ChannelUpdate,
        "Sets the name and removes the description.",
        &Of {
            ids: channel(),
            fields: update,
        },
    );
    list.add(
        "channel.delete",
        Method::ChannelDelete,
        "Deletes the channel.",
        &channel(),
    );
    list.add(
        "channel.join",
        Method::ChannelJoin,
        "Comes into an open or broadcast channel.",
        &channel(),
    );
    list.add("channel.leave", Method::ChannelLeave, "Leaves.", &channel());
    let add = AddParticipant {
        user_id: id("bob"),
        role: Some(Role::Moderator),
    };
    list.add(
        "participant.add",
        Method::ParticipantAdd,
        "Brings a user in, with a role.",
        &Of {
            ids: channel(),
            fields: add,
        },
    );
    let update = UpdateParticipant {
        role: Some(Role::Observer),
    };
    list.add(
        "participant.update",
        Method::ParticipantUpdate,
        "Gives a role.",
        &Of {
            ids: participant(),
            fields: update,
        },
    );
    list.add(
        "participant.remove",
        Method::ParticipantRemove,
        "Removes a user.",
        &participant(),
    );
    let page = ListPage {
        cursor: None,
        limit: Some(100),
    };
    list.add(
        "participant.list",
        Method::ParticipantList,
        "Up to a hundred participants.",
        &Of {
            ids: channel(),
            fields: page,
        },
    );
    let text = SendMessage {
        text: Some("Grüße 👋".into()),
        ..SendMessage::default()
    };
    list.add(
        "message.send",
        Method::MessageSend,
        "A text.",
        &Of {
            ids: channel(),
            fields: text,
        },
    );
    let full = SendMessage {
        message_id: Some(id("msg_00000000000000a2")),
        text: Some("look, @bob".into()),
        reply_to_id: Some(id("msg_00000000000000a1")),
        attachments: vec![picture()],
        mention_ids: vec![id("bob")],
        metadata: free(
            json!({ "draft": false, "tags": ["cat", null], "weight": 0.1, "delta": -129 }),
        ),
        ..SendMessage::default()
    };
    list.add(
        "message.send with everything",
        Method::MessageSend,
        "All that a user may send, under an id of its own.",
        &Of {
            ids: channel(),
            fields: full,
        },
    );
    let edit = EditMessage {
        text: Patch::Set("look at this".into()),
        mention_ids: Patch::Clear,
        ..EditMessage::default()
    };
    list.add(
        "message.edit",
        Method::MessageEdit,
        "Sets the text and removes the mentions.",
        &Of {
            ids: message(),
            fields: edit,
        },
    );
    list.add(
        "message.delete",
        Method::MessageDelete,
        "Deletes a message.",
        &message(),
    );
    list.add(
        "message.list",
        Method::MessageList,
        "The newest page.",
        &Of {
            ids: channel(),
            fields: ListMessages::default(),
        },
    );
    for (name, description, which) in [
        (
            "message.list before",
            "Ten with a number below 100.",
            ListMessages {
                before: Some(100),
                limit: Some(10),
                ..ListMessages::default()
            },
        ),
        (
            "message.list after",
            "Those with a number above 0: from the first.",
            ListMessages {
                after: Some(0),
                ..ListMessages::default()
            },
        ),
        (
            "message.list changed_after",
            "What changed after a seq.",
            ListMessages {
                changed_after: Some(42),
                ..ListMessages::default()
            },
        ),
    ] {
        list.add(
            name,
            Method::MessageList,
            description,
            &Of {
                ids: channel(),
                fields: which,
            },
        );
    }
    let react = || React {
        emoji: "👍".into()
    };
    list.add(
        "reaction.add",
        Method::ReactionAdd,
        "Gives a reaction.",
        &Of {
            ids: message(),
            fields: react(),
        },
    );
    list.add(
        "reaction.remove",
        Method::ReactionRemove,
        "Takes it back.",
        &Of {
            ids: message(),
            fields: react(),
        },
    );
    list.add(
        "read.mark",
        Method::ReadMark,
        "Has read up to number 17.",
        &Of {
            ids: channel(),
            fields: MarkRead { number: 17 },
        },
    );
    list.add(
        "typing",
        Method::Typing,
        "Types.",
        &Of {
            ids: channel(),
            fields: Typing { typing: true },
        },
    );
    list.add(
        "presence.watch",
        Method::PresenceWatch,
        "Watches two users.",
        &UserIds {
            user_ids: vec![id("bob"), id("usr_00000000000000b1")],
        },
    );
    list.add(
        "user.get",
        Method::UserGet,
        "Reads a profile.",
        &UserIds {
            user_ids: vec![id("bob")],
        },
    );
    let update = UpdateUser {
        first_name: Patch::Set("Alice".into()),
        bio: Patch::Clear,
        ..UpdateUser::default()
    };
    list.add(
        "user.update",
        Method::UserUpdate,
        "Sets the first name and removes the bio.",
        &update,
    );
    list.0
}
