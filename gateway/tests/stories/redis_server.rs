//! Redis in difficult states: shared by several deployments, full, or with another secret key.

use std::time::Duration;

use gateway::{
    config::{self, Command},
    node::Node,
};
use protocol::{
    ChannelId, Encoding, ErrorCode,
    operation::{
        message::{MessageSend, SendMessage},
        session::Connect,
    },
};
use redis_testing as testing;
use serde_json::{Value, json};

use crate::{
    kill::refuses_to_start,
    nodes::{ADMIN, over_redis, secret_key},
    process::{Chaos, Shop},
    story::{StoreKind, StoreProcess, World, refusal, until},
};

pub(super) fn server(world: &World) -> &testing::Server {
    match &world.store_process {
        StoreProcess::Redis(server, _) => server,
        _ => unreachable!("these worlds are on one Redis server"),
    }
}

/// Starts a node over the same server with other arguments.
async fn node_over(world: &World, url: &str, more: &[&str]) -> Node {
    let secret = world.secret_key_file().display().to_string();
    let arguments = [&["chaos"][..], &over_redis(url, &secret), more].concat();
    match config::parse(arguments.iter().map(|word| (*word).to_owned()), &|_| None).unwrap() {
        Command::Serve(config) => Node::start(*config).await.unwrap(),
        other => panic!("{other:?} is no node"),
    }
}

/// Copies a deployment's keys: to another database, or under another prefix.
async fn copy(server: &testing::Server, prefix: &str, database: &str) {
    let keys: Vec<String> =
        redis::from_redis_value(server.command(&["KEYS", "chaos:*"]).await.unwrap()).unwrap();
    for key in keys.iter().filter(|key| !key.contains("{leases}")) {
        let to = key.replacen("chaos:", &format!("{prefix}:"), 1);
        server
            .command(&["COPY", key, &to, "DB", database])
            .await
            .unwrap();
    }
}

/// Checks that a copy of a deployment on the same server is isolated from the original.
async fn copy_is_isolated(mut world: World, url: &str, more: &[&str]) {
    let general = world.channel("group", "general", &["alice", "bob"]).await;
    let mut alice = world.connects("alice").await;
    alice.sends(&general, "before the copy").await;
    alice.sees("before the copy").await;
    let prefix = more.last().copied().unwrap_or("chaos");
    copy(server(&world), prefix, url.rsplit('/').next().unwrap()).await;
    world.nodes.push(node_over(&world, url, more).await);
    let mut copied = world
        .connects_to(1, "alice", Encoding::MessagePack, Connect::default())
        .await;
    copied.sends(&general, "in the copy").await;
    copied.sees("in the copy").await;
    let path = "/v1/channels/general/participants/alice";
    world
        .backend_at(1, &world.app_key)
        .delete::<()>(path)
        .await
        .unwrap();
    copied.receives("channel.removed").await;
    alice.receives_nothing().await;
    alice.sends(&general, "still here").await;
    alice.sees("still here").await;
    copied.receives_nothing().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn databases_of_one_server_are_isolated() {
    let world = World::on(StoreKind::Redis).await;
    let url = format!("{}/1", server(&world).url());
    copy_is_isolated(world, &url, &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prefixes_in_one_database_are_isolated() {
    let world = World::on(StoreKind::Redis).await;
    let url = format!("{}/0", server(&world).url());
    copy_is_isolated(world, &url, &["--redis-prefix", "chaos-staging"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_prefixes_share_a_cluster() {
    let cluster = testing::Cluster::start(3).await;
    let (_folder, secret) = secret_key();
    for prefix in ["one", "two"] {
        let node = Chaos::spawn(
            &[
                &over_redis(&cluster.url(), &secret)[..],
                &["--redis-prefix", prefix],
            ]
            .concat(),
        );
        let shop = Shop::open(node.address().await, ADMIN).await;
        // Each deployment is empty.
        shop.group("general", &["alice"]).await;
        let general: ChannelId = "general".parse().unwrap();
        let (alice, mut events) = shop.connects("alice", Encoding::MessagePack).await;
        alice
            .call::<MessageSend>(
                &general,
                &SendMessage {
                    text: Some("hi".into()),
                    ..SendMessage::default()
                },
            )
            .await
            .unwrap();
        let event = tokio::time::timeout(Duration::from_secs(5), events.next())
            .await
            .unwrap()
            .unwrap();
        assert_eq!(event.event, "message.created");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_server_accepts_deletions_and_reports_that_it_is_full() {
    let world = World::with(
        StoreKind::Redis,
        1,
        &["--limit", "unauthenticated_per_ip=0"],
    )
    .await;
    let general = world.channel("group", "general", &["alice", "bob"]).await;
    let other = world.channel("group", "other", &["alice", "bob"]).await;
    world.people(&["carol", "dave"]).await;
    let mut alice = world.connects("alice").await;
    let (mut carol, mut dave) = (world.connects("carol").await, world.connects("dave").await);
    let message = alice.sends(&general, &"x".repeat(10_000)).await;
    alice.sends(&other, "hi").await;
    server(&world)
        .command(&["CONFIG", "SET", "maxmemory", "1mb"])
        .await
        .unwrap();

    let refused = alice
        .session
        .call::<MessageSend>(
            &general,
            &SendMessage {
                text: Some("more".into()),
                ..SendMessage::default()
            },
        )
        .await
        .unwrap_err();
    let refused = refused.refusal().unwrap().clone();
    assert_eq!(refused.code, ErrorCode::Unavailable);
    assert!(refused.message.contains("full"), "{refused}");
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(
        world.readiness(0).await,
        200,
        "reads, deletions and revocations are done"
    );
    let demoted = json!({ "role": "observer" });
    let _: Value = world
        .team()
        .patch("/v1/channels/general/participants/bob", &demoted)
        .await
        .unwrap();
    let raised = world
        .team()
        .patch::<Value>(
            "/v1/channels/general/participants/bob",
            &json!({ "role": "moderator" }),
        )
        .await;
    assert_eq!(refusal(raised), (503, ErrorCode::Unavailable));
    let path = format!("/v1/channels/general/messages/{}", message.id);
    world.team().delete::<()>(&path).await.unwrap();
    world
        .team()
        .delete::<()>("/v1/channels/general/participants/bob")
        .await
        .unwrap();
    world
        .team()
        .delete::<()>("/v1/channels/other")
        .await
        .unwrap();
    alice.receives("channel.deleted").await;
    let team = world.team();
    let disconnect = team
        .request(axum::http::Method::POST, "/v1/users/carol/disconnect")
        .json(&json!({ "revoke": true }));
    assert_eq!(
        disconnect
            .header(
                axum::http::HeaderName::from_static("idempotency-key"),
                "once"
            )
            .send()
            .await
            .unwrap()
            .status
            .as_u16(),
        200
    );
    assert_eq!(carol.is_closed().await, 4004);
    world.team().delete::<()>("/v1/users/dave").await.unwrap();
    assert_eq!(dave.is_closed().await, 4004);
    let cleared = || async {
        let left: Vec<String> = redis::from_redis_value(
            server(&world)
                .command(&["KEYS", "chaos:{c:*:other}:*"])
                .await
                .unwrap(),
        )
        .unwrap();
        left.iter()
            .all(|key| key.ends_with(":head") || key.ends_with(":log"))
    };
    until("the channel is cleared", cleared).await;
    let admin = world.backend(&world.admin_key);
    let base = format!(
        "/v1/organizations/{}/apps/{}",
        world.organization, world.app
    );
    let lowered = json!({ "settings": { "create_users_from_tokens": false } });
    let _: Value = admin.patch(&base, &lowered).await.unwrap();
    let keys: Value = admin.get(&format!("{base}/token-keys")).await.unwrap();
    admin
        .delete::<()>(&format!(
            "{base}/token-keys/{}",
            keys["items"][0]["id"].as_str().unwrap()
        ))
        .await
        .unwrap();
    assert_eq!(alice.is_closed().await, 4004);
    let keys: Value = admin.get(&format!("{base}/keys")).await.unwrap();
    admin
        .delete::<()>(&format!(
            "{base}/keys/{}",
            keys["items"][0]["id"].as_str().unwrap()
        ))
        .await
        .unwrap();
    admin.delete::<()>(&base).await.unwrap();
    assert_eq!(
        refusal(admin.get::<Value>(&base).await),
        (404, ErrorCode::NotFound)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_secret_key_than_the_stores_ends_the_start_and_the_import() {
    let folder = tempfile::tempdir().unwrap();
    let other = folder.path().join("other-secret");
    std::fs::write(&other, "08".repeat(32)).unwrap();
    let other = other.display().to_string();

    let (_folder, secret) = secret_key();
    let server = testing::Server::start().await;
    let node = Chaos::spawn(&over_redis(&server.url(), &secret));
    let shop = Shop::open(node.address().await, ADMIN).await;
    let sentence = refuses_to_start(&over_redis(&server.url(), &other)).await;
    assert!(
        sentence.contains("another secret key") && sentence.contains("--secret-key-file"),
        "{sentence}"
    );

    let data = folder.path().join("data").display().to_string();
    let (embedded, _) = Chaos::node(std::path::Path::new(&data), &["--demo", "off"]).await;
    drop(embedded);
    let here = ["--listen", "127.0.0.1:0", "--data", &data];
    until("the folder is free", || async {
        let (code, _) = Chaos::runs(&["check", "--data", &data]).await;
        code == 0
    })
    .await;
    let sentence = refuses_to_start(&[&here[..], &["--secret-key-file", &other]].concat()).await;
    assert!(sentence.contains("another secret key"), "{sentence}");

    // The secret key differs from that of the other store.
    let export = folder.path().join("app.jsonl").display().to_string();
    let (code, said) = Chaos::runs(&[
        "export",
        "--app",
        &shop.app,
        "--to",
        &export,
        "--redis",
        &server.url(),
        "--secret-key-file",
        &secret,
    ])
    .await;
    assert_eq!(code, 0, "{said}");
    let (code, said) = Chaos::runs(&[
        "export",
        "--app",
        &shop.app,
        "--to",
        &export,
        "--redis",
        &server.url(),
        "--secret-key-file",
        &other,
    ])
    .await;
    assert!(code == 2 && said.contains("another secret key"), "{said}");
    let sealed_otherwise = testing::Server::start().await;
    let elsewhere = Chaos::spawn(&over_redis(&sealed_otherwise.url(), &other));
    elsewhere.address().await;
    let into = [
        "import",
        "--from",
        &export,
        "--redis",
        &sealed_otherwise.url(),
        "--secret-key-file",
        &secret,
    ];
    let (code, said) = Chaos::runs(&into).await;
    assert!(code == 2 && said.contains("another secret key"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prefix_that_means_something_is_refused() {
    let (_folder, secret) = secret_key();
    for prefix in ["a{b}", "a:b", ""] {
        let arguments = [
            &over_redis("redis://127.0.0.1:1", &secret)[..],
            &["--redis-prefix", prefix],
        ]
        .concat();
        let sentence = refuses_to_start(&arguments).await;
        assert!(sentence.contains("prefix"), "{sentence}");
    }
}
