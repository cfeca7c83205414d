//! `Idempotency-Key`: a `POST` that is sent again is done once.

use axum::{
    Json,
    extract::FromRequestParts,
    http::{HeaderName, StatusCode, request::Parts},
    response::{IntoResponse, Response},
};
use protocol::results::ErrorAnswer;
use serde::Serialize;
use serde_json::Value;

use super::{Shared, answer::Answer, extract::misfit};
use crate::{
    auth::Principal,
    error::{Error, Result},
    service::{
        Services,
        idempotency::{Begun, Once},
        random,
    },
};

const HEADER: HeaderName = HeaderName::from_static("idempotency-key");
/// The longest key, in bytes.
const LONGEST: usize = 255;

/// The request's key, if it has one. Stands after [`Bearer`](super::credentials::Bearer) or `Caller` among a handler's arguments.
#[derive(Debug)]
pub(super) struct Idempotency(Option<Keyed>);

#[derive(Debug)]
struct Keyed {
    principal: Principal,
    /// Method and path as asked.
    route: String,
    key: String,
}

/// `Idempotency-Key`, for the document.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "it only describes; `Idempotency` reads")]
pub(super) struct IdempotencyHeader {
    /// The same request with the same key, within 24 hours, is answered as the first one was, without secrets that are shown once.
    #[param(
        rename = "Idempotency-Key",
        min_length = 1,
        max_length = 255,
        pattern = "^[!-~]+$"
    )]
    idempotency_key: Option<String>,
}

impl FromRequestParts<Shared> for Idempotency {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &Shared) -> Result<Self> {
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
                "it has 1 to 255 printable ASCII characters",
            ));
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

impl Idempotency {
    /// Does what the request asks, with the bits for the ids that it makes; or answers what it did before.
    pub(super) async fn once<B, T>(
        self,
        services: &Services,
        body: &B,
        act: impl AsyncFnOnce(u64) -> Result<Answer<T>>,
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
            return act(random::bits()).await.map(Answer::into_response);
        };
        let asked = serde_json::to_vec(body).map_err(Error::internal)?;
        let once = match services
            .begin_once(&principal, &route, &key, &asked)
            .await?
        {
            Begun::First(once) | Begun::Again(once) => once,
            Begun::Answer { status, body } => return again(status, body),
            Begun::Mismatch => {
                return Err(Error::conflict(
                    "this Idempotency-Key was used with another body",
                ));
            }
        };
        match act(once.bits).await {
            Ok(answer) => {
                let body = serde_json::to_value(&answer.value).map_err(Error::internal)?;
                keep(services, once, answer.status.as_u16(), &body).await;
                Ok(answer.into_response())
            }
            Err(error) => {
                let body = serde_json::to_value(ErrorAnswer {
                    error: error.body.clone(),
                })
                .map_err(Error::internal)?;
                keep(services, once, error.code().status(), &body).await;
                Err(error)
            }
        }
    }
}

/// What was done is done: where the answer cannot be kept, a repeat does it with the same bits.
async fn keep(services: &Services, once: Once, status: u16, body: &Value) {
    if let Err(error) = services.finish_once(once, status, body).await {
        tracing::warn!(%error, "the answer to a request with an idempotency key was not kept");
    }
}

fn again(status: u16, body: Value) -> Result<Response> {
    let status = StatusCode::from_u16(status).map_err(Error::internal)?;
    if status.is_success() {
        return Ok((status, Json(body)).into_response());
    }
    let ErrorAnswer { error } = serde_json::from_value(body).map_err(Error::internal)?;
    Err(Error {
        body: error,
        cause: None,
    })
}
