//! The HTTP routes as the served document tells them, each with the places in which it names something.
//!
//! What the document has and this table does not know ends the test: a new route, parameter or field is told here what it names.

use hyper::Method;
use serde_json::{Value, json};

use crate::methods::Kind;

/// What stands in a place.
enum Place {
    /// An id.
    Names(Kind),
    /// Nothing that belongs to anybody.
    Free,
}
use Place::{Free, Names};

/// A route, with one of the bodies that it takes.
pub(super) struct Route<'a> {
    pub(super) method: Method,
    pub(super) path: &'a str,
    operation: &'a Value,
    document: &'a Value,
    /// The `type` of the body, where it has one.
    variant: Option<&'static str>,
}

/// A request that can be made.
pub(super) struct Request {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) body: Option<Value>,
}

/// Gives the id for a place, by the place's name and whether it must be filled; none leaves it out.
pub(super) type Choose<'a> = &'a mut dyn FnMut(&str, Kind, bool) -> Option<String>;

/// All routes of the document.
pub(super) fn routes(document: &Value) -> Vec<Route<'_>> {
    let mut routes = Vec::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
            let route = |variant| Route {
                method: method.clone(),
                path,
                operation,
                document,
                variant,
            };
            if body_schema(operation) == Some("CreateChannel") {
                routes.extend(
                    ["direct", "group", "open", "broadcast"].map(|variant| route(Some(variant))),
                );
            } else {
                routes.push(route(None));
            }
        }
    }
    routes
}

impl Route<'_> {
    /// Whether it takes an `Idempotency-Key`.
    pub(super) fn is_idempotent(&self) -> bool {
        self.parameters("header")
            .any(|name| name == "Idempotency-Key")
    }

    /// Whether what is named in a place comes to be by that.
    pub(super) fn makes(&self, place: &str) -> bool {
        let is_put = self.method == Method::PUT && self.path.ends_with(&format!("{{{place}}}"));
        is_put && place != "emoji" || ["body id", "body message_id"].contains(&place)
    }

    /// The request with these ids.
    pub(super) fn request(&self, choose: Choose<'_>) -> Request {
        let mut path = self.path.to_owned();
        for name in self.parameters("path") {
            let value = match path_place(name, self.path) {
                Names(kind) => choose(name, kind, true).expect("a path is whole"),
                Free => "x".to_owned(),
            };
            path = path.replace(&format!("{{{name}}}"), &client::segment(&value));
        }
        let mut query = Vec::new();
        for name in self.parameters("query") {
            if let Names(kind) = query_place(name)
                && let Some(value) = choose(&format!("query {name}"), kind, false)
            {
                query.push(format!("{name}={}", client::segment(&value)));
            }
        }
        if !query.is_empty() {
            path = format!("{path}?{}", query.join("&"));
        }
        for name in self.parameters("header") {
            assert!(
                ["If-Match", "If-None-Match", "Idempotency-Key"].contains(&name),
                "the wall does not know the header {name}"
            );
        }
        let body = body_schema(self.operation)
            .map(|name| self.body(name, &self.document["components"]["schemas"][name], choose));
        Request {
            method: self.method.clone(),
            path,
            body,
        }
    }

    fn parameters(&self, place: &'static str) -> impl Iterator<Item = &str> {
        let all = self.operation["parameters"]
            .as_array()
            .into_iter()
            .flatten();
        all.filter(move |parameter| parameter["in"] == place)
            .map(|parameter| parameter["name"].as_str().unwrap())
    }

    fn body(&self, schema: &str, described: &Value, choose: Choose<'_>) -> Value {
        let mut body = described["example"].clone();
        if !body.is_object() {
            body = json!({});
        }
        if let Some(variant) = self.variant {
            body["type"] = variant.into();
        }
        for (name, property) in described["properties"].as_object().unwrap() {
            if name == "items" {
                body["items"] = json!([self.body(
                    schema.strip_prefix("Batch_").unwrap(),
                    &property["items"],
                    choose
                )]);
                continue;
            }
            let Names(kind) = body_place(schema, name) else {
                continue;
            };
            let must = described["required"]
                .as_array()
                .is_some_and(|all| all.iter().any(|field| field == name));
            if let Some(id) = choose(&format!("body {name}"), kind, must) {
                body[name] = if property["type"] == "array" {
                    json!([id])
                } else {
                    json!(id)
                };
            }
        }
        body
    }
}

fn body_schema(operation: &Value) -> Option<&str> {
    operation["requestBody"]["content"]["application/json"]["schema"]["$ref"]
        .as_str()?
        .rsplit('/')
        .next()
}

fn path_place(name: &str, path: &str) -> Place {
    match name {
        "org" => Names(Kind::Organization),
        "app" => Names(Kind::App),
        "key" if path.contains("/token-keys/") => Names(Kind::TokenKey),
        "key" if path.contains("/apps/") => Names(Kind::AppKey),
        "key" => Names(Kind::OrganizationKey),
        "user" => Names(Kind::User),
        "channel" => Names(Kind::Channel),
        "message" => Names(Kind::Message),
        "emoji" => Free,
        other => panic!("the wall does not know {{{other}}} in {path}: say what it names"),
    }
}

fn query_place(name: &str) -> Place {
    match name {
        "cursor" => Names(Kind::Cursor),
        "participant_id" | "sender_id" => Names(Kind::User),
        "ids" => Names(Kind::Channel),
        // Numbers within the channel of the path, and words.
        "before" | "after" | "changed_after" | "limit" | "type" => Free,
        other => {
            panic!("the wall does not know the parameter {other} in a query: say what it names")
        }
    }
}

fn body_place(schema: &str, name: &str) -> Place {
    match (schema, name) {
        ("PutUser", "id") => Names(Kind::User),
        ("CreateChannel", "id") => Names(Kind::Channel),
        (_, "user_id" | "creator_id" | "sender_id" | "participant_ids" | "mention_ids") => {
            Names(Kind::User)
        }
        (_, "message_id" | "reply_to_id") => Names(Kind::Message),
        // An attachment's upload is of a later version, and refused.
        (_, "attachments") => Free,
        (
            _,
            "name" | "email" | "banner" | "icon" | "description" | "type" | "metadata" | "role"
            | "text" | "kind",
        ) => Free,
        (_, "username" | "first_name" | "last_name" | "avatar" | "bio" | "bot") => Free,
        (_, "settings" | "environment" | "algorithm" | "public_key" | "expires_in" | "revoke") => {
            Free
        }
        (schema, other) => {
            panic!("the wall does not know the field {other} of {schema}: say what it names")
        }
    }
}
