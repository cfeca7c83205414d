//! Answers in a comparable form: without the ids of the request, and without values that
//! differ between any two answers.

use client::{Events, HttpAnswer};
use parking_lot::Mutex;
use serde_json::Value;
use std::sync::Arc;

/// Removes the requested id, timestamps, counters and generated values from an
/// answer.
pub(super) fn plain(text: &str, named: &[String]) -> String {
    let mut text = text.to_owned();
    for id in named {
        text = text.replace(id.as_str(), "<named>");
    }
    match serde_json::from_str::<Value>(&text) {
        Ok(mut value) => {
            smooth("", &mut value);
            value.to_string()
        }
        Err(_) => text,
    }
}

/// Returns status, presence of an `ETag`, and the body.
pub(super) fn of_http(answer: &HttpAnswer, named: &[String]) -> String {
    let body = plain(&String::from_utf8_lossy(&answer.body), named);
    let headers = [
        "etag",
        "retry-after",
        "www-authenticate",
        "allow",
        "location",
    ]
    .map(|name| (name, answer.headers.contains_key(name)));
    format!("{} {headers:?} {body}", answer.status)
}

fn smooth(key: &str, value: &mut Value) {
    match value {
        Value::Object(fields) => fields
            .iter_mut()
            .for_each(|(key, value)| smooth(key, value)),
        Value::Array(items) => items.iter_mut().for_each(|value| smooth(key, value)),
        Value::Number(number) => {
            let is_instant = number
                .as_u64()
                .is_some_and(|number| number > 1_000_000_000_000);
            if is_instant || matches!(key, "seq" | "number" | "at" | "read") {
                *value = "<number>".into();
            }
        }
        Value::String(text) => {
            let is_made = |text: &str| {
                text.split_once('_').is_some_and(|(head, tail)| {
                    head.len() <= 4
                        && tail.len() == 16
                        && tail.bytes().all(|byte| byte.is_ascii_hexdigit())
                })
            };
            if is_made(text) || matches!(key, "secret" | "token" | "cursor") {
                *value = "<made>".into();
            }
        }
        _ => {}
    }
}

/// All events of a session.
pub(super) struct Ear {
    heard: Arc<Mutex<Vec<Value>>>,
}

impl Ear {
    pub(super) fn of(mut events: Events) -> Self {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let all = heard.clone();
        tokio::spawn(async move {
            while let Some(event) = events.next().await {
                all.lock().push(serde_json::to_value(event).unwrap());
            }
            all.lock().push(
                serde_json::json!({ "event": "closed", "data": events.closed().to_string() }),
            );
        });
        Self { heard }
    }

    /// Returns the events before the message with this text.
    pub(super) async fn until(&self, text: &str) -> Vec<Value> {
        let place = || {
            self.heard
                .lock()
                .iter()
                .position(|event| event["data"]["message"]["text"] == text)
        };
        crate::story::until(text, || async { place().is_some() }).await;
        let end = place().unwrap();
        self.heard.lock()[..end].to_vec()
    }
}
