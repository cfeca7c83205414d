//! Every error code over HTTP, and limits of bodies and headers.

mod bodies;

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use axum::{body::Body, http::Method};
use bytes::Bytes;
use domain::{
    document::encode,
    schema::{ENTITY, ONLY, Scope},
};
use http_body::{Frame, SizeHint};
use protocol::{ErrorCode, Limits, entity::Environment};
use serde_json::json;
use store::{Commit, Store as _};

use super::node::Node;

#[tokio::test]
async fn every_error_code_has_its_status_and_form() {
    let node = Node::with(Limits {
        participants: 1,
        key_requests_per_second: 100,
        ..Limits::default()
    })
    .await;
    let tenant = node.tenant().await;
    let alice = node.user(&tenant.live, "alice").await;
    node.user(&tenant.live, "bob").await;
    let app = node.by(&tenant.live);
    let open = app
        .post(
            "/v1/channels",
            json!({ "type": "open", "participant_ids": ["alice"] }),
        )
        .await
        .is(201)
        .id();
    let full = format!("/v1/channels/{open}/participants");
    let mut seen = vec![
        app.post("/v1/users", json!({ "id": 7 })).await,
        node.by("").get("/v1/users").await,
        node.by(&alice).get("/v1/users").await,
        app.get("/v1/users/nobody").await,
        app.call(Method::POST, "/v1/users/alice", None).await,
        app.post("/v1/users", json!({ "id": "alice" })).await,
        app.clone()
            .with("if-match", "\"99\"")
            .patch("/v1/users/alice", json!({ "bio": "x" }))
            .await,
        app.post("/v1/users", json!({ "username": "x".repeat(70_000) }))
            .await,
        app.clone()
            .with("content-type", "text/plain")
            .raw(Method::POST, "/v1/users", Body::from("{}"))
            .await,
        app.post(&full, json!({ "user_id": "bob" })).await,
    ];

    let scope = Scope {
        app: tenant.app.parse().unwrap(),
        environment: Environment::Live,
    };
    let broken = Commit::default().put(ENTITY, ONLY, encode(&"canary cause"));
    node.store
        .commit(&scope.user(&"broken".parse().unwrap()), broken)
        .await
        .unwrap()
        .unwrap();
    seen.push(app.get("/v1/users/broken").await);

    node.store.out.store(true, Ordering::Relaxed);
    seen.push(app.get("/v1/users/alice").await);
    node.store.out.store(false, Ordering::Relaxed);

    for _ in 0..300 {
        let reply = app.get("/v1/users/nobody").await;
        if reply.status == 429 {
            seen.push(reply);
            break;
        }
    }
    let mut missing: Vec<_> = ErrorCode::ALL.to_vec();
    for reply in &seen {
        let error = &reply.body["error"];
        let code = ErrorCode::of(error["code"].as_str().unwrap());
        assert_eq!(reply.status, code.status(), "{}", reply.text);
        assert_eq!(reply.header("content-type"), Some("application/json"));
        assert!(!error["message"].as_str().unwrap().is_empty());
        assert_eq!(reply.body.as_object().unwrap().len(), 1);
        assert!(!reply.text.contains("canary"), "the cause is for the log");
        assert_eq!(
            error.get("retry_after_ms").is_some(),
            reply.header("retry-after").is_some()
        );
        missing.retain(|other| *other != code);
    }
    assert_eq!(missing, []);
    let counted = node.metrics.encode();
    for code in ErrorCode::ALL {
        let never = format!("chaos_errors_total{{code=\"{code}\",transport=\"http\"}} 0");
        assert!(!counted.contains(&never), "{code}");
    }
    assert!(counted.contains(
        "chaos_http_requests_total{route=\"/v1/users/{user}\",method=\"GET\",status=\"503\"} 1"
    ));
}

#[tokio::test]
async fn a_panic_is_an_answer_and_the_next_request_is_served() {
    let node = Node::start().await;
    node.store.panics.store(true, Ordering::Relaxed);
    node.by("").get("/readyz").await.refuses(500, "internal");
    node.store.panics.store(false, Ordering::Relaxed);
    node.by("").get("/readyz").await.is(200);
}

#[tokio::test]
async fn a_misfit_says_where() {
    let node = Node::start().await;
    let tenant = node.tenant().await;
    let app = node
        .by(&tenant.live)
        .with("content-type", "application/json; charset=utf-8");
    let say = |body: &'static str| app.raw(Method::POST, "/v1/channels", Body::from(body));
    for (body, field) in [
        ("{", None),
        ("", None),
        ("[]", None),
        ("\"direct\"", None),
        ("null", None),
        ("{} {}", Some("type")),
        ("{\"type\":\"open\"} x", None),
        ("{\"type\":\"closed\"}", Some("type")),
        (
            "{\"type\":\"open\",\"participant_ids\":[\"a\",\"b c\"]}",
            Some("participant_ids[1]"),
        ),
        ("{\"type\":\"open\",\"name\":7}", Some("name")),
        ("{\"type\":\"open\",\"metadata\":[]}", Some("metadata")),
        ("{\"type\":{\"open\":null}}", Some("type")),
        ("{\"type\":\"open\",\"type\":\"open\"}", Some("type")),
        (
            "{\"type\":\"open\",\"metadata\":{\"a\":1,\"a\":2}}",
            Some("metadata"),
        ),
        (
            "{\"type\":\"open\",\"metadata\":{\"a\":18446744073709551616}}",
            Some("metadata"),
        ),
    ] {
        let reply = say(body).await.refuses(400, "bad_request");
        let details = &reply.body["error"]["details"];
        match field {
            Some(field) => assert_eq!(
                (&details["field"], &details["in"]),
                (&json!(field), &json!("body")),
                "{body}: {}",
                reply.text
            ),
            None => assert!(details.is_null() || body == "{", "{body}: {}", reply.text),
        }
    }
    for (body, sentence) in [
        ("", "the body is empty: send a JSON object"),
        (" \n", "the body is empty: send a JSON object"),
        ("{\"type\":\"closed\"}", "unknown variant `closed`"),
    ] {
        let reply = say(body).await.refuses(400, "bad_request");
        assert!(
            reply.body["error"]["message"]
                .as_str()
                .unwrap()
                .contains(sentence),
            "{}",
            reply.text
        );
    }
    let reply = say("{'id':'u1'}").await.refuses(400, "bad_request");
    assert!(reply.body["error"]["details"].is_null(), "{}", reply.text);
    let reply = node
        .by("wrong")
        .get("/v1/channels")
        .await
        .refuses(401, "unauthenticated");
    assert!(
        reply
            .text
            .contains("neither a key (adm_, ork_, sk_, ak_) nor a user token (a JWT)"),
        "{}",
        reply.text
    );
    let reply = app
        .get("/v1/channels?limit=abc")
        .await
        .refuses(400, "bad_request");
    let message = reply.body["error"]["message"].as_str().unwrap();
    assert!(
        message.ends_with("`limit` is a whole number")
            && reply.body["error"]["details"]["field"] == "limit",
        "{}",
        reply.text
    );
    let integral = "{\"items\":[{\"username\":\"a\",\"metadata\":{\"a\":1e30}},{\"metadata\":{\"a\":1000000000000000000000}}]}";
    let reply = app
        .raw(Method::POST, "/v1/users/batch", Body::from(integral))
        .await
        .is(200);
    let statuses: Vec<_> = [0, 1]
        .map(|item| &reply.body["items"][item]["status"])
        .into();
    assert_eq!(statuses, [201, 400], "{}", reply.text);
    node.user(&tenant.live, "alice").await;
    app.post("/v1/users/alice/tokens", json!({ "expires_in": 60.0 }))
        .await
        .is(201);
    app.post("/v1/users/alice/tokens", json!({ "expires_in": 60.5 }))
        .await
        .refuses(400, "bad_request");
    let deep = format!(
        "{{\"type\":\"open\",\"metadata\":{{\"a\":{}1{}}}}}",
        "[".repeat(10_000),
        "]".repeat(10_000)
    );
    app.raw(Method::POST, "/v1/channels", Body::from(deep))
        .await
        .refuses(400, "bad_request");
    let invalid = Body::from(&b"{\"type\":\"open\",\"name\":\"\xff\"}"[..]);
    app.raw(Method::POST, "/v1/channels", invalid)
        .await
        .refuses(400, "bad_request");
}

#[tokio::test]
async fn invalid_id_is_not_found_like_an_unknown_one() {
    let node = Node::start().await;
    let tenant = node.tenant().await;
    let app = node.by(&tenant.live);
    let unused = app.get("/v1/users/nobody").await.refuses(404, "not_found");
    for id in [
        "a%20b",
        "%C3%A4",
        "chn_0000000000000001",
        &"x".repeat(65),
        "%FF",
        "_a",
        "usr_1",
    ] {
        let reply = app
            .get(&format!("/v1/users/{id}"))
            .await
            .refuses(404, "not_found");
        assert!(
            id == "%FF" || reply.body == unused.body,
            "{id}: {}",
            reply.text
        );
    }
    app.get("/v1/channels/nowhere/messages/nonsense")
        .await
        .refuses(404, "not_found");
    app.delete("/v1/channels/nowhere/participants/a%20b")
        .await
        .refuses(404, "not_found");
}

#[tokio::test]
async fn an_unknown_field_is_refused_by_name_with_the_one_that_is_meant() {
    let node = Node::start().await;
    let tenant = node.tenant().await;
    let alice = node.user(&tenant.live, "alice").await;
    let (app, alice) = (node.by(&tenant.live), node.by(&alice));
    let channel = alice
        .post("/v1/channels", json!({ "type": "group" }))
        .await
        .is(201)
        .id();
    let messages = format!("/v1/channels/{channel}/messages");
    let sent = alice
        .post(&messages, json!({ "text": "x" }))
        .await
        .is(201)
        .id();
    let file = json!({ "text": "x", "attachments": [{ "type": "file", "url": "https://a.example", "mimetype": "text/plain" }] });
    let organizations = node.by(super::node::ADMIN);
    for (reply, part, field, nearest) in [
        (
            alice.post(&messages, json!({ "txet": "x" })).await,
            "body",
            "txet",
            "`text`",
        ),
        (
            alice.post(&messages, file).await,
            "body",
            "attachments[0].mimetype",
            "`mime`",
        ),
        (
            alice
                .patch(&format!("{messages}/{sent}"), json!({ "mentions": [] }))
                .await,
            "body",
            "mentions",
            "`mention_ids`",
        ),
        (
            alice
                .post(
                    "/v1/channels",
                    json!({ "type": "group", "participants": ["alice"] }),
                )
                .await,
            "body",
            "participants",
            "`participant_ids`",
        ),
        (
            app.put("/v1/users/bob", json!({ "firstName": "Bob" }))
                .await,
            "body",
            "firstName",
            "`first_name`",
        ),
        (
            app.post("/v1/users/alice/tokens", json!({ "expires": 60 }))
                .await,
            "body",
            "expires",
            "`expires_in`",
        ),
        (
            app.post("/v1/users/batch", json!({ "items": [], "item": 1 }))
                .await,
            "body",
            "item",
            "`items`",
        ),
        (
            organizations
                .post(
                    "/v1/organizations",
                    json!({ "name": "A", "email": "a@a.example", "e-mail": 1 }),
                )
                .await,
            "body",
            "e-mail",
            "`email`",
        ),
        (
            alice.get(&format!("{messages}?afetr=3")).await,
            "query",
            "afetr",
            "`after`",
        ),
        (
            alice.get("/v1/channels?participant=alice").await,
            "query",
            "participant",
            "`participant_id`",
        ),
        (
            app.get("/v1/users?limits=3").await,
            "query",
            "limits",
            "`limit`",
        ),
        (
            app.get("/v1/users/alice?fields=bio").await,
            "query",
            "fields",
            "",
        ),
        (
            app.post("/v1/users?id=carol", json!({ "id": "carol" }))
                .await,
            "query",
            "id",
            "",
        ),
        (
            app.delete("/v1/users/alice?force=true").await,
            "query",
            "force",
            "",
        ),
        (
            app.put(
                &format!("{messages}/{sent}/reactions/x?sender=alice"),
                json!({}),
            )
            .await,
            "query",
            "sender",
            "`sender_id`",
        ),
    ] {
        let reply = reply.refuses(400, "bad_request");
        let error = &reply.body["error"];
        assert_eq!(
            error["details"],
            json!({ "field": field, "in": part }),
            "{}",
            reply.text
        );
        let message = error["message"].as_str().unwrap();
        assert!(message.contains(nearest), "{message}");
    }
    app.get("/v1/users/alice").await.is(200);
    app.get("/v1/users/carol").await.refuses(404, "not_found");
    app.get("/v1/users?limit=abc")
        .await
        .refuses(400, "bad_request");
    node.by("")
        .get("/v1/users?limits=3")
        .await
        .refuses(401, "unauthenticated");
    let free = json!({ "text": "y", "metadata": { "anything": { "goes": 1 } } });
    alice.post(&messages, free).await.is(201);
}
