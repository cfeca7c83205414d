//! Commands are routed and survive faults, on every kind of deployment.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::{Duration, Instant};

use chaos_redis::{Commands, Deployment, RESPONSE_TIMEOUT};
use redis::{Value, cmd};
use redis_testing::{Cluster, Sentinel, Server, key, until};

async fn set(commands: &Commands, name: &str, value: &str) -> redis::RedisResult<()> {
    cmd("SET")
        .arg(name)
        .arg(value)
        .query_async(&mut commands.clone())
        .await
}

async fn get(commands: &Commands, name: &str) -> Option<String> {
    cmd("GET")
        .arg(name)
        .query_async(&mut commands.clone())
        .await
        .unwrap()
}

#[tokio::test]
async fn server_that_starts_late_is_reached() {
    let mut server = Server::start().await;
    server.kill9();
    let commands = Commands::open(&server.deployment());
    let began = Instant::now();
    set(&commands, "a", "1").await.unwrap_err();
    assert!(
        began.elapsed() < RESPONSE_TIMEOUT + Duration::from_millis(500),
        "a command ends in time: {:?}",
        began.elapsed()
    );
    server.restart().await;
    set(&commands, "a", "1").await.unwrap();
}

#[tokio::test]
async fn a_restart_is_bridged_by_waiting() {
    let mut server = Server::start().await;
    let commands = Commands::open(&server.deployment());
    set(&commands, "a", "1").await.unwrap();
    server.restart().await;
    until("commands work again", || async {
        set(&commands, "a", "2").await.is_ok()
    })
    .await;
    assert_eq!(get(&commands, "a").await.as_deref(), Some("2"));
}

#[tokio::test]
async fn a_hanging_server_is_noticed_and_reached_again() {
    let server = Server::start().await;
    let commands = Commands::open(&server.deployment());
    set(&commands, "a", "1").await.unwrap();
    server.stop();
    let began = Instant::now();
    set(&commands, "a", "2").await.unwrap_err();
    assert!(began.elapsed() < RESPONSE_TIMEOUT + Duration::from_millis(500));
    server.cont();
    until("commands work again", || async {
        set(&commands, "a", "3").await.is_ok()
    })
    .await;
}

#[tokio::test]
async fn credentials_and_database_are_used() {
    let server = Server::start_with(&["--requirepass", "secret"]).await;
    let deployment: Deployment = format!("redis://:secret@{}/2", server.address())
        .parse()
        .unwrap();
    set(&Commands::open(&deployment), "a", "1").await.unwrap();
    let first: Deployment = format!("redis://default:secret@{}", server.address())
        .parse()
        .unwrap();
    assert_eq!(
        get(&Commands::open(&first), "a").await,
        None,
        "another database"
    );
}

#[tokio::test]
async fn a_cluster_takes_keys_of_all_slots_and_pipelines_across_them() {
    let cluster = Cluster::start(3).await;
    let mut commands = Commands::open(&cluster.deployment());
    let names: Vec<String> = (0..50).map(|n| key(&format!("p{n}"), "x")).collect();
    let mut pipeline = redis::pipe();
    for name in &names {
        pipeline.cmd("SET").arg(name).arg(name).ignore();
    }
    for name in &names {
        pipeline.cmd("GET").arg(name);
    }
    let values: Vec<String> = pipeline.query_async(&mut commands).await.unwrap();
    assert_eq!(values, names);
    let script = redis::Script::new("return redis.call('GET', KEYS[1])");
    for name in &names {
        assert_eq!(
            &script
                .key(name)
                .invoke_async::<String>(&mut commands)
                .await
                .unwrap(),
            name
        );
    }
    assert_eq!(commands.on_masters(&cmd("PING")).await.unwrap().len(), 3);
}

#[tokio::test]
async fn moving_slot_is_followed_and_reported_in_the_answer() {
    let cluster = Cluster::start(3).await;
    let commands = Commands::open(&cluster.deployment());
    let (old, new, slot) = (key("t", "old"), key("t", "new"), chaos_redis::slot("t"));
    set(&commands, &old, "1").await.unwrap();
    let from = cluster.owner(slot).await;
    let to = (from + 1) % 3;
    cluster.begin_migration(slot, from, to).await;
    assert!(
        !commands
            .run(cmd("GET").arg(&old))
            .await
            .unwrap()
            .is_from_importing_node
    );
    let answer = commands.run(cmd("SET").arg(&new).arg("2")).await.unwrap();
    assert_eq!(
        (answer.value, answer.is_from_importing_node),
        (Value::Okay, true),
        "a new key is made where the slot goes"
    );
    cluster.move_keys(slot, from, to).await;
    assert!(
        commands
            .run(cmd("GET").arg(&old))
            .await
            .unwrap()
            .is_from_importing_node
    );
    cluster.finish_migration(slot, from, to).await;
    assert!(
        !commands
            .run(cmd("GET").arg(&old))
            .await
            .unwrap()
            .is_from_importing_node
    );
    assert_eq!(get(&commands, &new).await.as_deref(), Some("2"));
}

#[tokio::test]
async fn a_failed_master_of_a_cluster_is_replaced_by_its_replica() {
    let mut cluster = Cluster::start_with_replicas(3).await;
    let commands = Commands::open(&cluster.deployment());
    set(&commands, &key("t", "a"), "1").await.unwrap();
    let owner = cluster.owner(chaos_redis::slot("t")).await;
    cluster.masters[owner].kill9();
    let began = Instant::now();
    until("the replica takes writes", || async {
        set(&commands, &key("t", "a"), "2").await.is_ok()
    })
    .await;
    println!("Cluster failover bridged after {:?}", began.elapsed());
}

#[tokio::test]
async fn a_sentinel_failover_is_followed() {
    let mut trio = Sentinel::start().await;
    let commands = Commands::open(&trio.deployment());
    set(&commands, "a", "1").await.unwrap();
    assert_eq!(trio.master().await, 0);
    trio.servers[0].kill9();
    let began = Instant::now();
    until("the new master takes writes", || async {
        set(&commands, "a", "2").await.is_ok()
    })
    .await;
    println!("Sentinel failover bridged after {:?}", began.elapsed());
    assert_eq!(trio.master().await, 1);
}
