//! Large reads of one app do not delay other apps.

use std::time::Instant;

use axum::http::Method;
use chaos_redis::RESPONSE_TIMEOUT;
use futures_util::future::join_all;
use protocol::ErrorCode;
use redis_testing::Proxy;
use serde_json::{Value, json};

use crate::story::{StoreKind, StoreProcess, World, refusal, until};

/// Number of concurrent pages.
const READS: usize = 40;
const PAGE: &str = "/v1/channels/general/messages?limit=50";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_replies_of_one_app_do_not_delay_other_apps() {
    let mut world = World::on(StoreKind::Redis).await;
    let StoreProcess::Redis(server, _) = &world.store_process else {
        panic!()
    };
    let proxy = Proxy::before(server.port()).await;
    let general = world.channel("group", "general", &["alice"]).await;
    let alice = world.connects("alice").await;
    for _ in 0..15 {
        alice.sends(&general, &"x".repeat(15_000)).await;
    }
    for flag in world
        .store
        .iter_mut()
        .filter(|flag| flag.starts_with("redis://"))
    {
        *flag = proxy.url();
    }
    let node = world.add_node().await;
    let (_, key) = world.make_app("live").await;
    let (flooded, other) = (
        world.backend_at(node, &world.app_key),
        world.backend_at(node, &key),
    );
    let _: Value = other.put("/v1/users/bob", &json!({})).await.unwrap();
    let _: Value = other
        .post(
            "/v1/channels",
            &json!({ "id": "quiet", "type": "group", "creator_id": "bob" }),
        )
        .await
        .unwrap();

    proxy.shut();
    let shut_at = Instant::now();
    let flood = tokio::spawn({
        let flooded = flooded.clone();
        async move { join_all((0..READS).map(|_| flooded.get::<Value>(PAGE))).await }
    });
    proxy.holds().await;
    let message = json!({ "sender_id": "bob", "text": "heard" });
    let _: Value = other
        .post("/v1/channels/quiet/messages", &message)
        .await
        .unwrap();
    let page: Value = other
        .get("/v1/channels/quiet/messages?limit=1")
        .await
        .unwrap();
    assert_eq!(page["items"][0]["text"], "heard");
    for path in ["/healthz", "/readyz"] {
        assert_eq!(
            other
                .request(Method::GET, path)
                .send()
                .await
                .unwrap()
                .status,
            200,
            "{path}"
        );
    }
    // On a busy machine, the reads may have waited longer than the node waits for Redis, or for
    // their turn. Their repeats succeed.
    let was_short = shut_at.elapsed() < RESPONSE_TIMEOUT / 2;
    assert!(!flood.is_finished() || !was_short);
    proxy.open();
    for page in flood.await.unwrap() {
        let page = match page {
            Err(error) if !was_short => {
                let (_, code) = refusal::<Value>(Err(error));
                assert!([ErrorCode::Unavailable, ErrorCode::RateLimited].contains(&code));
                until("the repeat succeeds", || async {
                    flooded.get::<Value>(PAGE).await.is_ok()
                })
                .await;
                flooded.get(PAGE).await
            }
            page => page,
        };
        assert_eq!(page.unwrap()["items"].as_array().unwrap().len(), 15);
    }
}
