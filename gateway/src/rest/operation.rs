//! Every declared operation as an HTTP route: one handler for all of them.

use axum::{
    Router,
    body::Body as RawBody,
    extract::{FromRequestParts, RawPathParams, Request, State},
    http::{StatusCode, request::Parts},
    response::{IntoResponse, Response},
    routing::{MethodFilter, MethodRouter, on},
};
use domain::{
    credential::Principal,
    error::{Error, Result},
    perform::{Call, Done, Perform, Tag},
    random,
};
use protocol::operation::{
    Body, Conditions, Http, HttpMethod, Operation, empty::Empty, path_field,
};
use serde::de::{DeserializeOwned, value::MapDeserializer};
use store::cost;

use super::{
    Shared,
    answer::JsonResponse,
    conditions::{Insists, Known},
    credentials::Bearer,
    error_response::ErrorResponse,
    extract::{self, QueryParams, no_room},
    held_body::hold,
    idempotency::{Handling, Idempotency, IdempotencyTurn},
};
use crate::limit::{NoRoom, Share, request_bytes};

/// Adds the route of an operation, if it has one.
pub(super) fn route<O: Perform>(router: Router<Shared>) -> Router<Shared> {
    let Some(http) = O::HTTP else { return router };
    let handler: MethodRouter<Shared> = on(
        filter(http.method),
        async move |State(state): State<Shared>, request: Request| {
            handle::<O>(&state, http, request)
                .await
                .map_err(ErrorResponse)
        },
    );
    let router = router.route(http.path, handler.clone());
    match http.path.strip_suffix("{user}") {
        // A user may have the id `batch`: methods that the batch itself does not take are about
        // that user.
        Some(parent) if http.method != HttpMethod::Post => {
            router.route(&format!("{parent}batch"), handler)
        }
        _ => router,
    }
}

fn filter(method: HttpMethod) -> MethodFilter {
    match method {
        HttpMethod::Get => MethodFilter::GET,
        HttpMethod::Post => MethodFilter::POST,
        HttpMethod::Put => MethodFilter::PUT,
        HttpMethod::Patch => MethodFilter::PATCH,
        HttpMethod::Delete => MethodFilter::DELETE,
    }
}

async fn handle<O: Perform>(state: &Shared, http: Http, request: Request) -> Result<Response> {
    let (mut parts, body) = request.into_parts();
    let Bearer(caller) = Bearer::from_request_parts(&mut parts, state).await?;
    caller.reaches::<O>()?;
    let path = path::<O>(&mut parts).await?;
    let if_match = match http.conditions {
        Conditions::Write => Insists::from_request_parts(&mut parts, state).await?.0,
        Conditions::None | Conditions::Read => None,
    };
    let known = match http.conditions {
        Conditions::Read => Known::from_request_parts(&mut parts, state)
            .await
            .unwrap_or_else(|never| match never {}),
        Conditions::None | Conditions::Write => Known::default(),
    };
    let idempotency = match http.method {
        HttpMethod::Post => Some(Idempotency::from_request_parts(&mut parts, state).await?),
        _ => None,
    };
    let mut share = state.requests.share(tenant(&caller));
    let input = input::<O::Input>(state, http, parts, body, &mut share).await?;
    let mut reply_share = share.another();
    reply_share
        .resize(request_bytes::of_reply::<O>())
        .map_err(|NoRoom| no_room(state))?;
    let services = &state.services;
    let call = |input, seed| Call::<O> {
        caller,
        path,
        input,
        if_match,
        seed,
    };
    let response = match idempotency {
        Some(idempotency) => {
            let (asked, handling) = (
                input.clone(),
                Handling {
                    frees: O::FREES,
                    repeats_anew: O::REPEATS_ANEW,
                },
            );
            let act = async |turn| {
                Ok(match turn {
                    IdempotencyTurn::First(seed) => {
                        answer(http, O::perform(services, call(input, seed)).await?)
                    }
                    IdempotencyTurn::Repeat(seed) => {
                        answer(http, O::repeat(services, call(input, seed)).await?)
                    }
                })
            };
            idempotency.once(services, handling, &asked, act).await
        }
        None => {
            let answer = answer(
                http,
                O::perform(services, call(input, random::bits())).await?,
            );
            if answer.status == StatusCode::NO_CONTENT {
                Ok(answer.status.into_response())
            } else {
                Ok(answer.unless(&known))
            }
        }
    }?;
    drop(share);
    Ok(hold(response, reply_share))
}

/// Returns the caller's group, for resources that tenants share.
fn tenant(caller: &Principal) -> u64 {
    match caller {
        Principal::Admin => cost::hash(&"admin"),
        Principal::Organization { id, .. } => cost::hash(id),
        Principal::Actor(actor) => cost::hash(&actor.scope.app),
    }
}

/// Reads the ids in the path. One that cannot be an id answers like one that nobody has.
async fn path<O: Operation>(parts: &mut Parts) -> Result<O::Path> {
    let raw = RawPathParams::from_request_parts(parts, &())
        .await
        .map_err(|_| Error::not_found("path"))?;
    let mut ids: Vec<(String, String)> = raw
        .iter()
        .map(|(name, value)| (path_field(name), value.to_owned()))
        .collect();
    if parts.uri.path().ends_with("/batch")
        && O::HTTP.is_some_and(|http| http.path.ends_with("{user}"))
        && !has_user(&ids)
    {
        ids.push(("user_id".to_owned(), "batch".to_owned()));
    }
    let ids = MapDeserializer::<_, serde::de::value::Error>::new(ids.into_iter());
    serde_path_to_error::deserialize(ids).map_err(|error| {
        let field = error.path().to_string();
        Error::not_found(match field.trim_end_matches("_id") {
            kind @ ("organization" | "app" | "key" | "user" | "channel" | "message") => kind,
            _ => "path",
        })
    })
}

fn has_user(ids: &[(String, String)]) -> bool {
    ids.iter().any(|(name, _)| name == "user_id")
}

async fn input<T: DeserializeOwned + Send>(
    state: &Shared,
    http: Http,
    mut parts: Parts,
    body: RawBody,
    share: &mut Share,
) -> Result<T> {
    if http.body != Body::None {
        // Parameters of these operations are in the body.
        QueryParams::<Empty>::from_request_parts(&mut parts, state).await?;
    }
    match http.body {
        Body::None => Ok(QueryParams::<T>::from_request_parts(&mut parts, state)
            .await?
            .0),
        Body::Required => extract::body(Request::from_parts(parts, body), state, share).await,
        Body::Optional => {
            extract::optional_body(Request::from_parts(parts, body), state, share).await
        }
    }
}

/// Returns the response to a success: 201 if the operation created an entity in this request.
fn answer<T>(http: Http, done: Done<T>) -> JsonResponse<T> {
    let statuses = || http.success.iter().map(|(status, _)| *status);
    let usual = statuses().next().unwrap_or(200);
    let status = statuses()
        .find(|status| (*status == 201) == done.is_new)
        .unwrap_or(usual);
    let answer = JsonResponse {
        status: StatusCode::from_u16(status).unwrap_or(StatusCode::OK),
        etag: None,
        value: done.value,
    };
    match done.tag {
        Some(Tag { version, count }) => answer.tagged(version, count),
        None => answer,
    }
}
