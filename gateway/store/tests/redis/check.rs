//! The check of a deployment.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_reports_eviction_and_missing_durability() {
    let server = Server::start_with(&["--appendonly", "yes"]).await;
    let store = Redis::open(&server.deployment(), ALL);
    assert_eq!(store.check().await.unwrap(), [""; 0]);
    server
        .command(&["CONFIG", "SET", "appendonly", "no"])
        .await
        .unwrap();
    let warnings = store.check().await.unwrap();
    assert!(
        warnings.len() == 1 && warnings[0].contains("appendonly"),
        "{warnings:?}"
    );
    server
        .command(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"])
        .await
        .unwrap();
    let Err(Unfit::Settings(sentence)) = store.check().await else {
        panic!("an evicting server is refused")
    };
    assert!(sentence.contains("noeviction"), "{sentence}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_refuses_a_server_of_another_kind_than_the_url() {
    let server = Server::start().await;
    let sentinel = Sentinel::start().await;
    let address = server.address();
    let watching = sentinel.url();
    let (sentinels, _) = watching.rsplit_once('/').unwrap();
    for (url, sentence) in [
        (
            format!("redis+cluster://{address}"),
            format!("{address} is no Cluster: use redis://"),
        ),
        (
            format!("redis+sentinel://{address}/main"),
            format!("{address} is not a Sentinel (the usual port is 26379)"),
        ),
        (
            format!("{sentinels}/nobody"),
            "knows no service \"nobody\"".to_owned(),
        ),
    ] {
        let store = Redis::open(&url.parse().unwrap(), ALL);
        match store.check().await {
            Err(Unfit::Settings(message)) => {
                assert!(message.contains(&sentence), "{url}: {message}")
            }
            other => panic!("{url}: {other:?}"),
        }
    }
}
