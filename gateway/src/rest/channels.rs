//! `/v1/channels`.

use axum::{extract::State, http::StatusCode, response::Response};
use protocol::{
    ChannelId, UserId,
    model::{Channel, ChannelType},
    params::{CreateChannel, ReplaceChannel, UpdateChannel},
    results::List,
};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Shared,
    answer::{Answer, done},
    conditions::{IfMatchHeader, IfNoneMatchHeader, Insists, Known},
    credentials::Caller,
    extract::{Asked, Body, In, misfit},
    idempotency::{Idempotency, IdempotencyHeader},
};
use crate::{
    error::Result,
    service::{
        channels::{ChannelFilter, Made},
        document::Versioned,
    },
};

/// The most ids in one question.
const MOST_IDS: usize = 200;

pub(super) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(create, list))
        .routes(routes!(read, replace, update, delete))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct ChannelPath {
    /// The channel's id.
    pub(super) channel: ChannelId,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ListChannels {
    /// Only channels of this type.
    #[serde(rename = "type")]
    kind: Option<ChannelType>,
    /// Only channels that this user is in.
    participant_id: Option<UserId>,
    /// Only these, separated by commas; at most 200.
    ids: Option<String>,
    /// The `cursor` of the page before.
    cursor: Option<String>,
    /// At most this many items; default 50.
    #[param(minimum = 1)]
    limit: Option<u64>,
}

fn entity(channel: Versioned<Channel>, made: Made) -> Answer<Channel> {
    let (version, count) = (channel.version, channel.value.participant_count);
    Answer::made(made == Made::Now, channel.value).tagged(version, Some(count))
}

/// Make a channel
///
/// The creator becomes its owner. An existing `direct` channel of the same two users is answered instead, with 200.
#[utoipa::path(post, path = "/v1/channels", tag = "channels", security(("app_key" = []), ("user_token" = [])),
    params(IdempotencyHeader), request_body = CreateChannel,
    responses((status = 201, description = "The new channel", body = Channel), (status = 200, description = "The direct channel that exists", body = Channel)))]
async fn create(
    State(state): State<Shared>,
    Caller(actor): Caller,
    idempotency: Idempotency,
    Body(body): Body<CreateChannel>,
) -> Result<Response> {
    let services = &state.services;
    idempotency
        .once(services, &body.clone(), async |bits| {
            let (channel, made) = services.create_channel_as(&actor, body, bits).await?;
            Ok(entity(channel, made))
        })
        .await
}

/// List channels
///
/// An app key sees all, a user its own and the `open` and `broadcast` ones.
#[utoipa::path(get, path = "/v1/channels", tag = "channels", security(("app_key" = []), ("user_token" = [])),
    params(ListChannels), responses((status = 200, description = "A page, by id", body = List<Channel>)))]
async fn list(
    State(state): State<Shared>,
    Caller(actor): Caller,
    Asked(query): Asked<ListChannels>,
) -> Result<Answer<List<Channel>>> {
    let ids = query.ids.map(|ids| parse_ids(&ids)).transpose()?;
    let filter = ChannelFilter {
        kind: query.kind,
        participant: query.participant_id,
        ids,
    };
    Ok(Answer::ok(
        state
            .services
            .list_channels(&actor, filter, query.cursor, query.limit)
            .await?,
    ))
}

fn parse_ids(text: &str) -> Result<Vec<ChannelId>> {
    let ids: Result<Vec<ChannelId>, _> = text
        .split(',')
        .filter(|id| !id.is_empty())
        .map(str::parse)
        .collect();
    let ids = ids.map_err(|error| misfit("query", Some("ids"), &error.to_string()))?;
    if ids.len() > MOST_IDS {
        Err(misfit("query", Some("ids"), "more than 200 ids"))
    } else {
        Ok(ids)
    }
}

/// Read a channel
#[utoipa::path(get, path = "/v1/channels/{channel}", tag = "channels", security(("app_key" = []), ("user_token" = [])),
    params(ChannelPath, IfNoneMatchHeader), responses((status = 200, description = "The channel", body = Channel)))]
async fn read(
    State(state): State<Shared>,
    Caller(actor): Caller,
    In(path): In<ChannelPath>,
    known: Known,
) -> Result<Response> {
    let channel = state.services.channel(&actor, &path.channel).await?;
    Ok(entity(channel, Made::Before).unless(&known))
}

/// Make or replace a channel
///
/// What is left out is cleared. The type of a channel that exists cannot change.
#[utoipa::path(put, path = "/v1/channels/{channel}", tag = "channels", security(("app_key" = [])),
    params(ChannelPath, IfMatchHeader), request_body = ReplaceChannel,
    responses((status = 200, description = "The replaced channel", body = Channel), (status = 201, description = "The new channel", body = Channel)))]
async fn replace(
    State(state): State<Shared>,
    Caller(actor): Caller,
    In(path): In<ChannelPath>,
    Insists(if_match): Insists,
    Body(body): Body<ReplaceChannel>,
) -> Result<Answer<Channel>> {
    let (channel, made) = state
        .services
        .put_channel(&actor, &path.channel, body, if_match)
        .await?;
    Ok(entity(channel, made))
}

/// Change a channel
#[utoipa::path(patch, path = "/v1/channels/{channel}", tag = "channels", security(("app_key" = []), ("user_token" = [])),
    params(ChannelPath, IfMatchHeader), request_body = UpdateChannel,
    responses((status = 200, description = "The changed channel", body = Channel)))]
async fn update(
    State(state): State<Shared>,
    Caller(actor): Caller,
    In(path): In<ChannelPath>,
    Insists(if_match): Insists,
    Body(body): Body<UpdateChannel>,
) -> Result<Answer<Channel>> {
    let channel = state
        .services
        .update_channel(&actor, &path.channel, body, if_match)
        .await?;
    Ok(entity(channel, Made::Before))
}

/// Delete a channel
#[utoipa::path(delete, path = "/v1/channels/{channel}", tag = "channels", security(("app_key" = []), ("user_token" = [])),
    params(ChannelPath, IfMatchHeader), responses((status = 204, description = "It is gone")))]
async fn delete(
    State(state): State<Shared>,
    Caller(actor): Caller,
    In(path): In<ChannelPath>,
    Insists(if_match): Insists,
) -> Result<StatusCode> {
    done(
        state
            .services
            .delete_channel(&actor, &path.channel, if_match)
            .await,
    )
}
