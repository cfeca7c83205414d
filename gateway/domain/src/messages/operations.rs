//! The operations of messages.

use protocol::{
    MessageId,
    entity::Message,
    operation::{
        empty::Empty,
        message::{MessageDelete, MessageEdit, MessageList, MessageRead, MessageSend, SendMessage},
        path::MessagePath,
    },
};

use crate::{
    Services,
    error::Result,
    messages::{self, send::Sent},
    perform::{Call, Done, Perform, Tag},
};

impl Perform for MessageSend {
    const REPEATS_ANEW: bool = true;

    async fn repeat(services: &Services, call: Call<Self>) -> Result<Done<Self::Output>> {
        Ok(message_done(
            messages::read_message(
                services,
                call.caller.actor()?,
                &call.path.channel_id,
                &sent_id(&call),
            )
            .await?,
        ))
    }

    async fn perform(services: &Services, call: Call<Self>) -> Result<Done<Self::Output>> {
        let message_id = sent_id(&call);
        // Only this request has this id, so an earlier attempt of it sent the message.
        let is_own = call.input.message_id.is_none();
        let input = SendMessage {
            message_id: Some(message_id),
            ..call.input
        };
        let (message, sent) = messages::send::send_message(
            services,
            call.caller.actor()?,
            &call.path.channel_id,
            input,
        )
        .await?;
        Ok(message_done(message).new_if(is_own || sent == Sent::Now))
    }
}

impl Perform for MessageList {
    async fn perform(services: &Services, call: Call<Self>) -> Result<Done<Self::Output>> {
        Ok(Done::plain(
            messages::lists::list_messages(
                services,
                call.caller.actor()?,
                &call.path.channel_id,
                call.input,
            )
            .await?,
        ))
    }
}

impl Perform for MessageRead {
    async fn perform(services: &Services, call: Call<Self>) -> Result<Done<Self::Output>> {
        Ok(message_done(
            messages::read_message(
                services,
                call.caller.actor()?,
                &call.path.channel_id,
                &call.path.message_id,
            )
            .await?,
        ))
    }
}

impl Perform for MessageEdit {
    async fn perform(services: &Services, call: Call<Self>) -> Result<Done<Self::Output>> {
        let MessagePath {
            channel_id,
            message_id,
        } = &call.path;
        Ok(message_done(
            messages::edit_message(
                services,
                call.caller.actor()?,
                channel_id,
                message_id,
                call.input,
                call.if_match,
            )
            .await?,
        ))
    }
}

impl Perform for MessageDelete {
    async fn perform(services: &Services, call: Call<Self>) -> Result<Done<Self::Output>> {
        messages::delete_message(
            services,
            call.caller.actor()?,
            &call.path.channel_id,
            &call.path.message_id,
            call.if_match,
        )
        .await?;
        Ok(Done::plain(Empty {}))
    }
}

/// The version of a message is its `seq`: every change, also of its reactions, is an event.
fn message_done(message: Message) -> Done<Message> {
    let tag = Some(Tag {
        version: message.seq,
        count: None,
    });
    Done {
        value: message,
        is_new: false,
        tag,
    }
}

/// Returns the id of a message to send: the caller's, or one that is the same for a repeated
/// `Idempotency-Key`.
fn sent_id(call: &Call<MessageSend>) -> MessageId {
    call.input
        .message_id
        .clone()
        .unwrap_or_else(|| MessageId::from_bits(call.seed))
}
