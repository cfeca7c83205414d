//! An app with every kind of entity and event.

use axum::http::Method as Verb;
use protocol::{
    ChannelId, Patch,
    entity::Key,
    operation::{
        message::{EditMessage, MessageDelete, MessageEdit, MessageSend, SendMessage},
        participant::ParticipantRemove,
        reaction::{ReactionAdd, ReactionRemove},
    },
};
use serde_json::{Value, json};

use crate::story::{World, until};

/// The credentials and ids of the app.
pub(super) struct Busy {
    pub(super) help: ChannelId,
    pub(super) test_key: String,
    pub(super) second_key: String,
    pub(super) revoked_key: String,
    pub(super) access_key: String,
    /// User tokens.
    pub(super) of_ada: String,
    pub(super) of_bob_revoked: String,
    pub(super) of_gone: String,
}

impl Busy {
    pub(super) async fn app(world: &World) -> Self {
        let (path, owner) = (
            format!(
                "/v1/organizations/{}/apps/{}",
                world.organization, world.app
            ),
            world.backend(&world.organization_key),
        );
        let secret = async |rest: &str, body: Value| -> Key {
            owner.post(&format!("{path}{rest}"), &body).await.unwrap()
        };
        let test_key = secret("/keys", json!({ "environment": "test" }))
            .await
            .secret
            .unwrap();
        let second_key = secret("/keys", json!({ "environment": "live", "name": "second" }))
            .await
            .secret
            .unwrap();
        let access_key = secret("/access", json!({ "environment": "live" }))
            .await
            .secret
            .unwrap();
        let revoked = secret("/keys", json!({ "environment": "live" })).await;
        let _: () = owner
            .delete(&format!("{path}/keys/{}", revoked.id))
            .await
            .unwrap();
        let shared = json!({ "environment": "live", "algorithm": "HS256" });
        let _: Value = owner
            .post(&format!("{path}/token-keys"), &shared)
            .await
            .unwrap();

        let help = world.channel("group", "help", &["ada", "bob", "cem"]).await;
        let (of_ada, of_bob_revoked) = (world.token("ada").await, world.token("bob").await);
        talk(world, &help).await;
        let of_gone = delete(world).await;
        in_test(world, &test_key).await;

        // A user whose presence was recorded.
        world.people(&["eve"]).await;
        world.connects("eve").await.session.abort().await;
        let watcher = world.connects("dan").await;
        let is_offline = async || {
            let seen = watcher
                .asks("presence.watch", json!({ "user_ids": ["eve"] }))
                .await;
            seen["presence"]["eve"]["last_seen"].is_u64()
                && seen["presence"]["eve"]["online"] == false
        };
        until("eve is offline", is_offline).await;
        watcher.session.abort().await;
        let _: Value = world
            .team()
            .post("/v1/users/bob/disconnect", &json!({ "revoke": true }))
            .await
            .unwrap();
        let revoked_key = revoked.secret.unwrap();
        Self {
            help,
            test_key,
            second_key,
            revoked_key,
            access_key,
            of_ada,
            of_bob_revoked,
            of_gone,
        }
    }
}

async fn speak(world: &World, channel: &str, body: Value) -> String {
    let message: Value = world
        .team()
        .post(&format!("/v1/channels/{channel}/messages"), &body)
        .await
        .unwrap();
    message["id"].as_str().unwrap().to_owned()
}

/// Messages, edits, reactions, deletions, reads, a removal.
async fn talk(world: &World, help: &ChannelId) {
    world.channel("open", "plaza", &["ada", "dan"]).await;
    world.channel("direct", "", &["ada", "bob"]).await;
    let mut ids = Vec::new();
    for n in 0..30 {
        let metadata = json!({ "n": n, "e": -0.1, "big": 9_007_199_254_740_991_u64, "deep": [{ "ü": null, "💬": [true, -1, 2.0] }] });
        let said = json!({ "sender_id": (["ada", "bob"][n % 2]), "text": format!("no. {n} \u{1}✓"), "metadata": metadata });
        ids.push(speak(world, "help", said).await);
    }
    speak(
        world,
        "plaza",
        json!({ "kind": "system", "text": "Welcome" }),
    )
    .await;
    let ada = world.connects("ada").await;
    for (n, text) in [(2, "edited"), (4, "edited twice"), (4, "edited again")] {
        let patch = EditMessage {
            text: Patch::Set(text.into()),
            ..EditMessage::default()
        };
        ada.session
            .call::<MessageEdit>((help, &ids[n].parse().unwrap()), &patch)
            .await
            .unwrap();
    }
    for (n, emoji) in [(5, "👍"), (5, "❤"), (6, "👍"), (29, "👍")] {
        ada.session
            .call::<ReactionAdd>((help, &ids[n].parse().unwrap(), emoji), ())
            .await
            .unwrap();
        let path = format!(
            "/v1/channels/help/messages/{}/reactions/%F0%9F%91%8D?sender_id=cem",
            ids[n]
        );
        assert!(
            world
                .team()
                .request(Verb::PUT, &path)
                .send()
                .await
                .unwrap()
                .status
                .is_success()
        );
    }
    ada.session
        .call::<ReactionRemove>((help, &ids[5].parse().unwrap(), "❤"), ())
        .await
        .unwrap();
    for n in [6, 8] {
        ada.session
            .call::<MessageDelete>((help, &ids[n].parse().unwrap()), ())
            .await
            .unwrap();
    }
    ada.asks("read.mark", json!({ "channel_id": "help", "number": 20 }))
        .await;
    ada.session
        .call::<ParticipantRemove>((help, &"cem".parse().unwrap()), ())
        .await
        .unwrap();
    let reply = SendMessage {
        text: Some("a reply".into()),
        reply_to_id: Some(ids[29].parse().unwrap()),
        ..SendMessage::default()
    };
    ada.session.call::<MessageSend>(help, &reply).await.unwrap();
    ada.session.abort().await;
}

/// Deletes a user with messages, a channel, and a channel that is created again. Returns a token of
/// the user.
async fn delete(world: &World) -> String {
    world.channel("group", "short", &["gone", "ada"]).await;
    let token = world.token("gone").await;
    speak(
        world,
        "short",
        json!({ "sender_id": "gone", "text": "bye" }),
    )
    .await;
    for path in ["/v1/users/gone", "/v1/channels/plaza", "/v1/channels/short"] {
        let _: () = world.team().delete(path).await.unwrap();
    }
    world.channel("broadcast", "plaza", &["dan", "ada"]).await;
    speak(
        world,
        "plaza",
        json!({ "sender_id": "dan", "text": "again" }),
    )
    .await;
    token
}

/// Creates entities with the same ids in the other environment.
async fn in_test(world: &World, key: &str) {
    let test = world.backend(key);
    for user in ["ada", "tess"] {
        let _: Value = test
            .put(&format!("/v1/users/{user}"), &json!({ "first_name": "T" }))
            .await
            .unwrap();
    }
    let channel =
        json!({ "id": "help", "type": "group", "creator_id": "tess", "participant_ids": ["ada"] });
    let _: Value = test.post("/v1/channels", &channel).await.unwrap();
    let _: Value = test
        .post(
            "/v1/channels/help/messages",
            &json!({ "sender_id": "tess", "text": "in test" }),
        )
        .await
        .unwrap();
}
