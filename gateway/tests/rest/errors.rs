//! Each error code over HTTP, in the product's own form, and limits before memory.

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
use gateway::{
    service::{
        document::encode,
        scope::{ENTITY, ONLY, Scope},
    },
    store::{Commit, Store as _},
};
use http_body::{Frame, SizeHint};
use protocol::{ErrorCode, Limits, model::Environment};
use serde_json::json;

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
    let broken = Commit::default().put_bytes(ENTITY, ONLY, encode(&"canary cause"));
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
async fn what_cannot_be_an_id_is_not_found_like_an_id_that_nobody_has() {
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
async fn a_media_type_that_is_not_read_is_unsupported() {
    let node = Node::start().await;
    let tenant = node.tenant().await;
    let app = node.by(&tenant.live);
    let user = |media: &'static str| app.clone().with("content-type", media);
    user("text/plain")
        .raw(Method::PUT, "/v1/users/u", Body::from("{}"))
        .await
        .refuses(415, "unsupported");
    user("application/merge-patch+json")
        .raw(Method::PUT, "/v1/users/u", Body::from("{}"))
        .await
        .refuses(415, "unsupported");
    app.raw(Method::PUT, "/v1/users/u", Body::from("{}"))
        .await
        .refuses(415, "unsupported");
    user("application/json")
        .with("content-encoding", "gzip")
        .raw(Method::PUT, "/v1/users/u", Body::from("{}"))
        .await
        .refuses(415, "unsupported");
    user("Application/JSON")
        .raw(Method::PUT, "/v1/users/u", Body::from("{}"))
        .await
        .is(201);
    user("application/merge-patch+json")
        .raw(Method::PATCH, "/v1/users/u", Body::from("{\"bio\":\"x\"}"))
        .await
        .is(200);
}

/// A body that counts how often it is asked for more.
struct Endless {
    announced: Option<u64>,
    asked: Arc<AtomicUsize>,
}

impl http_body::Body for Endless {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[b' '; 1024])))))
    }

    fn size_hint(&self) -> SizeHint {
        self.announced
            .map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_before_it_is_read() {
    let node = Node::start().await;
    let tenant = node.tenant().await;
    let app = node
        .by(&tenant.live)
        .with("content-type", "application/json");
    for (announced, most) in [(Some(65_537), 0), (None, 65)] {
        let asked = Arc::new(AtomicUsize::new(0));
        let body = Body::new(Endless {
            announced,
            asked: asked.clone(),
        });
        app.raw(Method::POST, "/v1/users", body)
            .await
            .refuses(413, "too_large");
        assert_eq!(asked.load(Ordering::Relaxed), most, "of 1 KiB each");
    }
    // Nobody without a credential gets a body read at all.
    let asked = Arc::new(AtomicUsize::new(0));
    let body = Body::new(Endless {
        announced: None,
        asked: asked.clone(),
    });
    node.by("")
        .with("content-type", "application/json")
        .raw(Method::POST, "/v1/users", body)
        .await
        .refuses(401, "unauthenticated");
    assert_eq!(asked.load(Ordering::Relaxed), 0);
    let just = format!("{{\"metadata\":{{}}{}}}", " ".repeat(65_536 - 15));
    assert_eq!(just.len(), 65_536);
    app.raw(Method::POST, "/v1/users", Body::from(just))
        .await
        .is(201);
}

#[tokio::test]
async fn a_body_that_does_not_arrive_is_given_up() {
    let node = Node::start().await;
    let tenant = node.tenant().await;
    let app = node
        .by(&tenant.live)
        .with("content-type", "application/json");
    let never = Body::from_stream(futures_util::stream::pending::<Result<Bytes, std::io::Error>>());
    let reply = app
        .raw(Method::POST, "/v1/users", never)
        .await
        .refuses(400, "bad_request");
    assert!(reply.text.contains("10 seconds"));
}
