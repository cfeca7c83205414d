//! Rights and passwords of the node's Redis user.

use std::time::Duration;

use client::Backend;
use protocol::{
    Encoding, ErrorCode,
    operation::message::{MessageDelete, MessageSend, SendMessage},
};
use redis_testing as testing;

use crate::{
    kill::refuses_to_start,
    nodes::{ADMIN, over_redis, secret_key},
    process::{Chaos, Shop},
    redis_server::server,
    story::{StoreKind, World, until},
};

/// Creates a Redis user with this password and these rights, and returns its URL.
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
    until("it reports that eviction is unknown", || async {
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
    let world = World::on(StoreKind::Redis).await;
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
async fn node_over_a_server_that_begins_to_evict_stores_nothing_and_says_why() {
    let (_folder, secret) = secret_key();
    let server = testing::Server::start().await;
    let node = Chaos::spawn(&over_redis(&server.url(), &secret));
    let shop = Shop::open(node.address().await, ADMIN).await;
    shop.group("general", &["alice"]).await;
    let (alice, _events) = shop.connects("alice", Encoding::MessagePack).await;
    let channel = "general".parse().unwrap();
    let send = async || {
        let message = SendMessage {
            text: Some("hi".into()),
            ..SendMessage::default()
        };
        alice.call::<MessageSend>(&channel, &message).await
    };
    let readyz = async || {
        let url = format!("http://{}", node.address().await);
        let backend = Backend::new(&url, "").unwrap();
        let answer = backend
            .request(hyper::Method::GET, "/readyz")
            .send()
            .await
            .unwrap();
        let body = String::from_utf8_lossy(&answer.body).into_owned();
        (answer.status.as_u16(), body)
    };
    let sent = send().await.unwrap();
    let set_policy = async |policy: &str| {
        server
            .command(&["CONFIG", "SET", "maxmemory-policy", policy])
            .await
            .unwrap()
    };
    set_policy("allkeys-lru").await;
    let advice = "set maxmemory-policy noeviction";
    until("the node is not ready, and says why", || async {
        let (status, body) = readyz().await;
        status == 503 && body.contains("allkeys-lru") && body.contains(advice)
    })
    .await;
    let address = server.address().to_string();
    until("the log says why", || async {
        node.log()
            .lines()
            .any(|line| line.contains(&address) && line.contains(advice))
    })
    .await;
    let error = send().await.unwrap_err();
    let refusal = error.refusal().unwrap();
    assert_eq!(refusal.code, ErrorCode::Unavailable, "{error}");
    assert!(refusal.message.contains("full"), "{error}");
    alice
        .call::<MessageDelete>((&channel, &sent.id), ())
        .await
        .expect("deletions are done");
    set_policy("noeviction").await;
    until("the node is ready again", || async {
        readyz().await.0 == 200
    })
    .await;
    send().await.unwrap();
}
