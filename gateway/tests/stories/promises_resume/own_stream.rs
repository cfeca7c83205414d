//! A user's own stream, and channels that the user leaves and joins again.

use super::*;

on_both_stores! {
    async fn own_stream_is_resumed(world: World) {
        world.channel("group", "general", &["alice", "bob"]).await;
        let bob = world.connects("bob").await;
        let (seq, at) = bob.connected().user_position;
        drop(bob);
        let (later, gone) = ("later", "gone");
        for id in [later, gone] {
            let body = json!({ "id": id, "type": "group", "creator_id": "alice", "participant_ids": ["bob"] });
            let _: serde_json::Value = world.team().post("/v1/channels", &body).await.unwrap();
        }
        world.team().delete::<()>(&format!("/v1/channels/{gone}/participants/bob")).await.unwrap();
        let user: serde_json::Value = world.team().patch("/v1/users/bob", &json!({ "bio": "new" })).await.unwrap();

        let from = |seq, at| Connect { user_position: Some(Cursor::After(seq, at)), watch: Watch::None, ..Connect::default() };
        let mut bob = world.connects_to(0, "bob", Encoding::MessagePack, from(seq, at)).await;
        assert_eq!((bob.connected().user_gap, bob.connected().user_position.0), (None, seq + 4));
        let mut events = Vec::new();
        for seq in seq + 1..=seq + 4 {
            let event = bob.next().await;
            assert_eq!((event.seq, event.channel_id.as_ref()), (Some(seq), None));
            events.push(event);
        }
        assert_eq!((events[0].event.as_str(), &events[0].data["entry"]["channel_id"]), ("channel.added", &json!(later)));
        // For a channel that the user is no longer in, the replay has only `channel.removed`.
        assert!(events[1..3].iter().all(|e| e.event == "channel.removed" && e.data == json!({ "channel_id": gone })), "{events:?}");
        assert_eq!((events[3].event.as_str(), &events[3].data["user"]), ("user.updated", &user));
        bob.receives_nothing().await;

        let bob = world.connects_to(0, "bob", Encoding::MessagePack, from(seq + 100, at)).await;
        assert_eq!(bob.connected().user_gap, Some(Gap::Diverged));
    }

    async fn readded_user_resumes_from_before_the_removal(world: World) {
        let general = world.channel("group", "general", &["alice", "bob"]).await;
        let bob = world.connects("bob").await;
        let entry = bob.entry(&general).clone();
        drop(bob);
        let alice = world.connects("alice").await;
        alice.session.call::<ParticipantRemove>((&general, &"bob".parse().unwrap()), ()).await.unwrap();
        alice.sends(&general, "without bob").await;
        alice.session.call::<ParticipantAdd>(&general, AddParticipant { user_id: "bob".parse().unwrap(), role: None }).await.unwrap();
        let mut bob = world.connects_to(0, "bob", Encoding::MessagePack, resuming(&general, entry.seq, entry.at)).await;
        assert_eq!(bob.entry(&general).gap, None);
        receives_until(&mut bob, &general, entry.seq, entry.seq + 3).await;
        alice.sends(&general, "with bob").await;
        bob.sees("with bob").await;
    }

    async fn readded_user_who_resumes_the_own_stream_has_no_gap(world: Narrow) {
        let world = world.0;
        let general = world.channel("group", "general", &["alice", "bob"]).await;
        let alice = world.connects_to(0, "alice", Encoding::MessagePack, deaf()).await;
        let talk = async {
            for count in 0u32.. {
                alice.sends(&general, &format!("message {count}")).await;
            }
        };
        let comings_and_goings = async {
            for _ in 0..10 {
                let (bob, name) = (world.connects("bob").await, "bob".parse().unwrap());
                let position = bob.connected().user_position;
                bob.session.abort().await;
                alice.session.call::<ParticipantRemove>((&general, &name), ()).await.unwrap();
                alice.session.call::<ParticipantAdd>(&general, AddParticipant { user_id: name.clone(), role: None }).await.unwrap();
                let params = Connect { user_position: Some(Cursor::After(position.0, position.1)), ..Connect::default() };
                let mut bob = world.connects_to(0, "bob", Encoding::MessagePack, params).await;
                // As in a client: the last entry gives the channel's position, and a removal clears
                // it.
                let mut stands = Some(bob.entry(&general).seq);
                let (mut removals, mut heard) = (0, 0);
                while removals == 0 || heard < 20 {
                    let event = bob.next().await;
                    match event.read().unwrap() {
                        Event::ChannelAdded(entry) if stands.is_none_or(|seq| seq < entry.seq) => stands = Some(entry.seq),
                        Event::ChannelAdded(_) => {}
                        Event::ChannelRemoved(_) => (stands, removals, heard) = (None, removals + 1, 0),
                        _ if event.channel_id.as_ref() == Some(&general) => {
                            assert_eq!(event.seq, stands.map(|seq| seq + 1), "the next one, and none once out");
                            stands = event.seq;
                            heard += 1;
                        }
                        _ => {}
                    }
                }
            }
        };
        tokio::select! {
            () = talk => {}
            () = comings_and_goings => {}
        }
    }
}
