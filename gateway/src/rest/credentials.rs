//! `Authorization: Bearer`: authentication, rate limits and charges of HTTP requests.

use std::sync::{Arc, OnceLock};

use axum::{
    extract::{FromRequestParts, Request, State},
    http::{header, request::Parts},
    middleware::Next,
    response::Response,
};
use domain::{
    clock::Clock,
    credential::{Actor, Principal, Who},
    error::{Error, Result},
    schema::Scope,
};
use protocol::{KeyId, Limits, UserId};
use store::cost::{self, Meter};
use tracing::Span;

use super::{Shared, address::client_of, error_response::ErrorResponse};
use crate::limit::{Keyed, Rate};

/// The principal of a valid credential of any kind.
#[derive(Debug, Clone)]
pub(super) struct Bearer(pub(super) Principal);

/// The rate limits of HTTP callers.
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
            // A handler may extract the credential twice; the caller is the same.
            payer.get_or_init(|| principal.clone());
        }
        parts.extensions.insert(principal.clone());
        Ok(Self(principal))
    }
}

/// Returns the credential after `Bearer`, if there is exactly one such header.
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

/// The caller of a request, set when its credential was accepted. The request is charged to it.
#[derive(Debug, Clone, Default)]
struct Payer(Arc<OnceLock<Principal>>);

/// Measures a request, and charges its caller for the cost beyond its first token.
pub(super) async fn charge(
    State(state): State<Shared>,
    mut request: Request,
    next: Next,
) -> Response {
    let (payer, meter) = (Payer::default(), Arc::new(Meter::default()));
    request.extensions_mut().insert(payer.clone());
    let (gates, clock) = (&state.gates, &state.services.clock);
    Bill::new(gates, clock, payer, meter)
        .pays_for(next.run(request))
        .await
}

/// Charges a request when it is dropped, even if the client disconnects before the answer.
struct Bill<'a> {
    gates: &'a Gates,
    clock: &'a Clock,
    payer: Payer,
    meter: Arc<Meter>,
}

impl<'a> Bill<'a> {
    fn new(gates: &'a Gates, clock: &'a Clock, payer: Payer, meter: Arc<Meter>) -> Self {
        Self {
            gates,
            clock,
            payer,
            meter,
        }
    }

    async fn pays_for<F: Future>(self, request: F) -> F::Output {
        self.meter.measure(request).await
    }
}

impl Drop for Bill<'_> {
    fn drop(&mut self) {
        let Some(principal) = self.payer.0.get() else {
            return;
        };
        let (tokens, now) = (self.meter.surcharge(), self.clock.elapsed());
        if let Some(key) = key_of(principal) {
            self.gates.keys.charge(key.clone(), tokens, now);
        }
        if let Principal::Actor(actor) = principal {
            if let Some(user) = actor.user() {
                let key = (actor.scope.clone(), user.clone());
                self.gates.users.charge(key, tokens, now);
            }
            self.gates.apps.charge(actor.scope.clone(), tokens, now);
        }
    }
}

/// Returns the key of a caller, if that has its own bucket.
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

/// Takes a token for a request, or fails with `rate_limited`.
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

/// Records the kind of principal and the app in the request's span, never the credential.
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn request_whose_client_hangs_up_is_charged() {
        let limits = Limits::default();
        let rate = Rate::per_second(limits.app_requests_per_second);
        let users = Arc::new(Keyed::new(Rate::per_second(1)));
        let gates = Gates::new(&limits, Arc::new(Keyed::new(rate)), Arc::clone(&users));
        let clock = Clock::system();
        let (payer, meter) = (Payer::default(), Arc::new(Meter::default()));
        let scope = Scope {
            app: protocol::AppId::from_bits(1),
            environment: protocol::entity::Environment::Live,
        };
        let (user, now) = ("alice".parse::<UserId>().unwrap(), clock.elapsed());
        let who = Who::User {
            id: user.clone(),
            token_key: protocol::TokenKeyId::from_bits(1),
            issued_at: 0,
            expires_at: 0,
        };
        let actor = Actor {
            scope: scope.clone(),
            who,
        };
        payer.0.set(Principal::Actor(actor)).unwrap();
        let request = async {
            cost::count_partitions(1000);
            std::future::pending::<()>().await;
        };
        let served = Bill::new(&gates, &clock, payer, meter).pays_for(request);
        tokio::time::timeout(Duration::ZERO, served)
            .await
            .unwrap_err();
        users.peek(&(scope, user), now).unwrap_err();
    }
}
