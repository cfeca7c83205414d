//! `/v1/channels/{channel}/messages/{message}/reactions/{emoji}`.

use axum::extract::State;
use protocol::{ChannelId, MessageId, UserId, results::Count};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Shared,
    answer::Answer,
    credentials::Caller,
    extract::{Asked, In},
};
use crate::error::Result;

pub(super) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new().routes(routes!(add, remove))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
struct ReactionPath {
    /// The channel's id.
    channel: ChannelId,
    /// The message's id.
    message: MessageId,
    /// 1 to 64 bytes.
    #[param(min_length = 1, max_length = 64, example = "👍")]
    emoji: String,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct InNameOf {
    /// Whose reaction; required with an app key.
    sender_id: Option<UserId>,
}

/// Give a reaction
#[utoipa::path(put, path = "/v1/channels/{channel}/messages/{message}/reactions/{emoji}", tag = "reactions",
    security(("app_key" = []), ("user_token" = [])), params(ReactionPath, InNameOf),
    responses((status = 200, description = "How often it was given, by now", body = Count)))]
async fn add(
    State(state): State<Shared>,
    Caller(actor): Caller,
    In(path): In<ReactionPath>,
    Asked(query): Asked<InNameOf>,
) -> Result<Answer<Count>> {
    Ok(Answer::ok(
        state
            .services
            .add_reaction(
                &actor,
                &path.channel,
                &path.message,
                &path.emoji,
                query.sender_id,
            )
            .await?,
    ))
}

/// Take a reaction back
#[utoipa::path(delete, path = "/v1/channels/{channel}/messages/{message}/reactions/{emoji}", tag = "reactions",
    security(("app_key" = []), ("user_token" = [])), params(ReactionPath, InNameOf),
    responses((status = 200, description = "How often it is still given", body = Count)))]
async fn remove(
    State(state): State<Shared>,
    Caller(actor): Caller,
    In(path): In<ReactionPath>,
    Asked(query): Asked<InNameOf>,
) -> Result<Answer<Count>> {
    Ok(Answer::ok(
        state
            .services
            .remove_reaction(
                &actor,
                &path.channel,
                &path.message,
                &path.emoji,
                query.sender_id,
            )
            .await?,
    ))
}
