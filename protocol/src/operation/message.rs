//! Messages: sending, listing, reading, editing, deleting.

use super::{
    Caller, Conditions, Handler, Http, Operation, Reply, WebSocket, described,
    empty::{Empty, NoInput},
    path::{ChannelPath, MessagePath},
};
use crate::{
    MessageId, Metadata, Patch, UserId,
    entity::{Attachment, Message, MessageKind},
    wire::wire,
};

described! {
    /// Sends a message
    ///
    /// Sending again with the same `message_id` returns the first message. An app key names the
    /// `sender_id`, unless `kind` is `system`.
    pub struct MessageSend;

    /// Lists messages
    ///
    /// At most one of `before`, `after` (by `number`) and `changed_after` (by `seq`). Without any
    /// of them, the newest page.
    pub struct MessageList;

    /// Reads a message
    pub struct MessageRead;

    /// Edits a message
    ///
    /// An edit that changes nothing returns the message as it is and publishes no event.
    pub struct MessageEdit;

    /// Deletes a message
    ///
    /// The message keeps its number and loses its content. Deleting it again changes nothing.
    pub struct MessageDelete;
}

impl Operation for MessageSend {
    const NAME: &'static str = "message.send";
    const CALLERS: &'static [Caller] = Caller::ACTORS;
    const WEBSOCKET: Option<WebSocket> = Some(WebSocket {
        reply: Reply::Field("message"),
        handler: Handler::Session,
    });
    const HTTP: Option<Http> = Some(Http::post(
        "/v1/channels/{channel}/messages",
        &[
            (201, "The new message"),
            (200, "The message that an earlier request sent"),
        ],
    ));
    type Path = ChannelPath;
    type Input = SendMessage;
    type Output = Message;

    fn example() -> SendMessage {
        SendMessage {
            text: Some("Hello".to_owned()),
            ..SendMessage::default()
        }
    }
}

wire! {
    /// `message.send`, `POST /v1/channels/{channel}/messages`.
    #[derive(Default)]
    pub struct SendMessage {
        /// Id chosen by the sender, so that a retry is safe.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub message_id: Option<MessageId>,
        /// Text of up to `limits.text_bytes`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub text: Option<String>,
        /// Message of the same channel that it replies to.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub reply_to_id: Option<MessageId>,
        /// Attachments.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        pub attachments: Vec<Attachment>,
        /// Mentioned users of the app.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        pub mention_ids: Vec<UserId>,
        /// Free data.
        #[serde(default, skip_serializing_if = "Metadata::is_empty")]
        pub metadata: Metadata,
        /// Sender; app keys only.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub sender_id: Option<UserId>,
        /// Kind of the message; app keys only.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub kind: Option<MessageKind>,
    }
}

impl Operation for MessageList {
    const NAME: &'static str = "message.list";
    const CALLERS: &'static [Caller] = Caller::ACTORS;
    const WEBSOCKET: Option<WebSocket> = Some(WebSocket::OUTPUT);
    const HTTP: Option<Http> = Some(Http::get(
        "/v1/channels/{channel}/messages",
        &[(200, "A page")],
    ));
    type Path = ChannelPath;
    type Input = ListMessages;
    type Output = MessagePage;

    fn example() -> ListMessages {
        ListMessages::default()
    }
}

wire! {
    /// Which messages to list: at most one of the first three; without any, the newest.
    #[derive(Default, Copy)]
    pub struct ListMessages {
        /// Messages with a lower `number`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub before: Option<u64>,
        /// Messages with a higher `number`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub after: Option<u64>,
        /// Messages that changed after the event with this `seq`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub changed_after: Option<u64>,
        /// Maximum number of items; default 50. A page never has more than `limits.page`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub limit: Option<u64>,
    }

    /// A page of messages.
    pub struct MessagePage {
        /// By `number` ascending; by `seq` ascending with `changed_after`.
        pub items: Vec<Message>,
        /// Whether there are more in that direction.
        pub more: bool,
    }
}

impl Operation for MessageRead {
    const NAME: &'static str = "message.read";
    const CALLERS: &'static [Caller] = Caller::ACTORS;
    const HTTP: Option<Http> = Some(
        Http::get(
            "/v1/channels/{channel}/messages/{message}",
            &[(200, "The message")],
        )
        .conditions(Conditions::Read),
    );
    type Path = MessagePath;
    type Input = NoInput;
    type Output = Message;

    fn example() -> NoInput {
        NoInput {}
    }
}

impl Operation for MessageEdit {
    const NAME: &'static str = "message.edit";
    const CALLERS: &'static [Caller] = Caller::ACTORS;
    const WEBSOCKET: Option<WebSocket> = Some(WebSocket::field("message"));
    const HTTP: Option<Http> = Some(
        Http::patch(
            "/v1/channels/{channel}/messages/{message}",
            &[(200, "The edited message")],
        )
        .conditions(Conditions::Write),
    );
    type Path = MessagePath;
    type Input = EditMessage;
    type Output = Message;

    fn example() -> EditMessage {
        EditMessage {
            text: Patch::Set("Hello, world".to_owned()),
            ..EditMessage::default()
        }
    }
}

wire! {
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
        #[cfg_attr(feature = "schema", schema(value_type = Option<Vec<UserId>>))]
        pub mention_ids: Patch<Vec<UserId>>,
        /// Merge patch of the free data.
        #[serde(default, skip_serializing_if = "Patch::is_keep")]
        #[cfg_attr(feature = "schema", schema(value_type = Option<Object>))]
        pub metadata: Patch<Metadata>,
    }
}

impl Operation for MessageDelete {
    const NAME: &'static str = "message.delete";
    const CALLERS: &'static [Caller] = Caller::ACTORS;
    const WEBSOCKET: Option<WebSocket> = Some(WebSocket::OUTPUT);
    const HTTP: Option<Http> = Some(
        Http::delete(
            "/v1/channels/{channel}/messages/{message}",
            &[(204, "It is deleted")],
        )
        .conditions(Conditions::Write),
    );
    type Path = MessagePath;
    type Input = NoInput;
    type Output = Empty;

    fn example() -> NoInput {
        NoInput {}
    }
}
