//! Every event on the wire: its form in both encodings, and its receivers.

use protocol::{ChannelId, Cursor, Encoding, operation::session::Connect};
use serde_json::{Value, json};

use crate::story::{Person, StoreKind, World, has_exactly};

const MESSAGE: &str = "id channel_id number seq sender_id kind text attachments mention_ids reactions metadata created_at";
const PARTICIPANT: &str = "id channel_id user_id role created_at";
const CHANNEL: &str = "id type creator_id metadata created_at participant_count";

/// Two sessions of a user, one in each encoding, which must receive the same events.
struct Pair(Person, Person);

impl Pair {
    async fn of(world: &World, name: &str) -> Self {
        let as_json = world
            .connects_to(0, name, Encoding::Json, Connect::default())
            .await;
        Self(world.connects(name).await, as_json)
    }

    async fn receives(&mut self, name: &str) -> Value {
        let event = self.0.receives_raw(name).await;
        assert_eq!(
            self.1.receives_raw(name).await,
            event,
            "the same in both encodings"
        );
        event
    }

    /// Receives a durable event of a channel, and returns its data.
    async fn is_told(&mut self, name: &str, channel: &ChannelId) -> (u64, Value) {
        let event = self.receives(name).await;
        has_exactly(&event, "event channel_id seq at data");
        assert_eq!(event["channel_id"], json!(channel));
        assert!(event["at"].is_u64());
        (event["seq"].as_u64().unwrap(), event["data"].clone())
    }

    async fn receives_nothing(&mut self) {
        self.0.receives_nothing().await;
        self.1.receives_nothing().await;
    }
}

/// A world without limits on rates and on sessions.
struct Fast(World);

impl Fast {
    async fn on(store_kind: StoreKind) -> Self {
        Self(
            World::with(
                store_kind,
                1,
                &[
                    "--limit",
                    "requests_per_second=0",
                    "--limit",
                    "connections_per_user=0",
                ],
            )
            .await,
        )
    }
}

/// A world in which read positions are delivered in small channels only.
struct Private(World);

impl Private {
    async fn on(store_kind: StoreKind) -> Self {
        Self(World::with(store_kind, 1, &["--limit", "read_audience=2"]).await)
    }
}

on_both_stores! {
    async fn events_of_messages_carry_the_message(world: World) {
        let general = world.channel("group", "general", &["alice", "bob"]).await;
        let alice = world.connects("alice").await;
        let mut bobs = Pair::of(&world, "bob").await;
        let sent = alice.asks("message.send", json!({ "channel_id": general, "text": "hi ❤", "metadata": { "x": [1, -1, 0.5] } })).await["message"].clone();
        let (seq, data) = bobs.is_told("message.created", &general).await;
        has_exactly(&data, "message");
        has_exactly(&data["message"], MESSAGE);
        assert_eq!((&data["message"], seq), (&sent, sent["seq"].as_u64().unwrap()));

        let answer = alice.asks("message.send", json!({ "channel_id": general, "text": "well", "reply_to_id": sent["id"], "mention_ids": ["bob"] })).await;
        assert_eq!(bobs.is_told("message.created", &general).await.1, answer);

        let named = json!({ "channel_id": general, "message_id": sent["id"] });
        let reaction = json!({ "channel_id": general, "message_id": sent["id"], "emoji": "👍" });
        alice.asks("reaction.add", reaction.clone()).await;
        let (seq, data) = bobs.is_told("reaction.added", &general).await;
        assert_eq!(data, json!({ "message_id": sent["id"], "number": 1, "emoji": "👍", "user_id": "alice", "count": 1 }));
        let edited = alice.asks("message.edit", json!({ "channel_id": general, "message_id": sent["id"], "text": "hi" })).await;
        let (next, data) = bobs.is_told("message.updated", &general).await;
        has_exactly(&data["message"], &format!("{MESSAGE} edited_at"));
        assert_eq!((&data, next), (&edited, seq + 1));
        assert_eq!(data["message"]["reactions"], json!({ "👍": 1 }));
        alice.asks("reaction.remove", reaction).await;
        assert_eq!(bobs.is_told("reaction.removed", &general).await.1, json!({ "message_id": sent["id"], "number": 1, "emoji": "👍", "user_id": "alice", "count": 0 }));
        alice.asks("message.delete", named.clone()).await;
        let (seq, data) = bobs.is_told("message.deleted", &general).await;
        has_exactly(&data, "message");
        has_exactly(&data["message"], &format!("{MESSAGE} edited_at deleted_at"));
        assert_eq!((data["message"]["seq"].as_u64(), &data["message"]["text"]), (Some(seq), &json!("")));
        alice.asks("message.delete", named).await;
        bobs.receives_nothing().await;
    }

    async fn events_of_participants_and_the_channel_carry_them(world: World) {
        let general = world.channel("group", "general", &["alice", "bob"]).await;
        world.people(&["carol"]).await;
        let alice = world.connects("alice").await;
        let mut bobs = Pair::of(&world, "bob").await;
        let mut carols = Pair::of(&world, "carol").await;
        let of = |role: Option<&str>| match role {
            Some(role) => json!({ "channel_id": general, "user_id": "carol", "role": role }),
            None => json!({ "channel_id": general, "user_id": "carol" }),
        };
        let added = alice.asks("participant.add", of(None)).await;
        let (seq, data) = bobs.is_told("participant.added", &general).await;
        has_exactly(&data, "participant");
        has_exactly(&data["participant"], PARTICIPANT);
        assert_eq!(data, added);
        let own = carols.receives("channel.added").await;
        has_exactly(&own, "event seq at data");
        has_exactly(&own["data"], "entry");
        let entry = &own["data"]["entry"];
        has_exactly(entry, "channel_id channel role seq at number read unread participant_count");
        has_exactly(&entry["channel"], CHANNEL);
        assert_eq!((entry["seq"].as_u64(), &entry["role"], &entry["participant_count"]), (Some(seq), &json!("member"), &json!(3)));

        let changed = alice.asks("participant.update", of(Some("moderator"))).await;
        let (next, data) = bobs.is_told("participant.updated", &general).await;
        assert_eq!((&data, next), (&changed, seq + 1));
        assert_eq!(carols.is_told("participant.updated", &general).await, (seq + 1, data), "the first after the entry");

        let updated = alice.asks("channel.update", json!({ "channel_id": general, "name": "General" })).await;
        let (_, data) = bobs.is_told("channel.updated", &general).await;
        has_exactly(&data, "channel");
        has_exactly(&data["channel"], &format!("{CHANNEL} name"));
        assert_eq!(data, updated);
        carols.is_told("channel.updated", &general).await;

        alice.asks("participant.remove", of(None)).await;
        let (_, data) = bobs.is_told("participant.removed", &general).await;
        has_exactly(&data, "participant");
        assert_eq!(data, changed, "as it was last");
        let own = carols.receives("channel.removed").await;
        has_exactly(&own, "event seq at data");
        assert_eq!(own["data"], json!({ "channel_id": general }));

        alice.asks("channel.delete", json!({ "channel_id": general })).await;
        for bob in [&mut bobs.0, &mut bobs.1] {
// Two streams have no common order.
            let (one, other) = (bob.next().await, bob.next().await);
            let (deleted, removed) = if one.event == "channel.deleted" { (one, other) } else { (other, one) };
            assert_eq!((deleted.event.as_str(), deleted.channel_id.as_ref()), ("channel.deleted", Some(&general)));
            has_exactly(&deleted.data, "channel");
            assert_eq!((&deleted.data["channel"]["id"], &deleted.data["channel"]["name"]), (&json!(general), &json!("General")));
            assert_eq!((removed.event.as_str(), removed.data), ("channel.removed", json!({ "channel_id": general })));
        }
        bobs.receives_nothing().await;
        carols.receives_nothing().await;
    }

    async fn users_own_changes_are_delivered_on_the_own_stream(world: World) {
        world.channel("group", "general", &["alice", "bob"]).await;
        let mut alices = Pair::of(&world, "alice").await;
        let mut bob = world.connects("bob").await;
        let updated = alices.0.asks("user.update", json!({ "bio": "new" })).await;
        let event = alices.receives("user.updated").await;
        has_exactly(&event, "event seq at data");
        has_exactly(&event["data"], "user");
        assert_eq!(event["data"], updated);
        assert_eq!(event["seq"].as_u64(), Some(alices.0.connected().user_position.0 + 1));
        let _: Value = world.team().patch("/v1/users/alice", &json!({ "bot": true })).await.unwrap();
        assert_eq!(alices.receives("user.updated").await["data"]["user"]["bot"], true);
        bob.receives_nothing().await;
    }

    async fn typing_is_delivered_to_other_participants_only(world: World) {
        let general = world.channel("group", "general", &["alice", "bob", "carol"]).await;
        let mut alices = Pair::of(&world, "alice").await;
        let mut bobs = Pair::of(&world, "bob").await;
        for typing in [true, false] {
            assert_eq!(alices.0.asks("typing", json!({ "channel_id": general, "typing": typing })).await, json!({}));
            let event = bobs.receives("typing").await;
            has_exactly(&event, "event channel_id data");
            assert_eq!((&event["channel_id"], &event["data"]), (&json!(general), &json!({ "user_id": "alice", "typing": typing })));
        }
        alices.receives_nothing().await;
    }

    async fn passing_events_are_received_after_the_reply(world: Fast) {
        let world = world.0;
        let general = world.channel("open", "general", &["bob"]).await;
        for (count, encoding) in Encoding::ALL.into_iter().cycle().take(40).enumerate() {
// Typing events of a user are limited.
            let name = format!("typist{count}");
            world.people(&[&name]).await;
            let typist = world.connects_to(0, &name, encoding, Connect::default()).await;
            typist.asks("channel.join", json!({ "channel_id": general })).await;
            let mut bob = world.connects_to(0, "bob", encoding, Connect::default()).await;
            typist.asks("typing", json!({ "channel_id": general, "typing": true })).await;
            bob.receives("typing").await;
            bob.asks("channel.subscribe", json!({ "channels": { "general": [] } })).await;
            typist.asks("typing", json!({ "channel_id": general, "typing": false })).await;
            bob.receives("typing").await;
        }
    }

    async fn typing_is_delivered_at_most_once_a_second(world: World) {
        let general = world.channel("group", "general", &["alice", "bob"]).await;
        let (alice, mut bob) = (world.connects("alice").await, world.connects("bob").await);
        let typing = async |typing: bool| alice.asks("typing", json!({ "channel_id": general, "typing": typing })).await;
        let begun = tokio::time::Instant::now();
        for _ in 0..20 {
            typing(true).await;
        }
        typing(false).await;
        assert!(begun.elapsed() < std::time::Duration::from_secs(1), "the machine is too slow for this story");
        alice.sends(&general, "done").await;
        let mut heard = Vec::new();
        loop {
            let event = bob.next().await;
            match event.event.as_str() {
                "typing" => heard.push(event.data["typing"].as_bool().unwrap()),
                "message.created" => break,
                other => panic!("{other}"),
            }
        }
        assert_eq!(heard, [true, false]);
    }

    async fn typing_is_delivered_in_small_channels_only(world: Private) {
        let world = world.0;
        let small = world.channel("group", "small", &["alice", "bob"]).await;
        let large = world.channel("group", "large", &["alice", "bob", "carol"]).await;
        let (alice, mut bob) = (world.connects("alice").await, world.connects("bob").await);
        for channel in [&large, &small] {
            assert_eq!(alice.asks("typing", json!({ "channel_id": channel, "typing": true })).await, json!({}));
        }
        assert_eq!(bob.receives_raw("typing").await["channel_id"], json!(small));
        bob.receives_nothing().await;
    }

    async fn read_positions_are_delivered_to_all_in_small_channels(world: Private) {
        let world = world.0;
        let small = world.channel("group", "small", &["alice", "bob"]).await;
        let large = world.channel("group", "large", &["alice", "bob", "carol"]).await;
        let mut alice = world.connects("alice").await;
        let mut bobs = Pair::of(&world, "bob").await;
        for channel in [&small, &large] {
            for text in ["one", "two"] {
                alice.sends(channel, text).await;
                alice.sees(text).await;
                bobs.receives("message.created").await;
            }
            bobs.0.asks("read.mark", json!({ "channel_id": channel, "number": 2 })).await;
            let event = bobs.receives("read.marked").await;
            has_exactly(&event, "event channel_id data");
            has_exactly(&event["data"], "user_id number version");
            assert_eq!((&event["channel_id"], &event["data"]["number"]), (&json!(channel), &json!(2)));
            if *channel == small {
                assert_eq!(alice.receives_raw("read.marked").await, event);
            }
        }
        alice.receives_nothing().await;
// A position that does not move causes no event.
        bobs.0.asks("read.mark", json!({ "channel_id": small, "number": 1 })).await;
        bobs.receives_nothing().await;
    }

    async fn replayed_reactions_of_a_deleted_message_have_no_emoji(world: World) {
        let general = world.channel("group", "general", &["alice", "bob"]).await;
        let (alice, bob) = (world.connects("alice").await, world.connects("bob").await);
        let [said, kept] = [alice.sends(&general, "one").await, alice.sends(&general, "two").await];
        for message in [&said, &kept] {
            for (method, emoji) in [("reaction.add", "🔥"), ("reaction.add", "🦜"), ("reaction.remove", "🦜")] {
                bob.asks(method, json!({ "channel_id": general, "message_id": message.id, "emoji": emoji })).await;
            }
        }
        alice.asks("message.delete", json!({ "channel_id": general, "message_id": said.id })).await;
        let resume = [(general.clone(), Cursor::After(0, 0))].into();
        let mut again = world.connects_to(0, "bob", Encoding::Json, Connect { resume, ..Connect::default() }).await;
        let head = again.entry(&general).seq;
        let mut reactions = Vec::new();
        for seq in 1..=head {
            let event = again.next().await;
            assert_eq!(event.seq, Some(seq));
            if event.event.starts_with("reaction.") {
                let told = |field: &str| event.data[field].clone();
                reactions.push((told("number"), told("emoji"), told("count")));
            }
        }
        let of_deleted = vec![(json!(1), json!(""), json!(0)); 3];
        let of_kept = [("🔥", 1), ("🦜", 0), ("🦜", 0)].map(|(emoji, count)| (json!(2), json!(emoji), json!(count)));
        assert_eq!(reactions, [of_deleted, of_kept.to_vec()].concat());
    }
}
