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
    // The result is cached for a moment.
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
async fn metrics_need_the_admin_key_whatever_the_peers_address() {
    let node = Node::start().await;
    let tenant = node.tenant().await;
    let reply = node.by(ADMIN).get("/metrics").await.is(200);
    assert!(reply.text.contains("chaos_http_requests_total"));
    assert!(
        reply
            .header("content-type")
            .unwrap()
            .starts_with("application/openmetrics-text")
    );
    node.by(&tenant.live)
        .get("/metrics")
        .await
        .refuses(403, "forbidden");
    // A proxy on this machine has a loopback address too, whether it adds X-Forwarded-For or not.
    for peer in ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "203.0.113.9"] {
        node.by("")
            .from(peer)
            .get("/metrics")
            .await
            .refuses(401, "unauthenticated");
        node.by("")
            .from(peer)
            .with("x-forwarded-for", "127.0.0.1")
            .get("/metrics")
            .await
            .refuses(401, "unauthenticated");
    }
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
