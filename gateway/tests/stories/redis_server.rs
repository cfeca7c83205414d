//! Redis as it really is: shared by several deployments, full, forbidding, with another password or
//! another secret key.

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
    story::{Ground, Keeper, World, refusal, until},
};

fn server(world: &World) -> &testing::Server {
    match &world.keeper {
        Keeper::Redis(server, _) => server,
        _ => panic!("this world stands on something else"),
    }
}

/// A node over the same server with other arguments.
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

/// A copy of a deployment on the same server: what happens in the one, nobody of the other hears.
async fn copy_is_a_world_of_its_own(mut world: World, url: &str, more: &[&str]) {
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
    copied.hears("channel.removed").await;
    alice.hears_nothing().await;
    alice.sends(&general, "still here").await;
    alice.sees("still here").await;
    copied.hears_nothing().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_databases_of_one_server_hear_nothing_of_each_other() {
    let world = World::on(Ground::Redis).await;
    let url = format!("{}/1", server(&world).url());
    copy_is_a_world_of_its_own(world, &url, &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_prefixes_in_one_database_hear_nothing_of_each_other() {
    let world = World::on(Ground::Redis).await;
    let url = format!("{}/0", server(&world).url());
    copy_is_a_world_of_its_own(world, &url, &["--redis-prefix", "chaos-staging"]).await;
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
        // Each finds an empty world.
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

/// A user with this password and these rights, and the URL that names it.
async fn user(server: &testing::Server, name: &str, rights: &[&str]) -> String {
    server
        .command(
            &[
                &["ACL", "SETUSER", name, "reset", "on", ">word"][..],
                rights,
            ]
            .concat(),
        )
        .await
        .unwrap();
    server
        .url()
        .replace("redis://", &format!("redis://{name}:word@"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn server_that_refuses_its_user_ends_the_start_with_a_sentence() {
    let (_folder, secret) = secret_key();
    let server = testing::Server::start().await;
    let closed = testing::Server::start_with(&["--requirepass", "word"]).await;
    let wrong = |url: String, with: &str| url.replace("redis://", &format!("redis://{with}@"));
    let deaf = user(&server, "deaf", &["~*", "resetchannels", "+@all"]).await;
    let mute = user(&server, "mute", &["~*", "&*", "+@all", "-publish"]).await;
    let stranger = user(&server, "stranger", &["~other:*", "&*", "+@all"]).await;
    let halting = user(
        &server,
        "halting",
        &["~*", "&*", "+@all", "-rpush", "-zrem"],
    )
    .await;
    for (url, says) in [
        (closed.url(), &["wants a password", "--redis"][..]),
        (
            wrong(closed.url(), ":wrong"),
            &["refuses the user or the password"],
        ),
        (
            wrong(server.url(), "nobody:wrong"),
            &["refuses the user or the password"],
        ),
        (
            format!("{}/99", server.url()),
            &["no database of that number"],
        ),
        (
            deaf,
            &[
                "publish on its channels",
                "ACL SETUSER deaf ~chaos:* &chaos@0:*",
            ],
        ),
        (mute, &["publish on its channels", "+@pubsub"]),
        (stranger, &["run scripts on its keys", "~chaos:*"]),
        (halting, &["run ZREM, RPUSH", "+@write"]),
    ] {
        let sentence = refuses_to_start(&over_redis(&url, &secret)).await;
        assert!(
            says.iter().all(|word| sentence.contains(word)),
            "{sentence}"
        );
        assert!(
            !sentence.contains("wrong@") && !sentence.contains(":word"),
            "{sentence}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn user_with_exactly_the_granted_rights_is_enough() {
    let (_folder, secret) = secret_key();
    let server = testing::Server::start().await;
    let nothing = user(&server, "chaos", &["~*", "+@all"]).await;
    let sentence = refuses_to_start(&over_redis(&nothing, &secret)).await;
    let grants: Vec<&str> = sentence
        .split("ACL SETUSER chaos ")
        .nth(1)
        .unwrap()
        .split_whitespace()
        .collect();
    let url = user(&server, "chaos", &grants).await;
    let node = Chaos::spawn(&over_redis(&url, &secret));
    let shop = Shop::open(node.address().await, ADMIN).await;
    shop.group("general", &["alice"]).await;
    let (alice, mut events) = shop.connects("alice", Encoding::MessagePack).await;
    alice
        .call::<MessageSend>(
            &"general".parse().unwrap(),
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
    assert!(!node.log().contains("NOPERM"), "{}", node.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eviction_is_found_without_info() {
    let (_folder, secret) = secret_key();
    let server = testing::Server::start_with(&["--maxmemory-policy", "allkeys-lru"]).await;
    let without_info = user(&server, "without-info", &["~*", "&*", "+@all", "-info"]).await;
    let sentence = refuses_to_start(&over_redis(&without_info, &secret)).await;
    assert!(
        sentence.contains("allkeys-lru") && sentence.contains("set maxmemory-policy noeviction"),
        "{sentence}"
    );
    let blind = user(&server, "blind", &["~*", "&*", "+@all", "-info", "-config"]).await;
    let node = Chaos::spawn(&over_redis(&blind, &secret));
    node.address().await;
    until("it says that it cannot tell", || async {
        node.log().contains("it is unknown whether it evicts keys")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn late_server_that_refuses_its_user_ends_the_node() {
    let (_folder, secret) = secret_key();
    let mut server = testing::Server::start_with(&["--requirepass", "word"]).await;
    server.kill9();
    let mut node = Chaos::spawn(&over_redis(&server.url(), &secret));
    node.address().await;
    server.restart().await;
    assert_eq!(node.ends().await.code(), Some(2));
    assert!(node.log().contains("wants a password"), "{}", node.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_that_may_not_subscribe_any_more_is_not_ready() {
    let world = World::on(Ground::Redis).await;
    until("it is ready", || async { world.readiness(0).await == 200 }).await;
    let general = world.channel("group", "general", &["alice"]).await;
    let _alice = world.connects("alice").await;
    server(&world)
        .command(&["ACL", "SETUSER", "default", "resetchannels"])
        .await
        .unwrap();
    until("it is not ready", || async {
        world.readiness(0).await == 503
    })
    .await;
    server(&world)
        .command(&["ACL", "SETUSER", "default", "&*"])
        .await
        .unwrap();
    until("it is ready again", || async {
        world.readiness(0).await == 200
    })
    .await;
    let mut alice = world.connects("alice").await;
    alice.sends(&general, "hi").await;
    alice.sees("hi").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_server_takes_deletions_and_says_that_it_is_full() {
    let world = World::with(Ground::Redis, 1, &["--limit", "unauthenticated_per_ip=0"]).await;
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
    alice.hears("channel.deleted").await;
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

    // An export of the one store under the key that another store is not sealed under.
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
