//! `/v1/channels/{channel}/messages`.

use axum::{extract::State, http::StatusCode, response::Response};
use protocol::{
    ChannelId, MessageId,
    model::Message,
    params::{EditMessage, ListMessages, SendMessage},
    results::MessageList,
};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Shared,
    answer::{Answer, done},
    channels::ChannelPath,
    conditions::{IfMatchHeader, IfNoneMatchHeader, Insists, Known},
    credentials::Caller,
    extract::{Asked, Body, In},
    idempotency::{Idempotency, IdempotencyHeader},
};
use crate::{error::Result, service::messages::Sent};

pub(super) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(send, list))
        .routes(routes!(read, edit, delete))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
struct MessagePath {
    /// The channel's id.
    channel: ChannelId,
    /// The message's id.
    message: MessageId,
}

/// A message's version is its `seq`: whatever changes it, a reaction included, is an event.
fn entity(message: Message, is_new: bool) -> Answer<Message> {
    let seq = message.seq;
    Answer::made(is_new, message).tagged(seq, None)
}

/// Send a message
///
/// Sending again with the same `message_id` answers the first message, with 200. An app key names the `sender_id`, unless `kind` is `system`.
#[utoipa::path(post, path = "/v1/channels/{channel}/messages", tag = "messages", security(("app_key" = []), ("user_token" = [])),
    params(ChannelPath, IdempotencyHeader), request_body = SendMessage,
    responses((status = 201, description = "The new message", body = Message), (status = 200, description = "The message that an earlier request sent", body = Message)))]
async fn send(
    State(state): State<Shared>,
    Caller(actor): Caller,
    In(path): In<ChannelPath>,
    idempotency: Idempotency,
    Body(body): Body<SendMessage>,
) -> Result<Response> {
    let services = &state.services;
    idempotency
        .once(services, &body.clone(), async |bits| {
            let message_id = Some(
                body.message_id
                    .unwrap_or_else(|| MessageId::from_bits(bits)),
            );
            let (message, sent) = services
                .send_message(&actor, &path.channel, SendMessage { message_id, ..body })
                .await?;
            Ok(entity(message, sent == Sent::Now))
        })
        .await
}

/// List messages
///
/// At most one of `before`, `after` (by `number`) and `changed_after` (by `seq`); without any, the newest page.
#[utoipa::path(get, path = "/v1/channels/{channel}/messages", tag = "messages", security(("app_key" = []), ("user_token" = [])),
    params(ChannelPath, ListMessages), responses((status = 200, description = "A page", body = MessageList)))]
async fn list(
    State(state): State<Shared>,
    Caller(actor): Caller,
    In(path): In<ChannelPath>,
    Asked(query): Asked<ListMessages>,
) -> Result<Answer<MessageList>> {
    Ok(Answer::ok(
        state
            .services
            .list_messages(&actor, &path.channel, query)
            .await?,
    ))
}

/// Read a message
#[utoipa::path(get, path = "/v1/channels/{channel}/messages/{message}", tag = "messages", security(("app_key" = []), ("user_token" = [])),
    params(MessagePath, IfNoneMatchHeader), responses((status = 200, description = "The message", body = Message)))]
async fn read(
    State(state): State<Shared>,
    Caller(actor): Caller,
    In(path): In<MessagePath>,
    known: Known,
) -> Result<Response> {
    let message = state
        .services
        .message(&actor, &path.channel, &path.message)
        .await?;
    Ok(entity(message, false).unless(&known))
}

/// Edit a message
#[utoipa::path(patch, path = "/v1/channels/{channel}/messages/{message}", tag = "messages", security(("app_key" = []), ("user_token" = [])),
    params(MessagePath, IfMatchHeader), request_body = EditMessage,
    responses((status = 200, description = "The edited message", body = Message)))]
async fn edit(
    State(state): State<Shared>,
    Caller(actor): Caller,
    In(path): In<MessagePath>,
    Insists(if_match): Insists,
    Body(body): Body<EditMessage>,
) -> Result<Answer<Message>> {
    let message = state
        .services
        .edit_message(&actor, &path.channel, &path.message, body, if_match)
        .await?;
    Ok(entity(message, false))
}

/// Delete a message
///
/// Its place stays, what it said is gone. Deleting it again changes nothing.
#[utoipa::path(delete, path = "/v1/channels/{channel}/messages/{message}", tag = "messages", security(("app_key" = []), ("user_token" = [])),
    params(MessagePath, IfMatchHeader), responses((status = 204, description = "It is gone")))]
async fn delete(
    State(state): State<Shared>,
    Caller(actor): Caller,
    In(path): In<MessagePath>,
    Insists(if_match): Insists,
) -> Result<StatusCode> {
    done(
        state
            .services
            .delete_message(&actor, &path.channel, &path.message, if_match)
            .await,
    )
}
