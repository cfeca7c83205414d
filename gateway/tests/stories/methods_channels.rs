//! Channels, participants and users by their methods.

use protocol::{
    Encoding, ErrorCode,
    operation::session::{Connect, Ping},
};
use serde_json::{Value, json};

use crate::story::{World, has_exactly, refusal};

const CHANNEL: &str = "id type creator_id metadata created_at participant_count";
const PARTICIPANT: &str = "id channel_id user_id role created_at";

on_both_stores! {
    async fn a_user_makes_changes_and_deletes_a_channel(world: World) {
        world.people(&["alice", "bob", "carol"]).await;
        let (alice, bob) = (world.connects("alice").await, world.connects_to(0, "bob", Encoding::Json, Connect::default()).await);
        let bare = alice.asks("channel.create", json!({ "type": "group" })).await;
        has_exactly(&bare, "channel");
        has_exactly(&bare["channel"], CHANNEL);
        assert!(bare["channel"]["id"].as_str().unwrap().starts_with("chn_"));
        assert_eq!((&bare["channel"]["creator_id"], &bare["channel"]["participant_count"]), (&json!("alice"), &json!(1)));

        let full = json!({
            "type": "group", "name": "Plans", "description": "What comes next", "participant_ids": ["bob", "alice", "carol"],
            "metadata": { "colour": "blue" },
        });
        let made = bob.asks("channel.create", full.clone()).await["channel"].clone();
        has_exactly(&made, &format!("{CHANNEL} name description"));
        for field in ["type", "name", "description", "metadata"] {
            assert_eq!(made[field], full[field], "{field}");
        }
        assert_eq!((&made["creator_id"], &made["participant_count"]), (&json!("bob"), &json!(3)), "whoever is named twice is in it once");
        let id = &made["id"];
        let listed = bob.asks("participant.list", json!({ "channel_id": id })).await;
        let roles: Vec<(&str, &str)> = listed["items"].as_array().unwrap().iter().map(|p| (p["user_id"].as_str().unwrap(), p["role"].as_str().unwrap())).collect();
        assert_eq!(roles, [("alice", "member"), ("bob", "owner"), ("carol", "member")]);

        let patch = json!({ "channel_id": id, "name": "New plans", "description": null, "metadata": { "colour": null, "size": 3 } });
        let updated = bob.asks("channel.update", patch).await;
        has_exactly(&updated, "channel");
        has_exactly(&updated["channel"], &format!("{CHANNEL} name"));
        assert_eq!((&updated["channel"]["name"], &updated["channel"]["metadata"]), (&json!("New plans"), &json!({ "size": 3 })));
        assert_eq!((&updated["channel"]["created_at"], &updated["channel"]["participant_count"]), (&made["created_at"], &json!(3)));
        let read: Value = world.team().get(&format!("/v1/channels/{}", id.as_str().unwrap())).await.unwrap();
        assert_eq!(read, updated["channel"]);

        assert_eq!(bob.asks("channel.delete", json!({ "channel_id": id })).await, json!({}));
        for person in [&alice, &bob] {
            assert_eq!(person.is_refused("message.list", json!({ "channel_id": id })).await, ErrorCode::NotFound);
        }
        assert_eq!(bob.is_refused("channel.delete", json!({ "channel_id": id })).await, ErrorCode::NotFound);
        let left = bob.asks("channel.list", json!({})).await;
        assert_eq!(left["items"], json!([]));

        for (wrong, code) in [
            (json!({ "type": "broadcast" }), ErrorCode::Forbidden),
            (json!({ "type": "group", "id": "mine" }), ErrorCode::Forbidden),
            (json!({ "type": "group", "creator_id": "bob" }), ErrorCode::Forbidden),
            (json!({ "type": "secret" }), ErrorCode::BadRequest),
            (json!({}), ErrorCode::BadRequest),
            (json!({ "type": "group", "participant_ids": ["nobody"] }), ErrorCode::NotFound),
            (json!({ "type": "group", "name": "x".repeat(201) }), ErrorCode::TooLarge),
            (json!({ "type": "direct", "participant_ids": [] }), ErrorCode::BadRequest),
            (json!({ "type": "direct", "participant_ids": ["bob", "carol"] }), ErrorCode::BadRequest),
        ] {
            assert_eq!(alice.is_refused("channel.create", wrong.clone()).await, code, "{wrong}");
        }
    }

    async fn recreated_channel_continues_the_numbers_of_the_deleted_one(world: World) {
        let general = world.channel("group", "general", &["alice"]).await;
        let alice = world.connects("alice").await;
        let before = alice.sends(&general, "before").await;
        world.team().delete::<()>("/v1/channels/general").await.unwrap();
        world.channel("group", "general", &["alice"]).await;
        let alice = world.connects("alice").await;
        let entry = alice.entry(&general).clone();
        assert!(entry.last_message.is_none() && entry.seq > before.seq + 1, "{entry:?}");
        assert_eq!((entry.number, entry.read, entry.unread), (1, 1, Some(0)));
        let after = alice.sends(&general, "after").await;
        assert_eq!(after.number, 2);
        assert!(after.seq > entry.seq && after.created_at >= before.created_at);
        let listed = alice.asks("message.list", json!({ "channel_id": general, "after": 0 })).await;
        assert_eq!(listed["items"].as_array().unwrap().len(), 1, "what the old one held is gone");
        assert_eq!(refusal(world.team().get::<Value>(&format!("/v1/channels/general/messages/{}", before.id)).await).0, 404);
        let body = json!({ "id": "general", "type": "group" });
        assert_eq!(refusal(world.team().post::<Value>("/v1/channels", &body).await), (409, ErrorCode::Conflict));
    }

    async fn a_user_joins_and_leaves_an_open_channel(world: World) {
        let lobby = world.channel("open", "lobby", &["alice"]).await;
        world.people(&["bob"]).await;
        let bob = world.connects("bob").await;
        let named = json!({ "channel_id": lobby });
        let seen: Value = world.backend(&world.token("bob").await).get("/v1/channels/lobby").await.unwrap();
        assert_eq!(seen["participant_count"], 1, "an open channel is seen to exist");
        assert_eq!(bob.is_refused("message.list", named.clone()).await, ErrorCode::Forbidden, "and not read");
        let joined = bob.asks("channel.join", named.clone()).await;
        has_exactly(&joined, "participant");
        has_exactly(&joined["participant"], PARTICIPANT);
        assert_eq!((&joined["participant"]["role"], &joined["participant"]["user_id"]), (&json!("member"), &json!("bob")));
        assert_eq!(bob.asks("channel.join", named.clone()).await, joined, "again is nothing");
        bob.sends(&lobby, "hi").await;
        assert_eq!(bob.asks("channel.leave", named.clone()).await, json!({}));
        assert_eq!(bob.is_refused("message.list", named.clone()).await, ErrorCode::Forbidden);
        assert_eq!(bob.is_refused("channel.join", json!({ "channel_id": "unused" })).await, ErrorCode::NotFound);
        assert!([ErrorCode::NotFound, ErrorCode::Forbidden].contains(&bob.is_refused("channel.leave", named).await));
    }

    async fn participants_are_added_changed_listed_and_removed(world: World) {
        let general = world.channel("group", "general", &["alice"]).await;
        world.people(&["bob", "carol", "dora"]).await;
        let alice = world.connects("alice").await;
        let of = |user: &str| json!({ "channel_id": general, "user_id": user });
        let with = |user: &str, role: &str| json!({ "channel_id": general, "user_id": user, "role": role });
        let added = alice.asks("participant.add", of("bob")).await;
        has_exactly(&added, "participant");
        has_exactly(&added["participant"], PARTICIPANT);
        assert!(added["participant"]["id"].as_str().unwrap().starts_with("prt_"));
        assert_eq!(added["participant"]["role"], "member");
        assert_eq!(alice.asks("participant.add", with("bob", "observer")).await, added, "as it stands");
        alice.asks("participant.add", with("carol", "observer")).await;
        let changed = alice.asks("participant.update", with("bob", "moderator")).await;
        has_exactly(&changed, "participant");
        assert_eq!((&changed["participant"]["role"], &changed["participant"]["id"]), (&json!("moderator"), &added["participant"]["id"]));
        for user in ["nobody", "dora"] {
            assert_eq!(alice.is_refused("participant.update", with(user, "member")).await, ErrorCode::NotFound);
            assert_eq!(alice.is_refused("participant.remove", of(user)).await, ErrorCode::NotFound);
        }
        assert_eq!(alice.is_refused("participant.add", of("nobody")).await, ErrorCode::NotFound);
        assert_eq!(alice.is_refused("participant.add", with("dora", "king")).await, ErrorCode::BadRequest);

        let page = alice.asks("participant.list", json!({ "channel_id": general, "limit": 2 })).await;
        has_exactly(&page, "items cursor");
        has_exactly(&page["items"][0], &format!("{PARTICIPANT} read"));
        let rest = alice.asks("participant.list", json!({ "channel_id": general, "limit": 2, "cursor": page["cursor"] })).await;
        has_exactly(&rest, "items");
        let users = |page: &Value| page["items"].as_array().unwrap().iter().map(|p| p["user_id"].as_str().unwrap().to_owned()).collect::<Vec<_>>();
        assert_eq!([users(&page), users(&rest)].concat(), ["alice", "bob", "carol"]);
        assert_eq!(alice.asks("participant.remove", of("carol")).await, json!({}));
        assert_eq!(users(&alice.asks("participant.list", json!({ "channel_id": general })).await), ["alice", "bob"]);
    }

    async fn users_read_profiles_and_change_their_own(world: World) {
        world.people(&["bob"]).await;
        let body = json!({ "username": "al", "first_name": "Alice", "bio": "hello", "metadata": { "a": 1, "b": 2 } });
        let _: Value = world.team().put("/v1/users/alice", &body).await.unwrap();
        let alice = world.connects("alice").await;
        let answer = alice.asks("user.get", json!({ "user_ids": ["alice", "nobody", "bob"] })).await;
        has_exactly(&answer, "items");
        let items = answer["items"].as_array().unwrap();
        assert_eq!(items.iter().map(|u| u["id"].as_str().unwrap()).collect::<Vec<_>>(), ["alice", "bob"], "those that exist");
        has_exactly(&items[0], "id username first_name bio bot metadata created_at");
        has_exactly(&items[1], "id first_name bot metadata created_at");

        let patch = json!({ "last_name": "Adams", "bio": null, "avatar": "https://pictures.example/a", "metadata": { "a": null, "c": 3 } });
        let updated = alice.asks("user.update", patch).await;
        has_exactly(&updated, "user");
        has_exactly(&updated["user"], "id username first_name last_name avatar bot metadata created_at");
        assert_eq!(updated["user"]["metadata"], json!({ "b": 2, "c": 3 }));
        let read: Value = world.team().get("/v1/users/alice").await.unwrap();
        assert_eq!(read, updated["user"]);
        assert_eq!(alice.is_refused("user.update", json!({ "bot": true })).await, ErrorCode::Forbidden, "for app keys alone");
        assert_eq!(alice.is_refused("user.update", json!({ "username": "x".repeat(201) })).await, ErrorCode::TooLarge);
        let many: Vec<String> = (0..101).map(|n| format!("user-{n}")).collect();
        assert_eq!(alice.is_refused("user.get", json!({ "user_ids": many })).await, ErrorCode::BadRequest);
    }

    async fn ping_returns_the_stores_time(world: World) {
        world.people(&["alice"]).await;
        let alice = world.connects("alice").await;
        let pong = alice.asks("ping", json!({})).await;
        has_exactly(&pong, "at");
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as u64;
        assert!(pong["at"].as_u64().unwrap().abs_diff(now) < 5_000);
        assert!(alice.session.call::<Ping>((), ()).await.unwrap().at >= pong["at"].as_u64().unwrap());
    }
}
