//! Every method of the WebSocket with parameters that fit it, and the places in them that name something.

use protocol::Method;
use serde_json::{Value, json};

/// What an id is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Organization,
    App,
    OrganizationKey,
    AppKey,
    TokenKey,
    User,
    Channel,
    Message,
    /// Where a page of a list goes on.
    Cursor,
}

/// Gives the id for a place, by the place's name; none leaves the place out, where it may be left out.
pub(crate) type Ids<'a> = &'a mut dyn FnMut(&'static str, Kind) -> String;

/// Parameters that fit a method. A method that is new is told here first, or nothing compiles.
pub(crate) fn params(method: Method, id: Ids<'_>) -> Value {
    let channel = |id: Ids<'_>| id("channel_id", Kind::Channel);
    let message = |id: Ids<'_>| id("message_id", Kind::Message);
    match method {
        // A session has connected already, by its token; `resume` names channels, and is tried by the wall itself.
        Method::Connect => json!({ "token": "" }),
        Method::TokenRefresh => json!({ "token": "" }),
        Method::Ping => json!({}),
        Method::ChannelSubscribe => json!({ "channels": { channel(id): [] } }),
        Method::ChannelUnsubscribe => json!({ "channel_ids": [channel(id)] }),
        Method::ChannelList => json!({ "limit": 10, "cursor": id("cursor", Kind::Cursor) }),
        Method::ChannelCreate => {
            json!({ "type": "group", "name": "n", "participant_ids": [id("participant_ids", Kind::User)] })
        }
        Method::ChannelUpdate => json!({ "channel_id": channel(id), "description": "d" }),
        Method::ChannelDelete | Method::ChannelJoin | Method::ChannelLeave => {
            json!({ "channel_id": channel(id) })
        }
        Method::ParticipantAdd | Method::ParticipantUpdate => {
            json!({ "channel_id": channel(id), "user_id": id("user_id", Kind::User), "role": "member" })
        }
        Method::ParticipantRemove => {
            json!({ "channel_id": channel(id), "user_id": id("user_id", Kind::User) })
        }
        Method::ParticipantList => {
            json!({ "channel_id": channel(id), "limit": 10, "cursor": id("cursor", Kind::Cursor) })
        }
        Method::MessageSend => json!({
            "channel_id": channel(id), "text": "t", "message_id": message(id), "reply_to_id": id("reply_to_id", Kind::Message),
            "mention_ids": [id("mention_ids", Kind::User)], "metadata": { "a": 1 },
            "attachments": [{ "type": "file", "url": "https://example.com/a" }],
        }),
        Method::MessageEdit => json!({
            "channel_id": channel(id), "message_id": message(id), "text": "u", "mention_ids": [id("mention_ids", Kind::User)],
        }),
        Method::MessageDelete => json!({ "channel_id": channel(id), "message_id": message(id) }),
        Method::MessageList => json!({ "channel_id": channel(id), "after": 0, "limit": 5 }),
        Method::ReactionAdd | Method::ReactionRemove => {
            json!({ "channel_id": channel(id), "message_id": message(id), "emoji": "x" })
        }
        Method::ReadMark => json!({ "channel_id": channel(id), "number": 1 }),
        Method::Typing => json!({ "channel_id": channel(id), "typing": true }),
        Method::PresenceWatch | Method::UserGet => {
            json!({ "user_ids": [id("user_ids", Kind::User)] })
        }
        Method::UserUpdate => json!({ "first_name": "f", "metadata": { "a": 1 } }),
    }
}
