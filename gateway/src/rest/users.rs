//! `/v1/users`.

use axum::{extract::State, http::StatusCode, response::Response};
use protocol::{
    UserId,
    model::User,
    params::{Batch, Disconnect, ListPage, MintToken, PutUser, UpdateUser},
    results::{Disconnected, EntryList, List, Token, Unread, UserBatch},
};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Shared,
    answer::{Answer, done},
    conditions::{IfMatchHeader, IfNoneMatchHeader, Insists, Known},
    credentials::Caller,
    extract::{Asked, Body, In, Perhaps},
    idempotency::{Idempotency, IdempotencyHeader},
};
use crate::{
    error::Result,
    service::{channels::Made, document::Versioned},
};

pub(super) fn routes() -> OpenApiRouter<Shared> {
    let of_user_batch = axum::routing::get(read)
        .put(replace)
        .patch(update)
        .delete(delete);
    OpenApiRouter::new()
        .routes(routes!(create, list))
        .routes(routes!(put_batch))
        .routes(routes!(read, replace, update, delete))
        .route("/v1/users/batch", of_user_batch)
        .routes(routes!(mint_token))
        .routes(routes!(disconnect))
        .routes(routes!(channels))
        .routes(routes!(unread))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
struct UserPath {
    /// The user's id.
    user: UserId,
}

fn entity(user: Versioned<User>, made: Made) -> Answer<User> {
    Answer::made(made == Made::Now, user.value).tagged(user.version, None)
}

/// Make a user
#[utoipa::path(post, path = "/v1/users", tag = "users", security(("app_key" = [])),
    params(IdempotencyHeader), request_body = PutUser, responses((status = 201, description = "The new user", body = User)))]
async fn create(
    State(state): State<Shared>,
    Caller(actor): Caller,
    idempotency: Idempotency,
    Body(body): Body<PutUser>,
) -> Result<Response> {
    let services = &state.services;
    idempotency
        .once(services, &body.clone(), async |bits| {
            Ok(entity(
                services.create_user_as(&actor, body, bits).await?,
                Made::Now,
            ))
        })
        .await
}

/// List users
#[utoipa::path(get, path = "/v1/users", tag = "users", security(("app_key" = [])),
    params(ListPage), responses((status = 200, description = "A page, by id", body = List<User>)))]
async fn list(
    State(state): State<Shared>,
    Caller(actor): Caller,
    Asked(page): Asked<ListPage>,
) -> Result<Answer<List<User>>> {
    Ok(Answer::ok(
        state
            .services
            .list_users(&actor, page.cursor, page.limit)
            .await?,
    ))
}

/// Make or replace up to 100 users
///
/// Each on its own: one that fails leaves the others alone.
#[utoipa::path(post, path = "/v1/users/batch", tag = "users", security(("app_key" = [])),
    params(IdempotencyHeader), request_body = Batch<PutUser>,
    responses((status = 200, description = "One answer for each, in the order asked", body = UserBatch)))]
async fn put_batch(
    State(state): State<Shared>,
    Caller(actor): Caller,
    idempotency: Idempotency,
    Body(body): Body<Batch<PutUser>>,
) -> Result<Response> {
    let services = &state.services;
    idempotency
        .once(services, &body.clone(), async |_| {
            Ok(Answer::ok(services.put_users(&actor, body.items).await?))
        })
        .await
}

/// Read a user
#[utoipa::path(get, path = "/v1/users/{user}", tag = "users", security(("app_key" = []), ("user_token" = [])),
    params(UserPath, IfNoneMatchHeader), responses((status = 200, description = "The user", body = User)))]
async fn read(
    State(state): State<Shared>,
    Caller(actor): Caller,
    In(path): In<UserPath>,
    known: Known,
) -> Result<Response> {
    Ok(entity(state.services.user(&actor, &path.user).await?, Made::Before).unless(&known))
}

/// Make or replace a user
///
/// What is left out is cleared.
#[utoipa::path(put, path = "/v1/users/{user}", tag = "users", security(("app_key" = [])),
    params(UserPath, IfMatchHeader), request_body = PutUser,
    responses((status = 200, description = "The replaced user", body = User), (status = 201, description = "The new user", body = User)))]
async fn replace(
    State(state): State<Shared>,
    Caller(actor): Caller,
    In(path): In<UserPath>,
    Insists(if_match): Insists,
    Body(body): Body<PutUser>,
) -> Result<Answer<User>> {
    let (user, made) = state
        .services
        .put_user(&actor, &path.user, body, if_match)
        .await?;
    Ok(entity(user, made))
}

/// Change a user
///
/// A user changes itself, but for `bot`.
#[utoipa::path(patch, path = "/v1/users/{user}", tag = "users", security(("app_key" = []), ("user_token" = [])),
    params(UserPath, IfMatchHeader), request_body = UpdateUser,
    responses((status = 200, description = "The changed user", body = User)))]
async fn update(
    State(state): State<Shared>,
    Caller(actor): Caller,
    In(path): In<UserPath>,
    Insists(if_match): Insists,
    Body(body): Body<UpdateUser>,
) -> Result<Answer<User>> {
    Ok(entity(
        state
            .services
            .update_user(&actor, &path.user, body, if_match)
            .await?,
        Made::Before,
    ))
}

/// Delete a user
///
/// Its sessions end, it leaves its channels, and its id is never given again. What it wrote stays.
#[utoipa::path(delete, path = "/v1/users/{user}", tag = "users", security(("app_key" = [])),
    params(UserPath, IfMatchHeader), responses((status = 204, description = "It is gone")))]
async fn delete(
    State(state): State<Shared>,
    Caller(actor): Caller,
    In(path): In<UserPath>,
    Insists(if_match): Insists,
) -> Result<StatusCode> {
    done(
        state
            .services
            .delete_user(&actor, &path.user, if_match)
            .await,
    )
}

/// Mint a token for a user
#[utoipa::path(post, path = "/v1/users/{user}/tokens", tag = "users", security(("app_key" = [])),
    params(UserPath, IdempotencyHeader), request_body = Option<MintToken>,
    responses((status = 201, description = "The token", body = Token)))]
async fn mint_token(
    State(state): State<Shared>,
    Caller(actor): Caller,
    In(path): In<UserPath>,
    idempotency: Idempotency,
    Perhaps(body): Perhaps<MintToken>,
) -> Result<Response> {
    let services = &state.services;
    idempotency
        .once(services, &body.clone(), async |_| {
            Ok(Answer::created(
                services.mint_token(&actor, &path.user, body).await?,
            ))
        })
        .await
}

/// End a user's sessions
///
/// With `revoke`, its tokens of until now are refused, too.
#[utoipa::path(post, path = "/v1/users/{user}/disconnect", tag = "users", security(("app_key" = [])),
    params(UserPath, IdempotencyHeader), request_body = Option<Disconnect>,
    responses((status = 200, description = "How many sessions end", body = Disconnected)))]
async fn disconnect(
    State(state): State<Shared>,
    Caller(actor): Caller,
    In(path): In<UserPath>,
    idempotency: Idempotency,
    Perhaps(body): Perhaps<Disconnect>,
) -> Result<Response> {
    let services = &state.services;
    idempotency
        .once(services, &body.clone(), async |_| {
            Ok(Answer::ok(
                services.disconnect_user(&actor, &path.user, body).await?,
            ))
        })
        .await
}

/// List a user's channels
#[utoipa::path(get, path = "/v1/users/{user}/channels", tag = "users", security(("app_key" = []), ("user_token" = [])),
    params(UserPath, ListPage), responses((status = 200, description = "A page, last active first", body = EntryList)))]
async fn channels(
    State(state): State<Shared>,
    Caller(actor): Caller,
    In(path): In<UserPath>,
    Asked(page): Asked<ListPage>,
) -> Result<Answer<EntryList>> {
    Ok(Answer::ok(
        state
            .services
            .list_entries(&actor, &path.user, page.cursor, page.limit)
            .await?,
    ))
}

/// Count a user's unread messages
#[utoipa::path(get, path = "/v1/users/{user}/unread", tag = "users", security(("app_key" = []), ("user_token" = [])),
    params(UserPath), responses((status = 200, description = "The sum, and each channel that has any", body = Unread)))]
async fn unread(
    State(state): State<Shared>,
    Caller(actor): Caller,
    In(path): In<UserPath>,
) -> Result<Answer<Unread>> {
    Ok(Answer::ok(state.services.unread(&actor, &path.user).await?))
}
