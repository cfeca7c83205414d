//! Operations that a failing store interrupts: they are completed, and
//! subscribers receive the result.
//!
//! Redis denies the node some of the keys, which fails exactly one step.

use domain::{
    index,
    schema::{PARTICIPANT_COUNT, PARTICIPANTS, Scope},
};
use protocol::{
    ChannelId, Cursor, Encoding, ErrorCode,
    entity::{Environment, Gap},
    event::{Event, EventMessage, GapData},
    operation::{
        channel::{ChannelSubscribe, ChannelUnsubscribe, Subscribe, Unsubscribe},
        message::{MessageSend, SendMessage},
        session::Ping,
    },
};
use redis_testing as testing;
use serde_json::{Value, json};
use store::{Commit, Counter, Expected, Increment};

use crate::{
    nodes::{ADMIN, over_redis, secret_key},
    process::{Chaos, Shop},
    story::{Person, TIMEOUT, World, refusal, until},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn interrupted_subscribe_sends_a_gap_and_continues() {
    let (_folder, secret) = secret_key();
    let mut forgetful = testing::Server::start_with(&["--appendonly", "no", "--save", ""]).await;
    let node = Chaos::spawn(&over_redis(&forgetful.url(), &secret));
    let address = node.address().await;
    let shop = Shop::open(address, ADMIN).await;
    shop.group("general", &["alice"]).await;
    let general: ChannelId = "general".parse().unwrap();
    let (alice, mut events) = shop.connects("alice", Encoding::MessagePack).await;
    let mut next = async || {
        tokio::time::timeout(TIMEOUT, events.next())
            .await
            .unwrap()
            .unwrap()
    };
    let says = |text: &str| SendMessage {
        text: Some(text.into()),
        ..SendMessage::default()
    };
    let kept = alice
        .call::<MessageSend>(&general, &says("kept"))
        .await
        .unwrap();
    forgetful.command(&["SAVE"]).await.unwrap();
    let lost = alice
        .call::<MessageSend>(&general, &says("lost"))
        .await
        .unwrap();
    assert_eq!(
        [next().await.seq, next().await.seq],
        [Some(kept.seq), Some(lost.seq)]
    );

    // Only the logs cannot be read, which a resume reads last.
    let all_but_logs = ["~*d", "~*s", "~*t", "~*[0-9]"];
    forgetful
        .command(
            &[
                &["ACL", "SETUSER", "default", "resetkeys"][..],
                &all_but_logs,
            ]
            .concat(),
        )
        .await
        .unwrap();
    let resume = [(general.clone(), Cursor::After(kept.seq, kept.created_at))].into();
    let error = alice
        .call::<ChannelSubscribe>((), Subscribe { channels: resume })
        .await
        .unwrap_err();
    assert_eq!(
        error.refusal().map(|error| error.code),
        Some(ErrorCode::Unavailable),
        "{error}"
    );
    let interrupted = gap(next().await);
    assert_eq!(
        (interrupted.reason, interrupted.seq),
        (Gap::Trimmed, lost.seq),
        "it goes on from there"
    );
    // Then the history is replaced.
    forgetful.kill9();
    forgetful.restart().await;
    let diverged = gap(next().await);
    assert_eq!((diverged.reason, diverged.seq), (Gap::Diverged, kept.seq));
    let on = alice
        .call::<MessageSend>(&general, &says("on"))
        .await
        .unwrap();
    assert_eq!((next().await.seq, on.seq), (Some(on.seq), kept.seq + 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unsubscribe_cancels_a_subscription_that_waits_for_the_store() {
    let (_folder, secret) = secret_key();
    let server = testing::Server::start().await;
    server
        .command(&[
            "ACL", "SETUSER", "other", "on", ">word", "~*", "&*", "+@all",
        ])
        .await
        .unwrap();
    let (front, other) = (
        Chaos::spawn(&over_redis(&server.url(), &secret)),
        Chaos::spawn(&over_redis(
            &server.url().replace("redis://", "redis://other:word@"),
            &secret,
        )),
    );
    let team = Shop::open(other.address().await, ADMIN).await;
    team.group("general", &["bob"]).await;
    let general: ChannelId = "general".parse().unwrap();
    team.team()
        .put::<Value>("/v1/users/alice", &json!({}))
        .await
        .unwrap();
    let shop = Shop {
        organization: String::new(),
        app_key: team.app_key.clone(),
        ..Shop::open(front.address().await, ADMIN).await
    };
    let (leaving, mut leaving_hears) = shop.connects("alice", Encoding::MessagePack).await;
    let (_staying, mut staying_hears) = shop.connects("alice", Encoding::MessagePack).await;
    let mut next = async || {
        tokio::time::timeout(TIMEOUT, staying_hears.next())
            .await
            .unwrap()
            .unwrap()
    };

    // The front node cannot read channels, but receives records of the bus.
    server
        .command(&["ACL", "SETUSER", "default", "resetkeys", "~chaos:{[^c]*"])
        .await
        .unwrap();
    team.team()
        .post::<Value>(
            "/v1/channels/general/participants",
            &json!({ "user_id": "alice" }),
        )
        .await
        .unwrap();
    assert_eq!(next().await.event, "channel.added");
    until("both wait", || async {
        front
            .log()
            .matches("cannot subscribe outside of a request")
            .count()
            >= 2
    })
    .await;
    leaving
        .call::<ChannelUnsubscribe>(
            (),
            Unsubscribe {
                channel_ids: vec![general],
            },
        )
        .await
        .unwrap();
    server
        .command(&["ACL", "SETUSER", "default", "~*"])
        .await
        .unwrap();

    for text in ["one", "two"] {
        let body = json!({ "sender_id": "bob", "text": text });
        team.team()
            .post::<Value>("/v1/channels/general/messages", &body)
            .await
            .unwrap();
        while next().await.event != "message.created" {}
    }
    leaving.call::<Ping>((), ()).await.unwrap();
    let first = tokio::time::timeout(TIMEOUT, leaving_hears.next())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(first.event, "channel.added");
    assert!(leaving_hears.try_next_frame().is_none(), "it unsubscribed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readded_user_receives_removed_and_added_after_interrupted_removal() {
    let (_folder, secret) = secret_key();
    let server = testing::Server::start().await;
    let node = Chaos::spawn(&over_redis(&server.url(), &secret));
    let shop = Shop::open(node.address().await, ADMIN).await;
    shop.group("general", &["bob", "alice"]).await;
    let (_alice, mut events) = shop.connects("alice", Encoding::MessagePack).await;
    let mut next = async || {
        tokio::time::timeout(TIMEOUT, events.next())
            .await
            .unwrap()
            .unwrap()
    };
    let (general, alice) = (
        "/v1/channels/general",
        "/v1/channels/general/participants/alice",
    );
    let (team, says) = (
        shop.team(),
        |text: &str| json!({ "sender_id": "bob", "text": text }),
    );

    // The channel can be written, the user's own partition cannot.
    server
        .command(&["ACL", "SETUSER", "default", "resetkeys", "~chaos:{[^u]*"])
        .await
        .unwrap();
    let error = team
        .request(hyper::Method::DELETE, alice)
        .send()
        .await
        .unwrap();
    assert_eq!(error.status.as_u16(), 503);
    let refused = refusal(
        team.post::<Value>(&format!("{general}/messages"), &says("unheard"))
            .await,
    );
    assert_eq!(
        refused,
        (503, ErrorCode::Unavailable),
        "the sender cannot be looked up"
    );
    server
        .command(&["ACL", "SETUSER", "default", "~*"])
        .await
        .unwrap();
    team.post::<Value>(
        &format!("{general}/participants"),
        &json!({ "user_id": "alice" }),
    )
    .await
    .unwrap();
    let heard = team
        .post::<Value>(&format!("{general}/messages"), &says("heard"))
        .await
        .unwrap();

    assert_eq!(
        [next().await.event, next().await.event],
        ["channel.removed", "channel.added"]
    );
    let event = next().await;
    assert_eq!(
        (event.event.as_str(), event.seq),
        ("message.created", heard["seq"].as_u64())
    );
}

on_both_stores! {
    async fn completed_half_removal_is_delivered_to_the_user(world: World) {
        let general = world.channel("group", "general", &["bob", "alice"]).await;
        let mut alice = world.connects("alice").await;
        let (services, alices) = (&world.nodes[0].services, format!("/v1/channels/{general}/participants/alice"));
        let scope = Scope { app: world.app.parse().unwrap(), environment: Environment::Live };
// Only the channel is written.
        let half = async || {
            let mut gone = Commit::default().require(PARTICIPANTS, "alice", Expected::Present).delete(PARTICIPANTS, "alice");
            gone.increment.push(Increment { counter: Counter::Partition(PARTICIPANT_COUNT), by: -1, max: None, max_names: None });
            services.store.commit(&scope.channel(&general), gone).await.unwrap().unwrap();
        };
        half().await;
        world.team().post::<Value>(&format!("/v1/channels/{general}/participants"), &json!({ "user_id": "alice" })).await.unwrap();
        assert_eq!([own(&mut alice).await, own(&mut alice).await], ["channel.removed", "channel.added"], "by who adds");
        half().await;
        assert_eq!(refusal(world.team().delete::<()>(&alices).await), (404, ErrorCode::NotFound));
        assert_eq!(own(&mut alice).await, "channel.removed", "by who removes again");
        assert!(index::channel_ids_of(services, &scope, &"alice".parse().unwrap()).await.unwrap().is_empty());
    }

    async fn moderator_completes_an_interrupted_removal(world: World) {
        let general = world.channel("group", "general", &["bob", "alice", "carol"]).await;
        let carols = format!("/v1/channels/{general}/participants/carol");
        world.team().patch::<Value>(&carols, &json!({ "role": "moderator" })).await.unwrap();
        let (mut alice, carol) = (world.connects("alice").await, world.connects("carol").await);
        let services = &world.nodes[0].services;
        let scope = Scope { app: world.app.parse().unwrap(), environment: Environment::Live };
        let mut gone = Commit::default().require(PARTICIPANTS, "alice", Expected::Present).delete(PARTICIPANTS, "alice");
        gone.increment.push(Increment { counter: Counter::Partition(PARTICIPANT_COUNT), by: -1, max: None, max_names: None });
        services.store.commit(&scope.channel(&general), gone).await.unwrap().unwrap();

        let removal = json!({ "channel_id": general, "user_id": "alice" });
        assert_eq!(carol.is_refused("participant.remove", removal).await, ErrorCode::NotFound);
        assert_eq!(own(&mut alice).await, "channel.removed");
        assert!(index::channel_ids_of(services, &scope, &"alice".parse().unwrap()).await.unwrap().is_empty());
    }
}

/// Returns the next event of the own stream; skips events of channels.
async fn own(person: &mut Person) -> String {
    loop {
        let event = person.next().await;
        if event.channel_id.is_none() {
            return event.event;
        }
    }
}

fn gap(event: EventMessage) -> GapData {
    match event.read().unwrap() {
        Event::ChannelGap(gap) => gap,
        other => panic!("a gap was expected, not {other:?}"),
    }
}
