//! Sends that rely on what the session has read before: what the first one costs the store, and when
//! later ones are refused.

use serde_json::json;

use crate::{
    redis_server::server,
    story::{StoreKind, World, until},
};

/// Returns how many scripts a Redis has run.
async fn scripts(world: &World) -> u64 {
    let answer = server(world)
        .command(&["INFO", "commandstats"])
        .await
        .unwrap();
    let stats: String = redis::from_redis_value(answer).unwrap();
    let calls = |line: &str| -> Option<u64> {
        let (_, calls) = line.strip_prefix("cmdstat_eval")?.split_once("calls=")?;
        calls.split(',').next()?.parse().ok()
    };
    stats.lines().filter_map(calls).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn first_sends_take_one_script_each() {
    const CHANNELS: u64 = 40;
    let world = World::on(StoreKind::Redis).await;
    let mut channels = Vec::new();
    for n in 0..CHANNELS {
        let name = format!("room-{n}");
        channels.push(world.channel("group", &name, &["alice", "bob"]).await);
    }
    let names: Vec<String> = (0..CHANNELS).map(|n| format!("user-{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    world.people(&names).await;
    for name in names {
        let made: serde_json::Value = world
            .backend(&world.app_key)
            .post(
                "/v1/channels",
                &json!({ "type": "direct", "participant_ids": ["alice", name] }),
            )
            .await
            .unwrap();
        channels.push(made["id"].as_str().unwrap().parse().unwrap());
    }
    let alice = world.connects("alice").await;
    let before = scripts(&world).await;
    for channel in &channels {
        alice.sends(channel, "hi").await;
    }
    let run = scripts(&world).await - before;
    // Other work of the node runs some, too.
    assert!(run <= 2 * CHANNELS + CHANNELS / 2, "{run} scripts");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn first_send_after_a_change_of_role_is_judged_by_the_new_role() {
    let world = World::on(StoreKind::Redis).await;
    let general = world.channel("group", "general", &["alice", "bob"]).await;
    let path = "/v1/channels/general/participants/alice";
    let app = world.backend(&world.app_key);
    let set = async |role: &str| {
        let _: serde_json::Value = app.patch(path, &json!({ "role": role })).await.unwrap();
    };
    set("observer").await;
    let alice = world.connects("alice").await;
    set("member").await;
    alice.sends(&general, "a member sends").await;
    let alice = world.connects("alice").await;
    set("observer").await;
    let refused = alice
        .is_refused(
            "message.send",
            json!({ "channel_id": "general", "text": "no" }),
        )
        .await;
    assert_eq!(refused, protocol::ErrorCode::Forbidden);
}

on_both_stores! {
    async fn every_send_to_a_deleted_user_is_refused(world: World) {
        world.people(&["alice", "bob"]).await;
        let app = world.backend(&world.app_key);
        let users = json!({ "type": "direct", "participant_ids": ["alice", "bob"] });
        let direct: serde_json::Value = app.post("/v1/channels", &users).await.unwrap();
        let channel = direct["id"].as_str().unwrap().parse().unwrap();
        let alice = world.connects("alice").await;
        alice.sends(&channel, "before").await;
        app.delete::<()>("/v1/users/bob").await.unwrap();
        let send = || alice.is_refused("message.send", json!({ "channel_id": channel, "text": "?" }));
        // The user leaves the channel when its content is cleared.
        until("the deleted user has left", async || {
            let left: serde_json::Value = app.get(&format!("/v1/channels/{channel}")).await.unwrap();
            left["participant_count"] == 1
        })
        .await;
        for _ in 0..3 {
            assert_eq!(send().await, protocol::ErrorCode::Forbidden);
        }
    }
}
