//! Permissions of credentials, and rate limits.

use std::{sync::atomic::Ordering, time::Duration};

use axum::http::Method;
use gateway::{auth::STALE, rest::document};
use protocol::{Limits, TokenKeyId};
use serde_json::json;

use super::{
    document::{filled, operations},
    node::{ADMIN, Node},
};

#[tokio::test]
async fn a_credential_of_the_wrong_kind_is_forbidden_on_every_path() {
    let node = Node::start().await;
    let tenant = node.tenant().await;
    let token = node.user(&tenant.live, "alice").await;
    let kinds = [
        ("admin_key", ADMIN),
        ("organization_key", &tenant.organization_key),
        ("app_key", &tenant.live),
        ("user_token", &token),
    ];
    let document = document();
    for (method, path) in operations() {
        let operation = &document["paths"][&path][method.to_lowercase()];
        let Some(security) = operation["security"]
            .as_array()
            .filter(|all| !all.contains(&json!({})))
        else {
            continue;
        };
        for (kind, credential) in kinds {
            if security.iter().any(|one| one.get(kind).is_some()) {
                continue;
            }
            let body = operation
                .get("requestBody")
                .map(|_| body_for(&document, operation));
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            // The named entities exist, so the permission is the only reason to refuse.
            let path = filled(
                &path
                    .replace("{org}", &tenant.organization)
                    .replace("{app}", &tenant.app)
                    .replace("{user}", "alice"),
            );
            let reply = node.by(credential).call(method.clone(), &path, body).await;
            let is_hidden = kind == "user_token" && path.contains("nowhere");
            assert!(
                reply.status == 403 || is_hidden && reply.status == 404,
                "{method} {path} with {kind}: {}",
                reply.text
            );
        }
    }
}

/// Returns the document's example of a body.
fn body_for(document: &serde_json::Value, operation: &serde_json::Value) -> serde_json::Value {
    let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
    let name = schema["$ref"]
        .as_str()
        .and_then(|path| path.rsplit('/').next())
        .unwrap_or_default();
    match document["components"]["schemas"][name].get("example") {
        Some(example) => example.clone(),
        None if name.starts_with("Batch") => json!({ "items": [] }),
        None => json!({ "user_id": "alice" }),
    }
}

#[tokio::test]
async fn no_credential_or_a_bad_one_is_unauthenticated() {
    let node = Node::start().await;
    let tenant = node.tenant().await;
    for bad in [
        "",
        "nonsense",
        "adm_nonsense",
        "ork_nonsense",
        "sk_live_nonsense",
        "ak_test_nonsense",
        "a.b.c",
        "sk_live_ü",
    ] {
        let reply = node
            .by(bad)
            .get("/v1/channels")
            .await
            .refuses(401, "unauthenticated");
        assert_eq!(reply.header("www-authenticate"), Some("Bearer"));
    }
    node.by("")
        .with("authorization", &format!("Basic {}", tenant.live))
        .get("/v1/channels")
        .await
        .refuses(401, "unauthenticated");
    node.by("")
        .with("authorization", &format!("bearer {}", tenant.live))
        .get("/v1/channels")
        .await
        .is(200);
    // Two credentials are refused like none, since it is unclear which one applies.
    node.by(&tenant.live)
        .with("authorization", "Bearer x")
        .get("/v1/channels")
        .await
        .refuses(401, "unauthenticated");
}

#[tokio::test]
async fn keys_users_apps_and_addresses_have_their_own_rates() {
    let rates = Limits {
        key_requests_per_second: 3,
        requests_per_second: 2,
        app_requests_per_second: 5,
        unauthenticated_per_ip: 1,
        ..Limits::default()
    };
    let node = Node::with(rates).await;
    let tenant = node.tenant().await;
    let mut last = None;
    for _ in 0..30 {
        last = Some(node.by(&tenant.live).get("/v1/users").await);
    }
    let reply = last.unwrap().refuses(429, "rate_limited");
    let wait = reply.body["error"]["retry_after_ms"].as_u64().unwrap();
    assert!((1..=1000).contains(&wait), "{wait}");
    assert_eq!(
        reply.header("retry-after"),
        Some("1"),
        "whole seconds, rounded up"
    );
    node.by(&tenant.test).get("/v1/users").await.is(200);

    let guess = async |from| node.by("sk_live_guess").from(from).get("/v1/users").await;
    let refusals = [
        guess("198.51.100.1").await,
        guess("198.51.100.1").await,
        guess("198.51.100.1").await,
    ];
    assert_eq!(refusals.map(|reply| reply.status), [401, 401, 429]);
    guess("198.51.100.2").await.is(401);
    node.by(&tenant.test)
        .from("198.51.100.1")
        .get("/v1/users")
        .await
        .is(200);
    let behind = |client: &str| {
        node.by("x")
            .from("10.0.0.1")
            .with("x-forwarded-for", client)
    };
    for status in [401, 401, 429] {
        behind("1.1.1.1, 198.51.100.3")
            .get("/v1/users")
            .await
            .is(status);
    }
    behind("1.1.1.1, 198.51.100.4")
        .get("/v1/users")
        .await
        .is(401);
    let counted = node.metrics.encode();
    for limit in ["key_requests_per_second", "unauthenticated_per_ip"] {
        let line = format!("chaos_limits_hit_total{{limit=\"{limit}\"}} 0");
        assert!(!counted.contains(&line), "{limit}");
    }
}

#[tokio::test]
async fn guesses_beyond_the_limit_of_their_address_do_not_reach_the_store() {
    let limits = Limits {
        unauthenticated_per_ip: 2,
        key_requests_per_second: 0,
        requests_per_second: 0,
        ..Limits::default()
    };
    let node = Node::with(limits).await;
    let tenant = node.tenant().await;
    let alice = node.user(&tenant.live, "alice").await;
    node.by(&tenant.live).get("/v1/users").await.is(200);
    node.by(&alice).get("/v1/users/alice").await.is(200);
    let before = node.store.reads.load(Ordering::Relaxed);
    let mut refusals = Vec::new();
    for index in 0..300u32 {
        let key = format!("sk_live_{index:043}");
        let token = domain::credential::token::sign(
            &TokenKeyId::from_bits(u64::from(index)),
            b"guess",
            &"alice".parse().unwrap(),
            1,
            2,
        );
        refusals.push(node.by(&key).get("/v1/users").await.status);
        refusals.push(node.by(&token).get("/v1/users").await.status);
    }
    assert!(
        refusals.iter().all(|status| matches!(status, 401 | 429)),
        "{refusals:?}"
    );
    let reads = node.store.reads.load(Ordering::Relaxed) - before;
    assert!((1..30).contains(&reads), "{reads} reads for a burst of 4");
    // Cached valid credentials do not depend on the bucket, however long
    // ago that was.
    tokio::time::sleep(STALE + Duration::from_millis(100)).await;
    while node.by("sk_live_guess").get("/v1/users").await.status == 401 {}
    node.by(&tenant.live).get("/v1/users").await.is(200);
    node.by(&alice).get("/v1/users/alice").await.is(200);
}

#[tokio::test]
async fn good_credentials_that_come_at_once_are_charged_once() {
    let limits = Limits {
        unauthenticated_per_ip: 1,
        key_requests_per_second: 0,
        requests_per_second: 0,
        ..Limits::default()
    };
    let node = Node::with(limits).await;
    let tenant = node.tenant().await;
    let all = (0..50).map(|_| async { node.by(&tenant.live).get("/v1/users").await.status });
    assert!(
        futures_util::future::join_all(all)
            .await
            .iter()
            .all(|status| *status == 200)
    );
}

#[tokio::test]
async fn an_ipv6_network_shares_the_limit_of_one_address() {
    let node = Node::with(Limits {
        unauthenticated_per_ip: 1,
        ..Limits::default()
    })
    .await;
    let guess = async |from: &str| {
        node.by("sk_live_guess")
            .from(from)
            .get("/v1/users")
            .await
            .status
    };
    let statuses = [
        guess("[2001:db8:1:2::1]").await,
        guess("[2001:db8:1:2::2]").await,
        guess("[2001:db8:1:2:3:4:5:6]").await,
    ];
    assert_eq!(statuses, [401, 401, 429]);
    assert_eq!(guess("[2001:db8:1:3::1]").await, 401);
    let mapped = [
        guess("203.0.113.7").await,
        guess("[::ffff:203.0.113.7]").await,
        guess("203.0.113.7").await,
    ];
    assert_eq!(mapped, [401, 401, 429]);
}

#[tokio::test]
async fn a_user_over_http_has_the_rate_of_a_session() {
    let node = Node::with(Limits {
        requests_per_second: 1,
        key_requests_per_second: 0,
        ..Limits::default()
    })
    .await;
    let tenant = node.tenant().await;
    let alice = node.user(&tenant.live, "alice").await;
    let bob = node.user(&tenant.live, "bob").await;
    let mut statuses = Vec::new();
    for _ in 0..3 {
        statuses.push(node.by(&alice).get("/v1/users/alice").await.status);
    }
    assert_eq!(statuses, [200, 200, 429]);
    node.by(&bob).get("/v1/users/bob").await.is(200);
}
