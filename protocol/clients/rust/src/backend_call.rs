//! Calls of declared operations over HTTP.

use std::borrow::Borrow;

use hyper::{Method, StatusCode};
use protocol::operation::{Body, Http, HttpMethod, Operation, path_field};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::{Backend, BackendError, segment};

impl Backend {
    /// Calls an operation.
    ///
    /// The path consists of the ids of the operation's target, for example `(&channel_id,
    /// &message_id)`. Pass `()` for a path or an input without fields.
    ///
    /// ```no_run
    /// # use client::{Backend, BackendError};
    /// # use protocol::{UserId, operation::user::{MintToken, UserMintToken, UserRead}};
    /// # async fn example(backend: Backend, user_id: UserId) -> Result<(), BackendError> {
    /// let user = backend.call::<UserRead>(&user_id, ()).await?;
    /// let token = backend.call::<UserMintToken>(&user_id, MintToken::default()).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn call<O: Operation>(
        &self,
        path: impl Into<O::Path>,
        input: impl Borrow<O::Input>,
    ) -> Result<O::Output, BackendError> {
        let http = const {
            match O::HTTP {
                Some(http) => http,
                None => panic!("the operation has no HTTP route"),
            }
        };
        let mut target = route(http, &fields(&path.into())?);
        if http.body == Body::None {
            target.push_str(&query(&fields(input.borrow())?));
        }
        let mut request = self.request(method(http.method), &target);
        if http.body != Body::None {
            request = request.json(input.borrow());
        }
        let answer = request.send().await?;
        if answer.status == StatusCode::NO_CONTENT {
            let unreadable = |e: serde_json::Error| BackendError::Unreadable {
                status: answer.status.as_u16(),
                reason: e.to_string(),
            };
            return serde_json::from_str("{}").map_err(unreadable);
        }
        answer.json()
    }
}

fn method(method: HttpMethod) -> Method {
    match method {
        HttpMethod::Get => Method::GET,
        HttpMethod::Post => Method::POST,
        HttpMethod::Put => Method::PUT,
        HttpMethod::Patch => Method::PATCH,
        HttpMethod::Delete => Method::DELETE,
    }
}

fn fields(parameters: &impl Serialize) -> Result<Map<String, Value>, BackendError> {
    match serde_json::to_value(parameters) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(other) => Err(BackendError::Request(format!(
            "parameters must be a map, not {other}"
        ))),
        Err(error) => Err(BackendError::Request(error.to_string())),
    }
}

/// Returns the route's path with these ids in place of its placeholders.
fn route(http: Http, ids: &Map<String, Value>) -> String {
    let mut path = String::new();
    for (index, part) in http.path.split(['{', '}']).enumerate() {
        if index % 2 == 0 {
            path.push_str(part);
        } else {
            path.push_str(&segment(&text(&ids[&path_field(part)])));
        }
    }
    path
}

fn query(fields: &Map<String, Value>) -> String {
    let mut query = String::new();
    for (name, value) in fields {
        query.push(if query.is_empty() { '?' } else { '&' });
        query.push_str(&format!("{name}={}", segment(&text(value))));
    }
    query
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
