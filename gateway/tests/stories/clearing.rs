//! Deletion jobs while one partition cannot be written: the others are cleared at once, and
//! that one later.

use domain::{
    index,
    schema::{ENTITY, ONLY, PARTICIPANTS, Scope},
};
use protocol::{ChannelId, UserId, entity::Environment};
use serde_json::{Value, json};
use store::Table;

use crate::{
    fragile::Fragile,
    story::{World, until},
};

/// Number of channels that cannot be written: as many as one step of a deletion clears.
const STUCK: usize = 100;
const CHANNELS: usize = STUCK + 5;

fn scope(world: &World) -> Scope {
    Scope {
        app: world.app.parse().unwrap(),
        environment: Environment::Live,
    }
}

async fn is_there(world: &World, channel: &ChannelId, table: Table, key: &str) -> bool {
    let snapshot = world.nodes[0]
        .services
        .snapshot(scope(world).channel(channel), vec![(table, key.into())])
        .await
        .unwrap();
    snapshot.documents[0].is_some()
}

on_both_stores! {
    async fn deleted_user_leaves_its_other_channels_though_some_cannot_be_written(fragile: Fragile) {
        let world = &fragile.world;
        world.people(&["alice"]).await;
        let ids: Vec<ChannelId> = (0..CHANNELS).map(|n| format!("group-{n:04}").parse().unwrap()).collect();
        for id in &ids {
            let _: Value = world.team().post("/v1/channels", &json!({ "id": id, "type": "group", "creator_id": "alice" })).await.unwrap();
        }
        let alice: UserId = "alice".parse().unwrap();
        fragile.cannot_write(ids[..STUCK].iter().map(|id| scope(world).channel(id)));
        world.team().delete::<()>("/v1/users/alice").await.unwrap();
        until("she is out of the last channel", || async { !is_there(world, &ids[CHANNELS - 1], PARTICIPANTS, "alice").await }).await;
        assert!(is_there(world, &ids[0], PARTICIPANTS, "alice").await);
        fragile.cannot_write(None);
        until("she is out of the first channel", || async { !is_there(world, &ids[0], PARTICIPANTS, "alice").await }).await;
        let services = &world.nodes[0].services;
        until("her index is empty", || async { index::channel_ids_of(services, &scope(world), &alice).await.unwrap().is_empty() }).await;
    }

    async fn deleted_app_is_cleared_though_one_channel_cannot_be_written(fragile: Fragile) {
        let world = &fragile.world;
        let (stuck, other) = (world.channel("group", "a-stuck", &["alice"]).await, world.channel("group", "b-other", &["alice"]).await);
        let alice = world.connects("alice").await;
        alice.sends(&other, "to be gone").await;
        fragile.cannot_write(Some(scope(world).channel(&stuck)));
        let path = format!("/v1/organizations/{}/apps/{}", world.organization, world.app);
        world.backend(&world.admin_key).delete::<()>(&path).await.unwrap();
        until("the other channel is cleared", || async { !is_there(world, &other, ENTITY, ONLY).await }).await;
        assert!(is_there(world, &stuck, ENTITY, ONLY).await);
        fragile.cannot_write(None);
        until("the channel is cleared once it can be written", || async { !is_there(world, &stuck, ENTITY, ONLY).await }).await;
    }
}
