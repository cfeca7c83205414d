//! `Authorization: Bearer`: who asks, and how often it may.

use std::sync::{Arc, OnceLock};

use axum::{
    extract::{FromRequestParts, Request, State},
    http::{header, request::Parts},
    middleware::Next,
    response::Response,
};
use domain::{
    credential::{Actor, Principal, Who},
    error::{Error, Result},
    schema::Scope,
};
use protocol::{KeyId, Limits, UserId};
use store::cost::{self, Meter};
use tracing::Span;

use super::{Shared, address::client_of, error_response::ErrorResponse};
use crate::limit::{Keyed, Rate};

/// Whom a valid credential stands for, whatever kind it is.
#[derive(Debug, Clone)]
pub(super) struct Bearer(pub(super) Principal);

/// The buckets of whoever asks over HTTP.
#[derive(Debug)]
pub(super) struct Gates {
    keys: Keyed<KeyId>,
    users: Arc<Keyed<(Scope, UserId)>>,
    apps: Arc<Keyed<Scope>>,
}

impl Gates {
    pub(super) fn new(
        limits: &Limits,
        apps: Arc<Keyed<Scope>>,
        users: Arc<Keyed<(Scope, UserId)>>,
    ) -> Self {
        let keys = Keyed::new(Rate::per_second(limits.key_requests_per_second));
        Self { keys, users, apps }
    }
}

impl FromRequestParts<Shared> for Bearer {
    type Rejection = ErrorResponse;

    async fn from_request_parts(parts: &mut Parts, state: &Shared) -> Result<Self, ErrorResponse> {
        let mut attempt = state.attempts.begin(client_of(parts, &state.proxies));
        let principal = match credential(parts) {
            Some(credential) => {
                state
                    .authenticator
                    .authenticate_attempt(credential, &mut attempt)
                    .await?
            }
            None => {
                attempt.charge()?;
                return Err(Error::unauthenticated(
                    "send `Authorization: Bearer` with a key or a user token",
                )
                .into());
            }
        };
        note(&principal);
        if let Principal::Actor(actor) = &principal {
            match &actor.who {
                Who::App { key } => cost::set_payer(&actor.scope, key),
                Who::User { id, .. } => cost::set_payer(&actor.scope, id),
            }
        }
        admit(&principal, state)?;
        if let Some(Payer(payer)) = parts.extensions.get() {
            // A handler that asks for the credential twice has the same caller.
            payer.get_or_init(|| principal.clone());
        }
        parts.extensions.insert(principal.clone());
        Ok(Self(principal))
    }
}

/// What follows `Bearer`, if there is exactly one such header.
fn credential(parts: &Parts) -> Option<&str> {
    let mut headers = parts.headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (headers.next(), headers.next()) else {
        return None;
    };
    let (scheme, credential) = value.to_str().ok()?.split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("bearer")
        .then(|| credential.trim())
}

/// The caller of a request, once its credential was accepted: the one who pays for it.
#[derive(Debug, Clone, Default)]
struct Payer(Arc<OnceLock<Principal>>);

/// Measures a request, and charges its caller for what it cost beyond its own token.
pub(super) async fn charge(
    State(state): State<Shared>,
    mut request: Request,
    next: Next,
) -> Response {
    let (payer, meter) = (Payer::default(), Arc::new(Meter::default()));
    request.extensions_mut().insert(payer.clone());
    let response = meter.measure(next.run(request)).await;
    if let Some(principal) = payer.0.get() {
        let (gates, tokens, now) = (
            &state.gates,
            meter.surcharge(),
            state.services.clock.elapsed(),
        );
        if let Some(key) = key_of(principal) {
            gates.keys.charge(key.clone(), tokens, now);
        }
        if let Principal::Actor(actor) = principal {
            if let Some(user) = actor.user() {
                gates
                    .users
                    .charge((actor.scope.clone(), user.clone()), tokens, now);
            }
            gates.apps.charge(actor.scope.clone(), tokens, now);
        }
    }
    response
}

/// The key by which a caller asks, if it has a bucket of its own.
fn key_of(principal: &Principal) -> Option<&KeyId> {
    match principal {
        Principal::Organization { key, .. }
        | Principal::Actor(Actor {
            who: Who::App { key },
            ..
        }) => Some(key),
        Principal::Admin | Principal::Actor(_) => None,
    }
}

/// That the caller does not ask too often.
fn admit(principal: &Principal, state: &Shared) -> Result<()> {
    let (gates, now) = (&state.gates, state.services.clock.elapsed());
    if let Some(key) = key_of(principal) {
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
