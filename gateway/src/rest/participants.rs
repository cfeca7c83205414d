//! `/v1/channels/{channel}/participants`.

use axum::{extract::State, http::StatusCode, response::Response};
use protocol::{
    ChannelId, UserId,
    model::Participant,
    params::{AddParticipant, Batch, ListPage, UpdateParticipant},
    results::{List, ParticipantBatch},
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
use crate::{
    error::Result,
    service::{document::Versioned, participants::Added},
};

pub(super) fn routes() -> OpenApiRouter<Shared> {
    let of_user_batch = axum::routing::get(read).patch(update).delete(remove);
    OpenApiRouter::new()
        .routes(routes!(add, list))
        .routes(routes!(add_batch))
        .routes(routes!(read, update, remove))
        .route("/v1/channels/{channel}/participants/batch", of_user_batch)
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
struct ParticipantPath {
    /// The channel's id.
    channel: ChannelId,
    /// The user's id.
    user: UserId,
}

fn entity(participant: Versioned<Participant>, is_new: bool) -> Answer<Participant> {
    let (version, read) = (participant.version, participant.value.read);
    Answer::made(is_new, participant.value).tagged(version, read)
}

/// Add a participant
///
/// With the own id and no other role than `member`, a user joins. Who is in it already is answered as it stands, with 200.
#[utoipa::path(post, path = "/v1/channels/{channel}/participants", tag = "participants", security(("app_key" = []), ("user_token" = [])),
    params(ChannelPath, IdempotencyHeader), request_body = AddParticipant,
    responses((status = 201, description = "The new participant", body = Participant), (status = 200, description = "The participant as it stands", body = Participant)))]
async fn add(
    State(state): State<Shared>,
    Caller(actor): Caller,
    In(path): In<ChannelPath>,
    idempotency: Idempotency,
    Body(body): Body<AddParticipant>,
) -> Result<Response> {
    let services = &state.services;
    idempotency
        .once(services, &body.clone(), async |_| {
            let (participant, added) = services
                .add_participant(&actor, &path.channel, body)
                .await?;
            Ok(entity(participant, added == Added::Now))
        })
        .await
}

/// List a channel's participants
#[utoipa::path(get, path = "/v1/channels/{channel}/participants", tag = "participants", security(("app_key" = []), ("user_token" = [])),
    params(ChannelPath, ListPage), responses((status = 200, description = "A page with read positions, by user id", body = List<Participant>)))]
async fn list(
    State(state): State<Shared>,
    Caller(actor): Caller,
    In(path): In<ChannelPath>,
    Asked(page): Asked<ListPage>,
) -> Result<Answer<List<Participant>>> {
    Ok(Answer::ok(
        state
            .services
            .list_participants(&actor, &path.channel, page.cursor, page.limit)
            .await?,
    ))
}

/// Add up to 100 participants
///
/// Each on its own: one that fails leaves the others alone.
#[utoipa::path(post, path = "/v1/channels/{channel}/participants/batch", tag = "participants", security(("app_key" = [])),
    params(ChannelPath, IdempotencyHeader), request_body = Batch<AddParticipant>,
    responses((status = 200, description = "One answer for each, in the order asked", body = ParticipantBatch)))]
async fn add_batch(
    State(state): State<Shared>,
    Caller(actor): Caller,
    In(path): In<ChannelPath>,
    idempotency: Idempotency,
    Body(body): Body<Batch<AddParticipant>>,
) -> Result<Response> {
    let services = &state.services;
    idempotency
        .once(services, &body.clone(), async |_| {
            Ok(Answer::ok(
                services
                    .add_participants(&actor, &path.channel, body.items)
                    .await?,
            ))
        })
        .await
}

/// Read a participant
#[utoipa::path(get, path = "/v1/channels/{channel}/participants/{user}", tag = "participants", security(("app_key" = []), ("user_token" = [])),
    params(ParticipantPath, IfNoneMatchHeader), responses((status = 200, description = "The participant with its read position", body = Participant)))]
async fn read(
    State(state): State<Shared>,
    Caller(actor): Caller,
    In(path): In<ParticipantPath>,
    known: Known,
) -> Result<Response> {
    let participant = state
        .services
        .participant(&actor, &path.channel, &path.user)
        .await?;
    Ok(entity(participant, false).unless(&known))
}

/// Give a participant another role
#[utoipa::path(patch, path = "/v1/channels/{channel}/participants/{user}", tag = "participants", security(("app_key" = []), ("user_token" = [])),
    params(ParticipantPath, IfMatchHeader), request_body = UpdateParticipant,
    responses((status = 200, description = "The changed participant", body = Participant)))]
async fn update(
    State(state): State<Shared>,
    Caller(actor): Caller,
    In(path): In<ParticipantPath>,
    Insists(if_match): Insists,
    Body(body): Body<UpdateParticipant>,
) -> Result<Answer<Participant>> {
    let participant = state
        .services
        .update_participant(&actor, &path.channel, &path.user, body, if_match)
        .await?;
    Ok(entity(participant, false))
}

/// Remove a participant
///
/// With the own id, a user leaves.
#[utoipa::path(delete, path = "/v1/channels/{channel}/participants/{user}", tag = "participants", security(("app_key" = []), ("user_token" = [])),
    params(ParticipantPath, IfMatchHeader), responses((status = 204, description = "It is gone")))]
async fn remove(
    State(state): State<Shared>,
    Caller(actor): Caller,
    In(path): In<ParticipantPath>,
    Insists(if_match): Insists,
) -> Result<StatusCode> {
    done(
        state
            .services
            .remove_participant(&actor, &path.channel, &path.user, if_match)
            .await,
    )
}
