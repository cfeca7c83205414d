//! The OpenAPI document, compared with `protocol/README.md` and with the routes.

use std::collections::BTreeSet;

use axum::{body::Body, http::Method};
use gateway::rest::document;
use serde_json::Value;

use super::node::Node;

/// A copy of the table in `protocol/README.md`.
const WIRE: &str = "
    GET /healthz
    GET /readyz
    GET /metrics
    GET /v1/openapi.json
    POST GET /v1/organizations
    GET PATCH DELETE /v1/organizations/{org}
    POST GET /v1/organizations/{org}/keys
    DELETE /v1/organizations/{org}/keys/{key}
    POST GET /v1/organizations/{org}/apps
    GET PATCH DELETE /v1/organizations/{org}/apps/{app}
    POST GET /v1/organizations/{org}/apps/{app}/keys
    DELETE /v1/organizations/{org}/apps/{app}/keys/{key}
    POST GET /v1/organizations/{org}/apps/{app}/token-keys
    DELETE /v1/organizations/{org}/apps/{app}/token-keys/{key}
    POST /v1/organizations/{org}/apps/{app}/access
    POST GET /v1/users
    POST /v1/users/batch
    GET PUT PATCH DELETE /v1/users/{user}
    POST /v1/users/{user}/tokens
    POST /v1/users/{user}/disconnect
    GET /v1/users/{user}/channels
    GET /v1/users/{user}/unread
    POST GET /v1/channels
    GET PUT PATCH DELETE /v1/channels/{channel}
    POST GET /v1/channels/{channel}/participants
    POST /v1/channels/{channel}/participants/batch
    GET PATCH DELETE /v1/channels/{channel}/participants/{user}
    PUT DELETE /v1/channels/{channel}/read
    POST GET /v1/channels/{channel}/messages
    GET PATCH DELETE /v1/channels/{channel}/messages/{message}
    PUT DELETE /v1/channels/{channel}/messages/{message}/reactions/{emoji}
";

/// Returns method and path of every operation of the document.
pub(super) fn operations() -> BTreeSet<(String, String)> {
    let document = document();
    let paths = document["paths"].as_object().unwrap();
    let of = |(path, item): (&String, &Value)| {
        item.as_object()
            .unwrap()
            .keys()
            .map(|method| (method.to_uppercase(), path.clone()))
            .collect::<Vec<_>>()
    };
    paths.iter().flat_map(of).collect()
}

/// Returns a path of the document with ids that do not exist.
pub(super) fn filled(path: &str) -> String {
    let ids = [
        ("{org}", "org_00000000000000ff"),
        ("{app}", "app_00000000000000ff"),
        (
            "{key}",
            if path.contains("token-keys") {
                "tk_00000000000000ff"
            } else {
                "key_00000000000000ff"
            },
        ),
        ("{user}", "nobody"),
        ("{channel}", "nowhere"),
        ("{message}", "msg_00000000000000ff"),
        ("{emoji}", "x"),
    ];
    ids.iter()
        .fold(path.to_owned(), |path, (name, id)| path.replace(name, id))
}

#[test]
fn the_document_has_every_operation_of_the_wire_page_and_no_other() {
    let mut wanted = BTreeSet::new();
    for line in WIRE.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let words: Vec<_> = line.split(' ').collect();
        let (path, methods) = words.split_last().unwrap();
        wanted.extend(
            methods
                .iter()
                .map(|method| ((*method).to_owned(), (*path).to_owned())),
        );
    }
    assert_eq!(operations(), wanted);
}

#[tokio::test]
async fn the_router_answers_every_operation_and_no_other_method() {
    let node = Node::start().await;
    let operations = operations();
    for path in operations
        .iter()
        .map(|(_, path)| path)
        .collect::<BTreeSet<_>>()
    {
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE"] {
            let named = Method::from_bytes(method.as_bytes()).unwrap();
            let reply = node.by("").raw(named, &filled(path), Body::empty()).await;
            // A user may be called `batch`: its own methods exist beside the batch.
            let of_user = path.replace("/batch", "/{user}");
            if operations.contains(&(method.to_owned(), path.clone()))
                || operations.contains(&(method.to_owned(), of_user))
            {
                let is_open = ["/healthz", "/readyz", "/v1/openapi.json"].contains(&path.as_str());
                assert_eq!(
                    reply.status,
                    if is_open { 200 } else { 401 },
                    "{method} {path}: {}",
                    reply.text
                );
            } else {
                let reply = reply.refuses(405, "method_not_allowed");
                assert!(
                    reply
                        .header("allow")
                        .is_some_and(|allow| !allow.contains(method)),
                    "{method} {path}"
                );
            }
        }
    }
    node.by("")
        .get("/v1/nonsense")
        .await
        .refuses(404, "not_found");
    node.by("").get("/").await.refuses(404, "not_found");
    node.by("")
        .get("/v1/channels/")
        .await
        .refuses(404, "not_found");
}

#[tokio::test]
async fn the_document_is_served_and_refers_to_nothing_that_is_not_in_it() {
    let node = Node::start().await;
    let misfit = node.by("").get("/v1/openapi.json?x=1").await.is(400);
    assert_eq!(misfit.body["error"]["details"]["field"], "x");
    let served = node.by("").get("/v1/openapi.json").await.is(200);
    assert_eq!(served.body, document());
    assert!(
        served.body["openapi"]
            .as_str()
            .is_some_and(|version| version.starts_with("3.1"))
    );
    let mut references = BTreeSet::new();
    collect(&served.body, &mut references);
    assert!(references.len() > 30);
    for reference in references {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(served.body.pointer(pointer).is_some(), "{reference}");
    }
}

#[test]
fn every_operation_says_who_may_call_it_and_what_it_answers() {
    let document = document();
    let schemes = document["components"]["securitySchemes"]
        .as_object()
        .unwrap();
    let mut ids = BTreeSet::new();
    for (method, path) in operations() {
        let operation = &document["paths"][&path][method.to_lowercase()];
        assert!(
            ids.insert(operation["operationId"].as_str().unwrap().to_owned()),
            "{operation}"
        );
        assert!(
            !operation["summary"].as_str().unwrap().is_empty(),
            "{method} {path}"
        );
        let responses = operation["responses"].as_object().unwrap();
        assert!(
            responses.keys().any(|status| status.starts_with('2')),
            "{method} {path}"
        );
        if path.starts_with("/v1/") && !path.ends_with("openapi.json") {
            let security = operation["security"].as_array().unwrap();
            assert!(
                !security.is_empty()
                    && security
                        .iter()
                        .flat_map(|one| one.as_object().unwrap().keys())
                        .all(|name| schemes.contains_key(name))
            );
            for status in ["400", "401", "403", "404", "429", "500", "503"] {
                assert!(responses.contains_key(status), "{method} {path} {status}");
            }
        }
        let in_path = operation["parameters"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|p| p["in"] == "path")
            .count();
        assert_eq!(in_path, path.matches('{').count(), "{method} {path}");
    }
}

#[test]
fn null_has_a_meaning_in_patches_only() {
    let document = document();
    for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
        let has_null = schema.to_string().contains("\"null\"");
        assert!(
            !has_null || name.starts_with("Update") || name.starts_with("Edit"),
            "{name}: {schema}"
        );
    }
}

fn collect(value: &Value, references: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            if let Some(reference) = fields.get("$ref").and_then(Value::as_str) {
                references.insert(reference.to_owned());
            }
            fields.values().for_each(|value| collect(value, references));
        }
        Value::Array(items) => items.iter().for_each(|value| collect(value, references)),
        _ => {}
    }
}

#[test]
fn bodies_of_requests_have_no_other_properties_and_answers_may_get_new_ones() {
    let document = document();
    let schemas = &document["components"]["schemas"];
    for request in [
        "SendMessage",
        "EditMessage",
        "PutUser",
        "UpdateApp",
        "UpdateAppSettings",
        "Batch_AddParticipant",
        "AddParticipant",
    ] {
        assert_eq!(schemas[request]["additionalProperties"], false, "{request}");
    }
    for answer in ["Message", "User", "Channel", "ErrorAnswer", "Attachment"] {
        assert!(
            schemas[answer].is_object() && schemas[answer].get("additionalProperties").is_none(),
            "{answer}"
        );
    }
}

#[test]
fn bounds_of_requests_are_keywords_of_their_schemas() {
    let document = document();
    let schemas = &document["components"]["schemas"];
    for (pointer, keyword, value) in [
        ("/CreateChannel/properties/name", "maxLength", 200),
        ("/UpdateChannel/properties/description", "maxLength", 2048),
        ("/CreateChannel/properties/participant_ids", "maxItems", 100),
        ("/CreateApp/properties/name", "minLength", 1),
        ("/PutUser/properties/avatar", "maxLength", 2048),
        ("/SendMessage/properties/attachments", "maxItems", 32),
        ("/EditMessage/properties/mention_ids", "maxItems", 100),
        ("/Attachment/properties/type", "maxLength", 64),
        ("/Batch_PutUser/properties/items", "maxItems", 100),
        ("/CreateAccess/properties/expires_in", "maximum", 3600),
        ("/MintToken/properties/expires_in", "minimum", 1),
    ] {
        assert_eq!(
            schemas.pointer(pointer).unwrap()[keyword],
            value,
            "{pointer}"
        );
    }
    assert!(schemas["Attachment"]["properties"]["url"]["pattern"].is_string());
    let parameter = |path: &str, method: &str, name: &str| {
        let parameters = document["paths"][path][method]["parameters"]
            .as_array()
            .unwrap();
        parameters
            .iter()
            .find(|parameter| parameter["name"] == name)
            .unwrap()["schema"]
            .clone()
    };
    let reaction = "/v1/channels/{channel}/messages/{message}/reactions/{emoji}";
    assert_eq!(parameter(reaction, "put", "emoji")["maxLength"], 64);
    assert_eq!(parameter("/v1/channels", "get", "limit")["minimum"], 1);
    assert_eq!(parameter("/v1/channels", "get", "ids")["maxItems"], 200);
}
