//! `Idempotency-Key`: a repeated `POST` takes effect once.

use axum::{
    extract::FromRequestParts,
    http::{HeaderName, StatusCode, request::Parts},
    response::{IntoResponse, Response},
};
use domain::{
    Services,
    credential::Principal,
    error::{Error, Result},
    idempotency::{self, Answer as Kept, Begun, Once},
    random,
    strict::misfit,
};
use serde::Serialize;
use serde_json::Value;

use super::{Shared, answer::JsonResponse, error_response::ErrorResponse};

pub(super) const HEADER: HeaderName = HeaderName::from_static("idempotency-key");
/// Maximum length of a key, in bytes.
const LONGEST: usize = 255;

/// The request's key, if it has one. Extract it after [`Bearer`](super::credentials::Bearer) or
/// `Caller`.
#[derive(Debug)]
pub(super) struct Idempotency(Option<Keyed>);

#[derive(Debug)]
struct Keyed {
    principal: Principal,
    /// Method and path of the request.
    route: String,
    key: String,
}

impl FromRequestParts<Shared> for Idempotency {
    type Rejection = ErrorResponse;

    async fn from_request_parts(parts: &mut Parts, _: &Shared) -> Result<Self, ErrorResponse> {
        let Some(value) = parts.headers.get(&HEADER) else {
            return Ok(Self(None));
        };
        let key = value.as_bytes();
        if key.is_empty()
            || key.len() > LONGEST
            || !key.iter().all(|byte| (b' '..=b'~').contains(byte))
        {
            return Err(misfit(
                "header",
                Some("Idempotency-Key"),
                &"it has 1 to 255 printable ASCII characters",
            )
            .into());
        }
        let principal = parts.extensions.get::<Principal>().cloned();
        let principal = principal
            .ok_or_else(|| Error::internal("an idempotency key was read before the credential"))?;
        let route = format!("{} {}", parts.method, parts.uri.path());
        Ok(Self(Some(Keyed {
            principal,
            route,
            key: String::from_utf8_lossy(key).into_owned(),
        })))
    }
}

/// How an operation handles repeats.
#[derive(Debug, Clone, Copy)]
pub(super) struct Handling {
    /// Whether it frees space. Then it runs without a claim if the store is full, since running it
    /// twice has the same effect.
    pub(super) frees: bool,
    /// Whether a repeat runs again with the same ids. Then the first answer is not stored.
    pub(super) repeats_anew: bool,
}

/// How to run a request, with the random bits for the ids that it creates.
#[derive(Debug, Clone, Copy)]
pub(super) enum IdempotencyTurn {
    /// The first run.
    First(u64),
    /// A repeat of a request that has run before.
    Repeat(u64),
}

impl Idempotency {
    /// Runs a request, or returns the stored answer of its first run.
    pub(super) async fn once<B, T>(
        self,
        services: &Services,
        handling: Handling,
        body: &B,
        act: impl AsyncFnOnce(IdempotencyTurn) -> Result<JsonResponse<T>>,
    ) -> Result<Response>
    where
        B: Serialize,
        T: Serialize,
    {
        let Some(Keyed {
            principal,
            route,
            key,
        }) = self.0
        else {
            return act(IdempotencyTurn::First(random::bits()))
                .await
                .map(JsonResponse::into_response);
        };
        let asked = serde_json::to_vec(body).map_err(Error::internal)?;
        let once = match idempotency::begin_once(services, &principal, &route, &key, &asked).await?
        {
            Begun::First(once) | Begun::Again(once) => once,
            Begun::Answer { bits, answer } => {
                let Kept { status, etag, body } = answer;
                let status = StatusCode::from_u16(status).map_err(Error::internal)?;
                return Ok(match handling.repeats_anew {
                    true => act(IdempotencyTurn::Repeat(bits))
                        .await?
                        .with_status(status)
                        .into_response(),
                    false => JsonResponse {
                        status,
                        etag,
                        value: body,
                    }
                    .into_response(),
                });
            }
            Begun::Full(_) if handling.frees => {
                return act(IdempotencyTurn::First(random::bits()))
                    .await
                    .map(JsonResponse::into_response);
            }
            Begun::Full(error) => return Err(error),
            Begun::Mismatch => {
                return Err(Error::conflict(
                    "this Idempotency-Key was used with another body",
                ));
            }
        };
        let mut claim = Claim {
            services,
            once: Some(once.clone()),
            was_refused: false,
        };
        let answer = match act(IdempotencyTurn::First(once.bits)).await {
            Ok(answer) => answer,
            Err(error) => {
                claim.was_refused = error.code().status() < 500;
                return Err(error);
            }
        };
        claim.once = None;
        let kept = match handling.repeats_anew {
            true => Kept {
                status: answer.status.as_u16(),
                etag: None,
                body: Value::Null,
            },
            false => Kept {
                status: answer.status.as_u16(),
                etag: answer.etag.clone(),
                body: serde_json::to_value(&answer.value).map_err(Error::internal)?,
            },
        };
        // If the answer cannot be stored, a repeat runs again with the same bits.
        if let Err(error) = idempotency::finish_once(services, once, kept).await {
            tracing::warn!(%error, "the answer to a request with an idempotency key was not kept");
        }
        Ok(answer.into_response())
    }
}

/// The claim of a running request. Dropping it removes the claim if the request was refused, and
/// releases it if the request failed or its client disconnected.
struct Claim<'a> {
    services: &'a Services,
    once: Option<Once>,
    /// Whether the request had no effect, so that its claim is removed.
    was_refused: bool,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let (services, Some(once)) = (self.services.clone(), self.once.take()) else {
            return;
        };
        let was_refused = self.was_refused;
        tokio::spawn(async move {
            let released = if was_refused {
                idempotency::forget_once(&services, once).await
            } else {
                idempotency::release_once(&services, once).await
            };
            if let Err(error) = released {
                tracing::warn!(%error, "a request with an idempotency key was not released, its repeats wait until its claim ends");
            }
        });
    }
}
