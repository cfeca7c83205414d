//! The probe of the masters.

use redis_testing::Server;
use store::Availability;

use super::*;

async fn set(server: &Server, setting: &str, value: &str) {
    server
        .command(&["CONFIG", "SET", setting, value])
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn store_can_be_used_while_any_shard_can() {
    let mut cluster = Cluster::start(3).await;
    for server in &cluster.masters {
        set(server, "cluster-require-full-coverage", "no").await;
    }
    let store = Redis::open(&cluster.deployment(), ALL);
    let is_whole = || async {
        store
            .probe()
            .await
            .is_ok_and(|it| it == Availability::Whole)
    };
    until("all shards are there", is_whole).await;
    for shard in 0..3 {
        cluster.masters[shard].kill9();
        let address = cluster.masters[shard].address().to_string();
        until("the missing shard is named", || async {
            match store.probe().await.unwrap() {
                Availability::Partial(why) => why.contains(&address),
                Availability::Whole => false,
            }
        })
        .await;
        cluster.masters[shard].restart().await;
        set(
            &cluster.masters[shard],
            "cluster-require-full-coverage",
            "no",
        )
        .await;
        cluster.whole().await;
        until("all shards are there", is_whole).await;
    }
    for server in &cluster.masters {
        server.stop();
    }
    until("no shard is there", || async {
        store.probe().await.is_err()
    })
    .await;
    for server in &cluster.masters {
        server.cont();
    }
    until("all shards are there", is_whole).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_are_refused_only_where_the_master_evicts() {
    let cluster = Cluster::start(3).await;
    let store = Redis::open(&cluster.deployment(), ALL);
    let room = |n: usize| Partition::new(format!("channel:room-{n}"));
    for n in 0..12 {
        store
            .commit(&room(n), message("before"))
            .await
            .unwrap()
            .unwrap();
    }
    let evicting = cluster.owner(slot(&channel("channel:room-0"))).await;
    set(
        &cluster.masters[evicting],
        "maxmemory-policy",
        "allkeys-lru",
    )
    .await;
    let address = cluster.masters[evicting].address().to_string();
    until("the policy is noticed", || async {
        matches!(
            store.probe().await.unwrap(),
            Availability::Partial(why) if why.contains(&address) && why.contains("allkeys-lru")
        )
    })
    .await;
    for n in 0..12 {
        let is_affected = cluster.owner(slot(&channel(room(n).name()))).await == evicting;
        let committed = store.commit(&room(n), message("after")).await;
        assert_eq!(
            matches!(committed, Err(StoreError::Full(_))),
            is_affected,
            "{committed:?}"
        );
        assert_eq!(committed.is_ok(), !is_affected);
    }
    for server in &cluster.masters {
        set(server, "maxmemory-policy", "allkeys-lru").await;
    }
    until("no shard stores anything", || async {
        matches!(store.probe().await, Err(StoreError::Full(_)))
    })
    .await;
}
