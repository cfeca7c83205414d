//! Joining, leaving and roles, by users with sessions.

use protocol::{
    ChannelId, Encoding, ErrorCode,
    entity::{Channel, Role},
    event::Event,
    operation::{
        channel::{ChannelLeave, ChannelList},
        page::ListPage,
        participant::{ParticipantUpdate, UpdateParticipant},
        session::Connect,
    },
};
use serde_json::{Value, json};

use crate::story::{World, has_exactly, refusal};

on_both_stores! {
    async fn user_joins_open_and_broadcast_channels_only(world: World) {
        world.people(&["alice", "bob", "carol"]).await;
        let bob = world.connects("bob").await;
        for (kind, answer) in [("group", Some(ErrorCode::NotFound)), ("open", None), ("broadcast", None)] {
            let channel = world.channel(kind, kind, &["alice"]).await;
            let named = json!({ "channel_id": channel });
            match answer {
                Some(code) => assert_eq!(bob.is_refused("channel.join", named).await, code),
                None => {
                    let joined = bob.asks("channel.join", named).await;
                    assert_eq!(joined["participant"]["role"], "member");
                }
            }
            let sent = json!({ "channel_id": channel, "text": "hi" });
            match kind {
                "open" => drop(bob.asks("message.send", sent).await),
                "broadcast" => assert_eq!(bob.is_refused("message.send", sent).await, ErrorCode::Forbidden),
                _ => assert_eq!(bob.is_refused("message.send", sent).await, ErrorCode::NotFound),
            }
        }
        let direct = world.channel("direct", "", &["alice", "carol"]).await;
        assert_eq!(bob.is_refused("channel.join", json!({ "channel_id": direct })).await, ErrorCode::NotFound);
        let token = world.token("bob").await;
        let found: Value = world.backend(&token).get("/v1/channels").await.unwrap();
        let mut ids: Vec<&str> = found["items"].as_array().unwrap().iter().map(|c| c["id"].as_str().unwrap()).collect();
        ids.sort_unstable();
        assert_eq!(ids, ["broadcast", "open"], "a user finds its own and the public channels");
    }

    async fn direct_channel_of_a_pair_is_unique_and_unchangeable(world: World) {
        world.people(&["alice", "bob", "carol"]).await;
        let (alice, mut bob) = (world.connects("alice").await, world.connects_to(0, "bob", Encoding::Json, Connect::default()).await);
        let made = alice.asks("channel.create", json!({ "type": "direct", "participant_ids": ["bob"] })).await["channel"].clone();
        has_exactly(&made, "id type creator_id metadata created_at participant_count");
        assert_eq!(made["participant_count"], 2);
        assert_eq!(bob.receives("channel.added").await.data["entry"]["role"], "owner");
        let mirrored = bob.asks("channel.create", json!({ "type": "direct", "participant_ids": ["alice"] })).await["channel"].clone();
        assert_eq!(mirrored, made);
        let body = json!({ "type": "direct", "participant_ids": ["bob", "alice"] });
        let answer = world.team().request(axum::http::Method::POST, "/v1/channels").json(&body).send().await.unwrap();
        assert_eq!((answer.status.as_u16(), answer.json::<Value>().unwrap()), (200, made.clone()));
        let other = alice.asks("channel.create", json!({ "type": "direct", "participant_ids": ["carol"] })).await;
        assert_ne!(other["channel"]["id"], made["id"]);

        let id: ChannelId = made["id"].as_str().unwrap().parse().unwrap();
        let sent = alice.sends(&id, "hi").await;
        bob.sees("hi").await;
        let of = |user: &str| json!({ "channel_id": id, "user_id": user, "role": "member" });
        for person in [&alice, &bob] {
            for (method, params) in [
                ("channel.leave", json!({ "channel_id": id })),
                ("channel.delete", json!({ "channel_id": id })),
                ("participant.add", of("carol")),
                ("participant.update", of("bob")),
                ("participant.remove", of("bob")),
            ] {
                assert_eq!(person.is_refused(method, params).await, ErrorCode::Forbidden, "{method:?}");
            }
        }
        let named = json!({ "channel_id": id, "message_id": sent.id });
        assert_eq!(bob.is_refused("message.delete", named).await, ErrorCode::Forbidden, "a message of the other user");
        let participants = format!("/v1/channels/{id}/participants");
        assert_eq!(refusal(world.team().post::<Value>(&participants, &json!({ "user_id": "carol" })).await), (403, ErrorCode::Forbidden));
        assert_eq!(refusal(world.team().delete::<()>(&format!("{participants}/bob")).await), (403, ErrorCode::Forbidden));
    }

    async fn last_owner_must_hand_the_role_over_before_leaving(world: World) {
        let general = world.channel("group", "general", &["alice", "bob", "carol"]).await;
        let (alice, bob) = (world.connects("alice").await, world.connects("bob").await);
        let named = json!({ "channel_id": general });
        let as_a = |user: &str, role: &str| json!({ "channel_id": general, "user_id": user, "role": role });
        assert_eq!(alice.is_refused("channel.leave", named.clone()).await, ErrorCode::Forbidden);
        assert_eq!(alice.is_refused("participant.remove", as_a("alice", "owner")).await, ErrorCode::Forbidden);
        assert_eq!(alice.is_refused("participant.update", as_a("alice", "member")).await, ErrorCode::Forbidden);
        alice.asks("participant.update", as_a("bob", "owner")).await;
        alice.asks("participant.update", as_a("alice", "member")).await;
        assert_eq!(bob.is_refused("channel.leave", named.clone()).await, ErrorCode::Forbidden, "bob is the last owner now");
        assert_eq!(alice.asks("channel.leave", named.clone()).await, json!({}));
        bob.asks("participant.remove", as_a("carol", "member")).await;
        assert_eq!(bob.asks("channel.leave", named).await, json!({}), "the only participant may leave");
        let left: Channel = world.team().get("/v1/channels/general").await.unwrap();
        assert_eq!(left.participant_count, 0);
    }

    async fn concurrent_additions_and_removals_alternate_and_the_last_event_is_true(world: World) {
        let general = world.channel("group", "general", &["bob"]).await;
        world.people(&["alice"]).await;
        let mut alice = world.connects("alice").await;
        let participants = format!("/v1/channels/{general}/participants");
        let hand = async |hand: u32| {
            let team = world.team();
            for round in 0..25 {
                if (hand + round).is_multiple_of(3) || round % 2 == hand % 2 {
                    team.post::<Value>(&participants, &json!({ "user_id": "alice" })).await.unwrap();
                } else if let Err(error) = team.delete::<()>(&format!("{participants}/alice")).await {
                    assert_eq!(refusal::<()>(Err(error)), (404, ErrorCode::NotFound));
                }
            }
        };
        tokio::join!(hand(0), hand(1), hand(2), hand(3), hand(4), hand(5));
        let is_in = world.team().get::<Value>(&format!("{participants}/alice")).await.is_ok();
        world.channel("group", "afterwards", &["alice"]).await;
        let mut told = Vec::new();
        loop {
            let event = alice.next().await;
            match event.read().unwrap() {
                Event::ChannelAdded(added) if added.channel_id == general => told.push(true),
                Event::ChannelAdded(_) => break,
                Event::ChannelRemoved(_) => told.push(false),
                _ => {}
            }
        }
        assert!(told.len() > 2 && told.iter().zip([true, false].iter().cycle()).all(|(one, other)| one == other), "{told:?}");
        assert_eq!(told.last(), Some(&is_in), "{told:?}");
        let list = alice.session.call::<ChannelList>((), &ListPage::default()).await.unwrap();
        assert_eq!(list.items.iter().any(|entry| entry.channel_id == general), is_in);
    }

    async fn many_owners_are_removed_at_once(world: World) {
        let names: Vec<String> = (0..40).map(|n| format!("owner-{n}")).collect();
        let mut everybody: Vec<&str> = names.iter().map(String::as_str).collect();
        everybody.push("alice");
        let general = world.channel("group", "general", &everybody).await;
        let team = world.team();
        let path = |user: &str| format!("/v1/channels/{general}/participants/{user}");
        for user in &everybody {
            let _: Value = team.patch(&path(user), &json!({ "role": "owner" })).await.unwrap();
        }
        let removals = names.iter().map(async |user| team.delete::<()>(&path(user)).await);
        for removed in futures_util::future::join_all(removals).await {
            removed.unwrap();
        }
        let left: Value = team.get(&format!("/v1/channels/{general}/participants")).await.unwrap();
        assert_eq!(left["items"].as_array().map(Vec::len), Some(1), "{left}");
    }

    async fn of_two_owners_who_leave_concurrently_one_stays(world: World) {
        for round in 0..5 {
            let general = world.channel("group", &format!("general-{round}"), &["alice", "bob", "carol"]).await;
            let (alice, bob) = (world.connects("alice").await, world.connects("bob").await);
            alice.session.call::<ParticipantUpdate>((&general, &bob.name), UpdateParticipant { role: Some(Role::Owner) }).await.unwrap();
            let (one, other) = tokio::join!(alice.session.call::<ChannelLeave>(&general, ()), bob.session.call::<ChannelLeave>(&general, ()));
            assert!(one.is_ok() != other.is_ok(), "{one:?} {other:?}");
        }
    }
}
