//! `ETag`, `If-Match`, `Idempotency-Key`, CORS.

use axum::{body::Body, http::Method};
use domain::{
    channels,
    credential::{Actor, Who},
    schema::Scope,
    users,
};
use protocol::{KeyId, entity::Environment, operation::user::PutUser};
use serde_json::json;

use super::node::Node;

#[tokio::test]
async fn an_entity_changes_only_at_the_version_that_the_caller_saw() {
    let node = Node::start().await;
    let tenant = node.tenant().await;
    let app = node.by(&tenant.live);
    app.put("/v1/users/alice", json!({})).await.is(201);
    let channel = app
        .put("/v1/channels/c", json!({ "type": "open" }))
        .await
        .is(201);
    app.post("/v1/channels/c/participants", json!({ "user_id": "alice" }))
        .await
        .is(201);
    let sent = app
        .post(
            "/v1/channels/c/messages",
            json!({ "text": "a", "sender_id": "alice" }),
        )
        .await
        .is(201);
    let message = format!("/v1/channels/c/messages/{}", sent.id());
    for (path, patch) in [
        ("/v1/users/alice", json!({ "bio": "x" })),
        ("/v1/channels/c", json!({ "name": "x" })),
        (
            "/v1/channels/c/participants/alice",
            json!({ "role": "moderator" }),
        ),
        (message.as_str(), json!({ "text": "b" })),
    ] {
        let read = app.get(path).await.is(200);
        let etag = read.etag();
        assert!(etag.starts_with('"'), "strong");
        let same = app
            .clone()
            .with("if-none-match", &etag)
            .get(path)
            .await
            .is(304);
        assert_eq!((same.text.as_str(), same.etag()), ("", etag.clone()));
        let changed = app
            .clone()
            .with("if-match", &etag)
            .patch(path, patch.clone())
            .await
            .is(200);
        assert_ne!(changed.etag(), etag, "{path}");
        app.clone()
            .with("if-match", &etag)
            .patch(path, patch.clone())
            .await
            .refuses(412, "precondition_failed");
        app.clone()
            .with("if-match", "W/\"1\"")
            .patch(path, patch.clone())
            .await
            .refuses(412, "precondition_failed");
        app.clone()
            .with("if-match", "*")
            .patch(path, patch.clone())
            .await
            .is(200);
        app.clone()
            .with("if-match", &etag)
            .delete(path)
            .await
            .refuses(412, "precondition_failed");
        app.clone()
            .with("if-match", "\"1\", \"2\"")
            .patch(path, patch)
            .await
            .refuses(400, "bad_request");
    }
    // A join changes the channel's count, but nothing that an update could overwrite.
    let before = app.get("/v1/channels/c").await;
    app.delete("/v1/channels/c/participants/alice")
        .await
        .is(204);
    let after = app.get("/v1/channels/c").await;
    assert_ne!(before.etag(), after.etag());
    app.clone()
        .with("if-match", &before.etag())
        .patch("/v1/channels/c", json!({ "name": "y" }))
        .await
        .is(200);
    app.clone()
        .with("if-match", &channel.etag())
        .put("/v1/channels/c", json!({ "type": "open" }))
        .await
        .refuses(412, "precondition_failed");

    app.clone()
        .with("if-match", "*")
        .put("/v1/users/new", json!({}))
        .await
        .refuses(412, "precondition_failed");
    app.clone()
        .with("if-none-match", "*")
        .put("/v1/users/new", json!({}))
        .await
        .is(201);
    app.clone()
        .with("if-none-match", "*")
        .put("/v1/users/new", json!({}))
        .await
        .refuses(412, "precondition_failed");
    app.clone()
        .with("if-match", "*")
        .delete("/v1/users/new")
        .await
        .is(204);
    let organization = format!("/v1/organizations/{}", tenant.organization);
    let owner = node.by(&tenant.organization_key);
    for path in [&organization, &tenant.base] {
        let etag = owner.get(path).await.is(200).etag();
        owner
            .clone()
            .with("if-match", &etag)
            .patch(path, json!({ "name": "other" }))
            .await
            .is(200);
        owner
            .clone()
            .with("if-match", &etag)
            .patch(path, json!({ "name": "third" }))
            .await
            .refuses(412, "precondition_failed");
    }
}

#[tokio::test]
async fn two_values_of_a_header_that_takes_one_are_refused() {
    let node = Node::start().await;
    let tenant = node.tenant().await;
    for name in ["idempotency-key", "origin"] {
        let request = node.by(&tenant.live).with(name, "one").with(name, "two");
        let refused = request.post("/v1/users", json!({})).await;
        refused.refuses(400, "bad_request");
    }
    let users = node.by(&tenant.live).get("/v1/users").await;
    assert_eq!(users.body["items"], json!([]));
}

#[tokio::test]
async fn a_post_with_an_idempotency_key_is_done_once() {
    let node = Node::start().await;
    let tenant = node.tenant().await;
    let token = node.user(&tenant.live, "alice").await;
    let app = node.by(&tenant.live);
    let keyed = |caller: &str, key: &str| node.by(caller).with("idempotency-key", key);

    let first = keyed(&tenant.live, "k1")
        .post("/v1/users", json!({ "username": "u" }))
        .await
        .is(201);
    let again = keyed(&tenant.live, "k1")
        .post("/v1/users", json!({ "username": "u" }))
        .await
        .is(201);
    assert_eq!((first.etag(), &first.body), (again.etag(), &again.body));
    keyed(&tenant.live, "k1")
        .post("/v1/users", json!({ "username": "v" }))
        .await
        .refuses(409, "conflict");
    let other = keyed(&tenant.live, "k2")
        .post("/v1/users", json!({ "username": "u" }))
        .await
        .is(201);
    assert_ne!(first.id(), other.id());
    let elsewhere = keyed(&tenant.test, "k1")
        .post("/v1/users", json!({ "username": "v" }))
        .await
        .is(201);
    assert_ne!(first.id(), elsewhere.id(), "per credential");
    assert_eq!(
        app.get("/v1/users").await.body["items"]
            .as_array()
            .unwrap()
            .len(),
        3
    );

    let channel = keyed(&token, "k1")
        .post("/v1/channels", json!({ "type": "group" }))
        .await
        .is(201);
    assert_eq!(
        keyed(&token, "k1")
            .post("/v1/channels", json!({ "type": "group" }))
            .await
            .is(201)
            .body,
        channel.body
    );
    let messages = format!("/v1/channels/{}/messages", channel.id());
    let sent = keyed(&token, "k1")
        .post(&messages, json!({ "text": "once" }))
        .await
        .is(201);
    let repeated = keyed(&token, "k1")
        .post(&messages, json!({ "text": "once" }))
        .await
        .is(201);
    assert_eq!(repeated.id(), sent.id(), "per route");
    let message = format!("{messages}/{}", sent.id());
    assert_eq!(repeated.etag(), sent.etag());
    assert_eq!(repeated.etag(), app.get(&message).await.is(200).etag());
    assert_eq!(
        app.get(&messages).await.body["items"]
            .as_array()
            .unwrap()
            .len(),
        1
    );

    // A refusal has the header, too.
    keyed(&tenant.live, "k3")
        .post("/v1/users", json!({ "id": "alice" }))
        .await
        .refuses(409, "conflict");
    app.delete("/v1/users/alice").await.is(204);
    keyed(&tenant.live, "k3")
        .post("/v1/users", json!({ "id": "alice" }))
        .await
        .refuses(409, "conflict");

    let keys = format!("{}/keys", tenant.base);
    let made = keyed(&tenant.organization_key, "k1")
        .post(&keys, json!({ "environment": "test" }))
        .await
        .is(201);
    let repeated = keyed(&tenant.organization_key, "k1")
        .post(&keys, json!({ "environment": "test" }))
        .await
        .is(201);
    assert_eq!(made.id(), repeated.id());
    assert!(
        made.body["secret"].is_string() && repeated.body.get("secret").is_none(),
        "a secret is shown once"
    );

    for bad in ["", &"x".repeat(256)] {
        keyed(&tenant.live, bad)
            .post("/v1/users", json!({}))
            .await
            .refuses(400, "bad_request");
    }
    keyed(&tenant.live, &"x".repeat(255))
        .post("/v1/users", json!({}))
        .await
        .is(201);
}

#[tokio::test]
async fn request_whose_answer_was_lost_is_repeated_and_takes_effect_once() {
    let node = Node::start().await;
    let tenant = node.tenant().await;
    let scope = Scope {
        app: tenant.app.parse().unwrap(),
        environment: Environment::Live,
    };
    let actor = Actor {
        scope,
        who: Who::App {
            key: KeyId::from_bits(1),
        },
    };
    // A repeat after the node ended between the commit and the record of its answer: the
    // same ids again.
    let user = || PutUser {
        username: Some("u".into()),
        ..PutUser::default()
    };
    let first = users::create_user_as(&node.services, &actor, user(), 7)
        .await
        .unwrap();
    assert_eq!(
        users::create_user_as(&node.services, &actor, user(), 7)
            .await
            .unwrap(),
        first
    );
    let channel = || {
        serde_json::from_value(json!({ "type": "group", "participant_ids": [first.value.id] }))
            .unwrap()
    };
    let made = channels::create::create_channel_as(&node.services, &actor, channel(), 7)
        .await
        .unwrap();
    assert_eq!(
        channels::create::create_channel_as(&node.services, &actor, channel(), 7)
            .await
            .unwrap(),
        made
    );
}

#[tokio::test]
async fn pages_of_allowed_origins_may_call() {
    let node = Node::start().await;
    let tenant = node.tenant().await;
    for origin in [
        "https://app.example.com",
        "https://chat.example.com",
        "http://localhost:5173",
    ] {
        let preflight = node
            .by("")
            .with("origin", origin)
            .with("access-control-request-method", "PATCH")
            .with(
                "access-control-request-headers",
                "authorization, if-match, idempotency-key",
            )
            .raw(Method::OPTIONS, "/v1/channels/c", Body::empty())
            .await
            .is(200);
        assert_eq!(
            preflight.header("access-control-allow-origin"),
            Some(origin)
        );
        assert!(
            preflight
                .header("access-control-allow-methods")
                .unwrap()
                .contains("PATCH")
        );
        for header in [
            "authorization",
            "content-type",
            "if-match",
            "if-none-match",
            "idempotency-key",
        ] {
            assert!(
                preflight
                    .header("access-control-allow-headers")
                    .unwrap()
                    .contains(header),
                "{header}"
            );
        }
        let reply = node
            .by(&tenant.live)
            .with("origin", origin)
            .get("/v1/channels")
            .await
            .is(200);
        assert_eq!(reply.header("access-control-allow-origin"), Some(origin));
        let exposed = reply.header("access-control-expose-headers").unwrap();
        assert!(exposed.contains("etag") && exposed.contains("retry-after"));
        assert_eq!(reply.header("access-control-allow-credentials"), None);
        let refused = node
            .by("")
            .with("origin", origin)
            .get("/v1/channels")
            .await
            .is(401);
        assert_eq!(
            refused.header("access-control-allow-origin"),
            Some(origin),
            "a page may read why it was refused"
        );
    }
    for foreign in [
        "https://evil.example",
        "null",
        "https://app.example.com.evil.example",
    ] {
        let reply = node
            .by(&tenant.live)
            .with("origin", foreign)
            .get("/v1/channels")
            .await;
        assert_eq!(
            reply.header("access-control-allow-origin"),
            None,
            "{foreign}"
        );
    }
}
