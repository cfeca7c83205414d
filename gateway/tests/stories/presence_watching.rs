//! Presence: online at once, offline ten seconds after the last session, delivered to
//! watchers.

use std::time::{Duration, Instant};

use protocol::{
    Encoding, ErrorCode,
    operation::session::{Connect, Watch},
};
use serde_json::json;

use crate::story::{Person, SILENCE, StoreKind, World, has_exactly, until};

/// Bob connects and disconnects at alice's node or at another one.
async fn comes_and_goes(world: &World, elsewhere: usize) {
    world.people(&["alice", "bob", "carol"]).await;
    let quiet = Connect {
        watch: Watch::None,
        ..Connect::default()
    };
    let mut alice = world
        .connects_to(0, "alice", Encoding::MessagePack, quiet.clone())
        .await;
    let mut as_json = world
        .connects_to(0, "alice", Encoding::Json, quiet.clone())
        .await;
    for watcher in [&alice, &as_json] {
        let answer = watcher
            .asks(
                "presence.watch",
                json!({ "user_ids": ["bob", "carol", "nobody"] }),
            )
            .await;
        has_exactly(&answer, "presence");
        has_exactly(&answer["presence"], "bob carol nobody");
        for name in ["bob", "carol", "nobody"] {
            has_exactly(&answer["presence"][name], "online at");
            assert_eq!(answer["presence"][name]["online"], false, "{name}");
        }
    }
    let began = Instant::now();
    let bob = world
        .connects_to(elsewhere, "bob", Encoding::MessagePack, quiet.clone())
        .await;
    let told = alice.receives_raw("presence.changed").await;
    assert!(began.elapsed() < Duration::from_secs(3), "at once");
    has_exactly(&told, "event data");
    has_exactly(&told["data"], "user_id online at");
    assert_eq!(
        (&told["data"]["user_id"], &told["data"]["online"]),
        (&json!("bob"), &json!(true))
    );
    assert_eq!(as_json.receives_raw("presence.changed").await, told);
    until("whoever asks is told too", || async {
        is_online(&alice, "bob").await
    })
    .await;

    // With a second session, the end of the first has no effect; nor has a timely reconnection.
    let second = world
        .connects_to(0, "bob", Encoding::Json, quiet.clone())
        .await;
    drop(bob);
    drop(second);
    let third = world
        .connects_to(elsewhere, "bob", Encoding::MessagePack, quiet)
        .await;
    // A node that does not know the publication of another one may publish again, and nothing
    // else.
    while let Ok(event) = tokio::time::timeout(SILENCE, alice.events.next()).await {
        assert_eq!(event.unwrap().data["online"], true);
    }
    third.session.close(1000, "").await;
    let left = Instant::now();
    let told = alice.receives_raw("presence.changed").await;
    let after = left.elapsed();
    assert!(
        (Duration::from_secs(9)..Duration::from_secs(13)).contains(&after),
        "ten seconds after the last session ended: {after:?}"
    );
    has_exactly(&told["data"], "user_id online last_seen at");
    assert_eq!(told["data"]["online"], false);
    let answer = alice
        .asks("presence.watch", json!({ "user_ids": ["bob"] }))
        .await;
    has_exactly(&answer["presence"]["bob"], "online last_seen at");
    assert_eq!(
        answer["presence"]["bob"]["last_seen"],
        told["data"]["last_seen"]
    );
    let (asked, told) = (
        answer["presence"]["bob"]["at"].as_u64().unwrap(),
        told["data"]["at"].as_u64().unwrap(),
    );
    assert!(
        asked + 500 > told,
        "the clock is the store's, as each node estimates it: {asked}, {told}"
    );
}

async fn is_online(person: &Person, name: &str) -> bool {
    let answer = person
        .asks("presence.watch", json!({ "user_ids": [name, "carol"] }))
        .await;
    answer["presence"][name]["online"] == true
}

on_both_stores! {
    async fn user_is_online_at_once_and_offline_ten_seconds_after_the_last_session(world: World) {
        comes_and_goes(&world, 0).await;
    }

    async fn watching_replaces_the_set_before(world: World) {
        world.people(&["alice", "bob", "carol"]).await;
        let mut alice = world.connects("alice").await;
        alice.asks("presence.watch", json!({ "user_ids": ["bob"] })).await;
        alice.asks("presence.watch", json!({ "user_ids": ["carol"] })).await;
        let _bob = world.connects("bob").await;
        let _carol = world.connects("carol").await;
        assert_eq!(alice.receives("presence.changed").await.data["user_id"], "carol");
        alice.receives_nothing().await;
        assert_eq!(alice.asks("presence.watch", json!({ "user_ids": [] })).await, json!({ "presence": {} }));
        let many: Vec<String> = (0..101).map(|n| format!("user-{n}")).collect();
        assert_eq!(alice.is_refused("presence.watch", json!({ "user_ids": many })).await, ErrorCode::BadRequest);
    }

    async fn ids_that_nobody_has_join_no_topic(world: World) {
        world.people(&["alice", "bob"]).await;
        let mut alice = world.connects("alice").await;
        let topics = world.metric(0, "chaos_topics").await;
        let mut ids: Vec<String> = (0..98).map(|n| format!("nobody-{n}")).collect();
        ids.extend(["bob", "carol"].map(str::to_owned));
        let answer = alice.asks("presence.watch", json!({ "user_ids": ids })).await;
        assert_eq!(answer["presence"].as_object().unwrap().len(), 100, "an unknown id is offline");
        assert_eq!(world.metric(0, "chaos_topics").await, topics + 1.0);
        world.people(&["carol"]).await;
        let _carol = world.connects("carol").await;
        let _bob = world.connects("bob").await;
        assert_eq!(alice.receives("presence.changed").await.data["user_id"], "bob", "carol was nobody when she was watched");
        let answer = alice.asks("presence.watch", json!({ "user_ids": ["bob", "carol"] })).await;
        assert_eq!(answer["presence"]["carol"]["online"], true);
        assert_eq!(world.metric(0, "chaos_topics").await, topics + 4.0, "with those of both sessions");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn presence_is_delivered_across_nodes() {
    let world = World::with(StoreKind::Redis, 2, &[]).await;
    comes_and_goes(&world, 1).await;
}
