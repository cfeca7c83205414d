//! Servers that begin to evict keys while a node runs.

use super::{outage::send_freeing, *};

async fn set_policy(server: &Server, policy: &str) {
    server
        .command(&["CONFIG", "SET", "maxmemory-policy", policy])
        .await
        .unwrap();
}

async fn is_refused(store: &Redis, policy: &str) {
    until("the policy is noticed", || async {
        matches!(store.probe().await, Err(StoreError::Full(why)) if why.contains(policy))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_stored_while_the_server_evicts() {
    let server = Server::start().await;
    let store = Redis::open(&server.deployment(), ALL);
    store.probe().await.unwrap();
    send(&store, "before").await.unwrap().unwrap();
    for policy in ["allkeys-lru", "volatile-ttl"] {
        set_policy(&server, policy).await;
        is_refused(&store, policy).await;
        let answer = send(&store, "refused").await;
        assert!(
            matches!(&answer, Err(StoreError::Full(why)) if why.contains("set maxmemory-policy noeviction")),
            "{answer:?}"
        );
        send_freeing(&store).await.unwrap().unwrap();
        store
            .now()
            .await
            .expect("revocations, which need the time, are done");
        assert_eq!(logged(&store).await, ["before"], "reads work");
    }
    set_policy(&server, "noeviction").await;
    until("the store can be used again", || async {
        store.probe().await.is_ok()
    })
    .await;
    send(&store, "after").await.unwrap().unwrap();
    assert_eq!(logged(&store).await, ["before", "after"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eviction_is_found_where_info_is_not_allowed() {
    let server = Server::start().await;
    let store = Redis::open(&server.deployment(), ALL);
    server
        .command(&["ACL", "SETUSER", "default", "-info"])
        .await
        .unwrap();
    store.probe().await.unwrap();
    set_policy(&server, "allkeys-random").await;
    is_refused(&store, "allkeys-random").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn evicting_replica_is_reported_and_refused_once_it_is_the_master() {
    let mut sentinel = Sentinel::start().await;
    let master = sentinel.master().await;
    set_policy(&sentinel.servers[1 - master], "allkeys-lru").await;
    let store = Redis::open(&sentinel.deployment(), ALL);
    let warnings = store.check().await.unwrap();
    let replica = sentinel.servers[1 - master].address().to_string();
    assert!(
        warnings.len() == 1
            && warnings[0].contains(&replica)
            && warnings[0].contains("allkeys-lru"),
        "{warnings:?}"
    );
    store.probe().await.unwrap();
    send(&store, "before").await.unwrap().unwrap();
    sentinel.servers[master].kill9();
    sentinel.failed_over(master).await;
    is_refused(&store, "allkeys-lru").await;
    let answer = send(&store, "refused").await;
    assert!(matches!(answer, Err(StoreError::Full(_))), "{answer:?}");
}
