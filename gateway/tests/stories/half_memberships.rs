//! An addition or removal that is interrupted between the channel and the user's index is completed
//! without a repeat, and delivered to the user's sessions.

use protocol::UserId;
use serde_json::{Value, json};

use crate::fragile::Fragile;

/// Maximum number of writes of an addition or a removal.
const WRITES: i64 = 4;

on_both_stores! {
    async fn interrupted_addition_is_delivered_without_a_repeat(fragile: Fragile) {
        let world = &fragile.world;
        let general = world.channel("group", "general", &["alice"]).await;
        for writes in 0..WRITES {
            let name = format!("bob-{writes}");
            world.people(&[&name]).await;
            let mut bob = world.connects(&name).await;
            fragile.fails_after(writes);
            let added = world.team().post::<Value>("/v1/channels/general/participants", &json!({ "user_id": name })).await;
            fragile.is_mended();
            let user: UserId = name.parse().unwrap();
            let is_in = world.team().get::<Value>(&format!("/v1/channels/{general}/participants/{user}")).await.is_ok();
            assert!(is_in || added.is_err(), "after {writes} writes");
            if is_in {
                bob.receives("channel.added").await;
            } else {
                bob.receives_nothing().await;
            }
        }
    }

    async fn interrupted_creation_is_delivered_to_participants_without_a_repeat(fragile: Fragile) {
        let world = &fragile.world;
        for writes in 0..WRITES + 2 {
            let name = format!("carol-{writes}");
            world.people(&[&name]).await;
            let mut carol = world.connects(&name).await;
            let id = format!("room-{writes}");
            let body = json!({ "id": id, "type": "group", "participant_ids": [name] });
            fragile.fails_after(writes);
            let made = world.team().post::<Value>("/v1/channels", &body).await;
            fragile.is_mended();
            let is_there = world.team().get::<Value>(&format!("/v1/channels/{id}")).await.is_ok();
            assert!(is_there || made.is_err(), "after {writes} writes");
            if is_there {
                carol.receives("channel.added").await;
            } else {
                carol.receives_nothing().await;
            }
        }
    }

    async fn interrupted_removal_is_delivered_without_a_repeat(fragile: Fragile) {
        let world = &fragile.world;
        for writes in 0..WRITES {
            let name = format!("dave-{writes}");
            let general = world.channel("group", &format!("room-{writes}"), &["alice", &name]).await;
            let mut dave = world.connects(&name).await;
            fragile.fails_after(writes);
            let path = format!("/v1/channels/{general}/participants/{name}");
            let removed = world.team().delete::<Value>(&path).await;
            fragile.is_mended();
            let is_in = world.team().get::<Value>(&path).await.is_ok();
            assert!(!is_in || removed.is_err(), "after {writes} writes");
            if is_in {
                dave.receives_nothing().await;
            } else {
                dave.receives("channel.removed").await;
            }
        }
    }
}
