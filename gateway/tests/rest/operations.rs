//! Health, readiness, metrics.

use std::sync::atomic::Ordering;

use axum::{body::Body, http::Request};
use serde_json::json;

use super::node::{ADMIN, Node, answer};

#[tokio::test]
async fn a_node_is_ready_while_its_store_answers_and_it_does_not_drain() {
    let node = Node::start().await;
    assert_eq!(
        node.by("").get("/healthz").await.is(200).body,
        json!({ "status": "alive" })
    );
    node.store.out.store(true, Ordering::Relaxed);
    node.by("").get("/readyz").await.refuses(503, "unavailable");
    node.by("").get("/healthz").await.is(200);
    node.store.out.store(false, Ordering::Relaxed);
    // What was found is believed for a moment.
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(5);
    while node.by("").get("/readyz").await.status != 200 {
        assert!(tokio::time::Instant::now() < deadline);
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    node.draining.store(true, Ordering::Relaxed);
    node.by("").get("/readyz").await.refuses(503, "unavailable");
    node.by("").get("/healthz").await.is(200);
}

#[tokio::test]
async fn metrics_are_for_this_machine_and_the_admin_key() {
    let node = Node::start().await;
    let tenant = node.tenant().await;
    for local in ["127.0.0.1", "[::1]"] {
        let reply = node.by("").from(local).get("/metrics").await.is(200);
        assert!(reply.text.contains("chaos_http_requests_total"));
        assert!(
            reply
                .header("content-type")
                .unwrap()
                .starts_with("application/openmetrics-text")
        );
    }
    node.by(ADMIN).get("/metrics").await.is(200);
    node.by(&tenant.live)
        .get("/metrics")
        .await
        .refuses(403, "forbidden");
    node.by("")
        .get("/metrics")
        .await
        .refuses(401, "unauthenticated");
    // A proxy on this machine speaks for others.
    node.by("")
        .from("127.0.0.1")
        .with("x-forwarded-for", "203.0.113.9")
        .get("/metrics")
        .await
        .refuses(401, "unauthenticated");
    for path in ["/metrics", "/healthz", "/readyz"] {
        answer(
            node.ops.clone(),
            Request::get(path).body(Body::empty()).unwrap(),
        )
        .await
        .is(200);
    }
    answer(
        node.ops.clone(),
        Request::get("/v1/users").body(Body::empty()).unwrap(),
    )
    .await
    .refuses(404, "not_found");
}
