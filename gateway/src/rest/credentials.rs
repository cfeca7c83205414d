//! `Authorization: Bearer`: who asks, and how often it may.

use std::{net::IpAddr, sync::Arc};

use axum::{
    extract::FromRequestParts,
    http::{header, request::Parts},
};
use protocol::{ErrorCode, KeyId, Limits, UserId};
use tracing::Span;

use super::{Shared, address::client_of};
use crate::{
    auth::{Actor, Principal, Who},
    error::{Error, Result},
    limit::{Keyed, Rate},
    service::scope::Scope,
};

/// Whom a valid credential stands for, whatever kind it is.
#[derive(Debug, Clone)]
pub(super) struct Bearer(pub(super) Principal);

/// An app's backend or a user. Another kind of credential is `forbidden`.
#[derive(Debug, Clone)]
pub(super) struct Caller(pub(super) Actor);

/// The buckets of whoever asks over HTTP.
#[derive(Debug)]
pub(super) struct Gates {
    keys: Keyed<KeyId>,
    users: Keyed<(Scope, UserId)>,
    apps: Arc<Keyed<Scope>>,
    addresses: Arc<Keyed<IpAddr>>,
}

impl Gates {
    pub(super) fn new(
        limits: &Limits,
        apps: Arc<Keyed<Scope>>,
        addresses: Arc<Keyed<IpAddr>>,
    ) -> Self {
        let keys = Keyed::new(Rate::per_second(limits.key_requests_per_second));
        let users = Keyed::new(Rate::per_second(limits.requests_per_second));
        Self {
            keys,
            users,
            apps,
            addresses,
        }
    }
}

impl FromRequestParts<Shared> for Bearer {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &Shared) -> Result<Self> {
        let principal = match authenticate(parts, state).await {
            Ok(principal) => principal,
            Err(error) if error.code() == ErrorCode::Unauthenticated => {
                let taken = state.gates.addresses.take(
                    client_of(parts, &state.proxies),
                    state.services.clock.elapsed(),
                );
                return Err(taken.map_or_else(
                    |wait| limited(state, "unauthenticated_per_ip", wait),
                    |()| error,
                ));
            }
            Err(error) => return Err(error),
        };
        note(&principal);
        admit(&principal, state)?;
        parts.extensions.insert(principal.clone());
        Ok(Self(principal))
    }
}

impl FromRequestParts<Shared> for Caller {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &Shared) -> Result<Self> {
        let Bearer(principal) = Bearer::from_request_parts(parts, state).await?;
        principal.actor().cloned().map(Self)
    }
}

async fn authenticate(parts: &Parts, state: &Shared) -> Result<Principal> {
    let missing =
        || Error::unauthenticated("send `Authorization: Bearer` with a key or a user token");
    let mut headers = parts.headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (headers.next(), headers.next()) else {
        return Err(missing());
    };
    let (scheme, credential) = value
        .to_str()
        .ok()
        .and_then(|value| value.split_once(' '))
        .ok_or_else(missing)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(missing());
    }
    state.authenticator.authenticate(credential.trim()).await
}

/// That the caller does not ask too often.
fn admit(principal: &Principal, state: &Shared) -> Result<()> {
    let (gates, now) = (&state.gates, state.services.clock.elapsed());
    let key = match principal {
        Principal::Admin => return Ok(()),
        Principal::Organization { key, .. }
        | Principal::Actor(Actor {
            who: Who::App { key },
            ..
        }) => Some(key),
        Principal::Actor(_) => None,
    };
    if let Some(key) = key {
        gates
            .keys
            .take(key.clone(), now)
            .map_err(|wait| limited(state, "key_requests_per_second", wait))?;
    }
    if let Principal::Actor(actor) = principal {
        if let Some(user) = actor.user() {
            let taken = gates.users.take((actor.scope.clone(), user.clone()), now);
            taken.map_err(|wait| limited(state, "requests_per_second", wait))?;
        }
        gates
            .apps
            .take(actor.scope.clone(), now)
            .map_err(|wait| limited(state, "app_requests_per_second", wait))?;
    }
    Ok(())
}

fn limited(state: &Shared, limit: &'static str, wait: u64) -> Error {
    state.metrics.limit_hit(limit);
    Error::rate_limited(limit, wait)
}

/// Notes in the request's span who asks: the kind and the app, never the credential.
fn note(principal: &Principal) {
    let span = Span::current();
    match principal {
        Principal::Admin => span.record("principal", "admin"),
        Principal::Organization { id, .. } => span
            .record("principal", "organization")
            .record("organization", id.as_str()),
        Principal::Actor(actor) => {
            let kind = if actor.user().is_some() {
                "user"
            } else {
                "app"
            };
            span.record("principal", kind)
                .record("app", actor.scope.app.as_str())
                .record("environment", actor.scope.environment.as_str())
        }
    };
}
