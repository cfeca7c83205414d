//! Requests that show more than the examples of their operations.

use std::collections::BTreeMap;

use protocol::{
    Cursor, Patch,
    entity::{Attachment, ChannelType, Role},
    operation::{
        Operation,
        channel::{
            ChannelCreate, ChannelList, ChannelSubscribe, ChannelUnsubscribe, ChannelUpdate,
            CreateChannel, Subscribe, Unsubscribe, UpdateChannel,
        },
        message::{EditMessage, ListMessages, MessageEdit, MessageList, MessageSend, SendMessage},
        page::ListPage,
        participant::{
            AddParticipant, ParticipantAdd, ParticipantList, ParticipantUpdate, UpdateParticipant,
        },
        path::{ChannelPath, MessagePath, ParticipantPath},
        presence::PresenceWatch,
        read::{MarkRead, ReadMark, ReadUnmark, UnmarkRead},
        session::{Connect, Entries, RefreshToken, SessionConnect, TokenRefresh, Watch},
        user::{UpdateUser, UserGet, UserIds, UserUpdate},
    },
};
use serde_json::json;

use super::{NOW, draft::Draft, id};
use crate::strategies::free;

fn channel() -> ChannelPath {
    ChannelPath {
        channel_id: id("general"),
    }
}

fn message() -> MessagePath {
    MessagePath {
        channel_id: id("general"),
        message_id: id("msg_00000000000000a1"),
    }
}

fn participant() -> ParticipantPath {
    ParticipantPath {
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

struct List(Vec<Draft>);

impl List {
    /// A vector with the name of its method replaces the one from the declaration.
    fn add<O: Operation>(
        &mut self,
        name: &str,
        description: &str,
        path: impl Into<O::Path>,
        input: O::Input,
    ) {
        let draft = Draft::request::<O>(name, Some(description), path.into(), input);
        self.0.push(draft);
    }
}

pub(super) fn all() -> Vec<Draft> {
    let mut list = List(Vec::new());
    list.add::<SessionConnect>(
        "connect",
        "Opens a session with all defaults: the user's channels are watched, entries are full.",
        (),
        Connect {
            token: "eyJhbGciOiJIUzI1NiJ9.e30.c2ln".into(),
            ..Connect::default()
        },
    );
    list.add::<SessionConnect>(
        "connect with resume",
        "Goes on in two channels after their last events, and in the user's own stream; wants positions only, and no other channel.",
        (),
        Connect {
            token: "eyJhbGciOiJIUzI1NiJ9.e30.c2ln".into(),
            resume: BTreeMap::from([(id("general"), Cursor::After(42, NOW)), (id("chn_00000000000000c1"), Cursor::After(0, 0))]),
            user_position: Some(Cursor::After(7, NOW)),
            watch: Watch::None,
            entries: Entries::Positions,
            client: Some("example/1.0".into()),
        },
    );
    list.add::<TokenRefresh>(
        "token.refresh",
        "Replaces the credential.",
        (),
        RefreshToken {
            token: "eyJhbGciOiJIUzI1NiJ9.e30.bmV3".into(),
        },
    );
    list.add::<ChannelSubscribe>(
        "channel.subscribe",
        "One channel from a position, one from now on.",
        (),
        Subscribe {
            channels: BTreeMap::from([
                (id("general"), Cursor::After(42, NOW)),
                (id("random"), Cursor::Now),
            ]),
        },
    );
    list.add::<ChannelUnsubscribe>(
        "channel.unsubscribe",
        "Ends a subscription.",
        (),
        Unsubscribe {
            channel_ids: vec![id("random")],
        },
    );
    list.add::<ChannelList>(
        "channel.list further",
        "A further page of ten.",
        (),
        ListPage {
            cursor: Some("b3BhcXVl".into()),
            limit: Some(10),
        },
    );
    list.add::<ChannelCreate>(
        "channel.create",
        "A group with two others in it.",
        (),
        CreateChannel {
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
    list.add::<ChannelUpdate>(
        "channel.update",
        "Sets the name and removes the description.",
        channel(),
        update,
    );
    let add = AddParticipant {
        user_id: id("bob"),
        role: Some(Role::Moderator),
    };
    list.add::<ParticipantAdd>(
        "participant.add",
        "Brings a user in, with a role.",
        channel(),
        add,
    );
    let update = UpdateParticipant {
        role: Some(Role::Observer),
    };
    list.add::<ParticipantUpdate>("participant.update", "Gives a role.", participant(), update);
    let page = ListPage {
        cursor: None,
        limit: Some(100),
    };
    list.add::<ParticipantList>(
        "participant.list",
        "Up to a hundred participants.",
        channel(),
        page,
    );
    let text = SendMessage {
        text: Some("Grüße 👋".into()),
        ..SendMessage::default()
    };
    list.add::<MessageSend>("message.send", "A text.", channel(), text);
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
    list.add::<MessageSend>(
        "message.send with everything",
        "All that a user may send, under an id of its own.",
        channel(),
        full,
    );
    let edit = EditMessage {
        text: Patch::Set("look at this".into()),
        mention_ids: Patch::Clear,
        ..EditMessage::default()
    };
    list.add::<MessageEdit>(
        "message.edit",
        "Sets the text and removes the mentions.",
        message(),
        edit,
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
        list.add::<MessageList>(name, description, channel(), which);
    }
    list.add::<ReadMark>(
        "read.mark",
        "Has read up to number 17.",
        channel(),
        MarkRead {
            number: 17,
            user_id: None,
        },
    );
    list.add::<ReadUnmark>(
        "read.unmark",
        "Has not read number 16 and later ones.",
        channel(),
        UnmarkRead {
            number: 16,
            user_id: None,
        },
    );
    list.add::<PresenceWatch>(
        "presence.watch",
        "Watches two users.",
        (),
        UserIds {
            user_ids: vec![id("bob"), id("usr_00000000000000b1")],
        },
    );
    list.add::<UserGet>(
        "user.get",
        "Reads a profile.",
        (),
        UserIds {
            user_ids: vec![id("bob")],
        },
    );
    let update = UpdateUser {
        first_name: Patch::Set("Alice".into()),
        bio: Patch::Clear,
        ..UpdateUser::default()
    };
    list.add::<UserUpdate>(
        "user.update",
        "Sets the first name and removes the bio.",
        &id("alice"),
        update,
    );
    list.0
}
