//! Losses in the user's own stream by Redis or the bus: the session finds the channels that the
//! user is in, and receives nothing of others, with and without a reconnection.

use std::cell::RefCell;

use domain::schema::{CHANNELS, PARTICIPANTS, Scope};
use protocol::{Encoding, ErrorCode, UserId, entity::Environment, event::Event};
use redis_testing as testing;
use serde_json::{Value, json};
use store::{Commit, Expected};

use crate::{
    nodes::{ADMIN, over_redis, secret_key},
    process::{Chaos, Shop},
    story::{StoreKind, StoreProcess, TIMEOUT, World, until},
};

/// A node over a Redis that keeps only saved data, and a user's session on it.
struct Forgetful {
    _folder: tempfile::TempDir,
    redis: testing::Server,
    _node: Chaos,
    shop: Shop,
    _alice: client::Session,
    events: client::Events,
}

impl Forgetful {
    async fn new(people: &[&str]) -> Self {
        let (folder, secret) = secret_key();
        let redis = testing::Server::start_with(&["--appendonly", "no", "--save", ""]).await;
        let node = Chaos::spawn(&over_redis(&redis.url(), &secret));
        let shop = Shop::open(node.address().await, ADMIN).await;
        shop.group("general", people).await;
        shop.group("alices", &["alice"]).await;
        let (alice, events) = shop.connects("alice", Encoding::MessagePack).await;
        redis.command(&["SAVE"]).await.unwrap();
        Self {
            _folder: folder,
            redis,
            _node: node,
            shop,
            _alice: alice,
            events,
        }
    }

    async fn next(&mut self) -> protocol::event::EventMessage {
        tokio::time::timeout(TIMEOUT, self.events.next())
            .await
            .expect("something is told")
            .expect("the session goes on")
    }

    async fn receives(&mut self, event: &str) {
        assert_eq!(self.next().await.event, event);
    }

    /// Returns the next event that is not a gap.
    async fn receives_after_gaps(&mut self) -> protocol::event::EventMessage {
        loop {
            let event = self.next().await;
            if event.event != "channel.gap" {
                return event;
            }
        }
    }

    /// Posts a message, and retries until Redis is back.
    async fn posts(&self, channel: &str) -> Option<u64> {
        let sender = if channel == "general" { "bob" } else { "alice" };
        let body = json!({ "sender_id": sender, "text": "hello" });
        let path = format!("/v1/channels/{channel}/messages");
        let team = self.shop.team();
        let seq = RefCell::new(None);
        until("a message is posted", async || {
            let posted = team.post::<Value>(&path, &body).await;
            if let Some(refused) = posted.as_ref().err().and_then(|error| error.refusal()) {
                assert_eq!(refused.code, ErrorCode::Unavailable, "{refused:?}");
            }
            let is_posted = posted.is_ok();
            *seq.borrow_mut() = posted.ok().and_then(|message| message["seq"].as_u64());
            is_posted
        })
        .await;
        seq.take()
    }

    async fn loses_what_was_not_saved(&mut self) {
        self.redis.kill9();
        self.redis.restart().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn user_whose_delivered_removal_was_lost_receives_the_channel_again() {
    let mut world = Forgetful::new(&["alice", "bob"]).await;
    let path = "/v1/channels/general/participants/alice";
    world.shop.team().delete::<Value>(path).await.unwrap();
    world.receives("channel.removed").await;
    world.loses_what_was_not_saved().await;

    let own = world.next().await;
    assert_eq!((&*own.event, &own.channel_id), ("channel.gap", &None));
    let gap = world.next().await;
    assert_eq!(gap.channel_id, Some("general".parse().unwrap()));
    let Event::ChannelGap(_) = gap.read().unwrap() else {
        panic!("{gap:?} is no gap");
    };
    let posted = world.posts("general").await;
    assert_eq!(world.next().await.seq, posted);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn user_whose_delivered_addition_was_lost_receives_nothing_of_the_channel() {
    let mut world = Forgetful::new(&["bob"]).await;
    let body = json!({ "user_id": "alice" });
    let path = "/v1/channels/general/participants";
    let team = world.shop.team();
    team.post::<Value>(path, &body).await.unwrap();
    world.receives("channel.added").await;
    world.posts("general").await;
    world.receives("message.created").await;
    world.loses_what_was_not_saved().await;

    world.posts("general").await;
    world.posts("alices").await;
    let heard = world.receives_after_gaps().await;
    assert_eq!(heard.channel_id, Some("alices".parse().unwrap()));
}

/// A failover of one shard loses an event of the user's stream, while the topic's position
/// equals that of the log.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn session_compares_its_channels_after_the_bus_lost_its_connection() {
    let world = World::on(StoreKind::Redis).await;
    let general = world.channel("group", "general", &["bob"]).await;
    world.people(&["alice"]).await;
    let mut alice = world.connects("alice").await;
    let bob = world.connects("bob").await;

    let services = &world.nodes[0].services;
    let scope = Scope {
        app: world.app.parse().unwrap(),
        environment: Environment::Live,
    };
    let [alices, bobs] = ["alice", "bob"].map(|name| name.parse::<UserId>().unwrap());
    let copies = [
        (
            scope.user(&alices),
            CHANNELS,
            scope.user(&bobs),
            "general",
            "general",
        ),
        (
            scope.channel(&general),
            PARTICIPANTS,
            scope.channel(&general),
            "bob",
            "alice",
        ),
    ];
    for (to, table, from, key, new) in copies {
        let snapshot = services
            .snapshot(from, vec![(table, key.into())])
            .await
            .unwrap();
        let body = snapshot.documents[0].as_ref().unwrap().value.clone();
        let put = Commit::default()
            .require(table, new, Expected::Absent)
            .put(table, new, body);
        services.store.commit(&to, put).await.unwrap().unwrap();
    }
    let StoreProcess::Redis(redis, _) = &world.store_process else {
        unreachable!("the world is on Redis")
    };
    redis
        .command(&["CLIENT", "KILL", "TYPE", "pubsub"])
        .await
        .unwrap();

    let gap = alice.receives("channel.gap").await;
    assert_eq!(gap.channel_id, Some(general.clone()));
    bob.sends(&general, "hello").await;
    alice.sees("hello").await;
}
