//! `connect` and the lists of channels: the contents of every variant of their answers.

use std::time::Duration;

use protocol::{
    ChannelId, Cursor, Encoding, ErrorCode, Limits,
    operation::{
        message::{MessageSend, SendMessage},
        session::{Connect, Watch},
    },
};
use serde_json::{Value, json};

use crate::story::{StoreKind, World, has_exactly};

/// A world with a low `watched_channels`.
struct Small(World);

impl Small {
    async fn on(store_kind: StoreKind) -> Self {
        Self(
            World::with(
                store_kind,
                1,
                &[
                    "--limit",
                    "watched_channels=3",
                    "--limit",
                    "subscriptions=5",
                ],
            )
            .await,
        )
    }
}

/// A world without rate limits.
struct Fast(World);

impl Fast {
    async fn on(store_kind: StoreKind) -> Self {
        Self(World::with(store_kind, 1, &["--limit", "requests_per_second=0"]).await)
    }
}

const FULL: &str = "channel_id channel role seq at number read unread participant_count";

fn ids(list: &Value) -> Vec<&str> {
    list.as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["channel_id"].as_str().unwrap())
        .collect()
}

on_both_stores! {
    async fn connect_answers_who_and_where_and_what_the_user_is_in(world: World) {
        let general = world.channel("group", "general", &["alice", "bob"]).await;
        let alice = world.connects("alice").await;
        let sent = alice.sends(&general, "hi").await;
        for encoding in Encoding::ALL {
            let mut by_hand = world.opens(encoding).await;
            let reply = by_hand.asks("connect", json!({ "token": world.token("bob").await, "client": "stories/1.0" })).await;
            has_exactly(&reply, "id result");
            let connected = &reply["result"];
            has_exactly(connected, "session_id user app_id environment features heartbeat_ms limits user_position channels more");
            assert!(connected["session_id"].as_str().unwrap().starts_with("ses_"));
            has_exactly(&connected["user"], "id first_name bot metadata created_at");
            assert_eq!((&connected["app_id"], &connected["environment"]), (&json!(world.app), &json!("live")));
            assert_eq!((&connected["heartbeat_ms"], &connected["more"]), (&json!(25_000), &json!(false)));
            assert!(connected["features"].is_array());
            for (name, value) in Limits::default().for_clients() {
                assert!(connected["limits"][&name].is_u64(), "{name}");
                if name != "outbox_total_bytes" {
                    assert_eq!(connected["limits"][&name], json!(value), "{name}");
                }
            }
            let position = connected["user_position"].as_array().unwrap();
            assert!(position.len() == 2 && position.iter().all(Value::is_u64));

            let entry = &connected["channels"][0];
            has_exactly(entry, &format!("{FULL} last_message"));
            has_exactly(&entry["channel"], "id type creator_id metadata created_at participant_count");
            assert_eq!((&entry["channel_id"], &entry["role"], &entry["participant_count"]), (&json!("general"), &json!("member"), &json!(2)));
            assert_eq!((&entry["number"], &entry["read"], &entry["unread"]), (&json!(1), &json!(0), &json!(1)));
            assert_eq!((&entry["seq"], &entry["last_message"]), (&json!(sent.seq), &json!(sent)));
            assert!(entry["at"].as_u64() >= Some(sent.created_at));
        }
    }

    async fn positions_alone_are_for_a_client_that_has_the_rest(world: World) {
        let general = world.channel("group", "general", &["alice"]).await;
        let alice = world.connects("alice").await;
        alice.sends(&general, "hi").await;
        let mut by_hand = world.opens(Encoding::MessagePack).await;
        let params = json!({ "token": world.token("alice").await, "entries": "positions", "resume": { "general": [77, 7] } });
        let reply = by_hand.asks("connect", params).await;
        has_exactly(&reply["result"]["channels"][0], "channel_id seq at number read unread gap");
        assert_eq!(reply["result"]["channels"][0]["gap"], "diverged");
        let mut by_hand = world.opens(Encoding::Json).await;
        let reply = by_hand.asks("connect", json!({ "token": world.token("alice").await, "entries": "positions" })).await;
        has_exactly(&reply["result"]["channels"][0], "channel_id seq at number read unread");
    }

    async fn connect_watches_the_channels_last_active_and_says_whether_there_are_more(world: Small) {
        let world = world.0;
        let mut channels: Vec<ChannelId> = Vec::new();
        for count in 0..6 {
            channels.push(world.channel("group", &format!("channel-{count}"), &["alice", "bob"]).await);
        }
        let alice = world.connects_to(0, "alice", Encoding::MessagePack, Connect { watch: Watch::None, ..Connect::default() }).await;
        for index in [3, 0, 5] {
            alice.sends(&channels[index], "active").await;
// Channels with equal times of their last events are ordered by id.
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let mut bob = world.connects("bob").await;
        let connected = json!(bob.connected());
        assert_eq!(ids(&connected["channels"]), ["channel-5", "channel-0", "channel-3"], "last active first");
        assert_eq!(connected["more"], true);
        alice.sends(&channels[1], "unheard").await;
        alice.sends(&channels[3], "heard").await;
        bob.sees("heard").await;

// Named channels are added, up to the limit of subscriptions.
        let resume = [(channels[1].clone(), Cursor::After(0, 0))].into();
        let bob = world.connects_to(0, "bob", Encoding::MessagePack, Connect { resume, ..Connect::default() }).await;
        let connected = json!(bob.connected());
        assert_eq!((connected["channels"].as_array().unwrap().len(), &connected["more"]), (4, &json!(true)));
        // Those that are active last leave the others their places, too.
        let resume = [5, 3].map(|index| (channels[index].clone(), Cursor::Now)).into();
        let resumed = world.connects_to(0, "bob", Encoding::MessagePack, Connect { resume, ..Connect::default() }).await;
        let connected = json!(resumed.connected());
        assert_eq!(connected["channels"].as_array().unwrap().len(), 5);
        assert_eq!(connected["more"], true);
        drop(resumed);
        let nobody = world.connects_to(0, "bob", Encoding::MessagePack, Connect { watch: Watch::None, ..Connect::default() }).await;
        assert!(nobody.connected().channels.is_empty());

        // The session has four; there is room for one more.
        let answer = bob.asks("channel.subscribe", json!({ "channels": { "channel-2": [], "channel-4": [] } })).await;
        has_exactly(&answer, "channels");
        let failed: Vec<&Value> = answer["channels"].as_array().unwrap().iter().filter(|entry| entry.get("error").is_some()).collect();
        assert_eq!((answer["channels"].as_array().unwrap().len(), failed.len()), (2, 1));
        has_exactly(failed[0], "channel_id error");
        has_exactly(&failed[0]["error"], "code message details");
        assert_eq!(failed[0]["error"]["code"], "limit_reached");
        let gone = ids(&connected["channels"])[0];
        assert_eq!(bob.asks("channel.unsubscribe", json!({ "channel_ids": [gone, "unknown"] })).await, json!({}));
        let again = bob.asks("channel.subscribe", json!({ "channels": { failed[0]["channel_id"].as_str().unwrap(): [] } })).await;
        assert_eq!((again["channels"].as_array().unwrap().len(), again["channels"][0].get("error")), (1, None));
    }

    async fn addition_beyond_the_subscription_limit_is_reported_and_can_be_subscribed_later(world: Small) {
        let world = world.0;
        let mut channels: Vec<ChannelId> = Vec::new();
        for count in 0..3 {
            channels.push(world.channel("group", &format!("channel-{count}"), &["alice", "bob"]).await);
        }
        let mut bob = world.connects("bob").await;
        let alice = world.connects_to(0, "alice", Encoding::MessagePack, Connect { watch: Watch::None, ..Connect::default() }).await;
        for count in 3..6 {
            channels.push(world.channel("group", &format!("channel-{count}"), &["alice", "bob"]).await);
        }
// Five is the limit; the sixth is announced without a subscription.
        let gap = bob.receives_raw("channel.gap").await;
        has_exactly(&gap, "event channel_id data");
        has_exactly(&gap["data"], "reason seq at");
        assert_eq!((&gap["channel_id"], &gap["data"]["reason"]), (&json!("channel-5"), &json!("limit_reached")));
        alice.sends(&channels[5], "missed").await;
        alice.sends(&channels[4], "heard").await;
        bob.sees("heard").await;

        bob.asks("channel.unsubscribe", json!({ "channel_ids": ["channel-0"] })).await;
        let position = json!([gap["data"]["seq"], gap["data"]["at"]]);
        bob.asks("channel.subscribe", json!({ "channels": { "channel-5": position } })).await;
        bob.sees("missed").await;
        alice.sends(&channels[5], "live").await;
        bob.sees("live").await;
    }

    async fn all_of_a_users_channels_are_listed_last_active_first_page_by_page(world: World) {
        let mut channels: Vec<ChannelId> = Vec::new();
        for count in 0..7 {
            channels.push(world.channel("group", &format!("channel-{count}"), &["alice", "bob"]).await);
        }
        world.channel("group", "not-bobs", &["alice"]).await;
        let alice = world.connects("alice").await;
        for index in [6, 2, 4] {
            alice.sends(&channels[index], "active").await;
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let bob = world.connects_to(0, "bob", Encoding::Json, Connect { watch: Watch::None, ..Connect::default() }).await;
        let all = bob.asks("channel.list", json!({})).await;
        has_exactly(&all, "items");
        let wanted = ["channel-4", "channel-2", "channel-6", "channel-5", "channel-3", "channel-1", "channel-0"];
        assert_eq!(ids(&all["items"]), wanted);
        has_exactly(&all["items"][0], &format!("{FULL} last_message"));
        has_exactly(&all["items"][6], FULL);

        let (mut found, mut cursor): (Vec<String>, Option<Value>) = (Vec::new(), None);
        let mut pages = 0;
        loop {
            let mut params = json!({ "limit": 3 });
            if let Some(cursor) = &cursor {
                params["cursor"] = cursor.clone();
            }
            let page = bob.asks("channel.list", params).await;
            pages += 1;
            found.extend(ids(&page["items"]).into_iter().map(str::to_owned));
            cursor = page.get("cursor").cloned();
            has_exactly(&page, if cursor.is_some() { "items cursor" } else { "items" });
            if cursor.is_none() {
                break;
            }
        }
        assert_eq!((found.iter().map(String::as_str).collect::<Vec<_>>(), pages), (wanted.to_vec(), 3), "each once");
        assert_eq!(bob.is_refused("channel.list", json!({ "cursor": "nonsense" })).await, ErrorCode::BadRequest);
        let over_http: Value = world.team().get("/v1/users/bob/channels?limit=2").await.unwrap();
        assert_eq!(ids(&over_http["items"]), wanted[..2]);
    }

    async fn a_list_of_channels_longer_than_256_kib_ends_early_and_goes_on(world: Fast) {
        let world = world.0;
        let alice = {
            world.people(&["alice"]).await;
            world.connects_to(0, "alice", Encoding::MessagePack, Connect { watch: Watch::None, ..Connect::default() }).await
        };
        let text = "\"".repeat(16_000);
        for count in 0..20 {
            let body = json!({ "id": format!("channel-{count}"), "type": "group", "creator_id": "alice" });
            let _: Value = world.team().post("/v1/channels", &body).await.unwrap();
            let channel = format!("channel-{count}").parse().unwrap();
            alice.session.call::<MessageSend>(&channel, &SendMessage { text: Some(text.clone()), ..SendMessage::default() }).await.unwrap();
        }
        for encoding in Encoding::ALL {
            let mut by_hand = world.opens(encoding).await;
            let (length, reply) = by_hand.asks_measured("connect", json!({ "token": world.token("alice").await })).await;
            assert!(length <= 256 * 1024, "{encoding:?}: {length} bytes");
            assert_eq!(reply["result"]["more"], false, "it is subscribed to all of them");
            let entries = reply["result"]["channels"].as_array().unwrap();
            let latest: Vec<String> = (0..20).rev().map(|n| format!("channel-{n}")).collect();
            assert_eq!(ids(&reply["result"]["channels"]), latest);
            let full = entries.iter().take_while(|entry| entry.get("channel").is_some()).count();
            assert!((2..20).contains(&full), "{full} in full");
            for entry in &entries[..full] {
                has_exactly(entry, &format!("{FULL} last_message"));
            }
            for entry in &entries[full..] {
                has_exactly(entry, "channel_id seq at number read unread");
            }
            let (mut found, mut params) = (0, json!({ "limit": 100 }));
            loop {
                let (length, page) = by_hand.asks_measured("channel.list", params.clone()).await;
                assert!(length <= 256 * 1024, "{encoding:?}: {length} bytes");
                found += page["result"]["items"].as_array().unwrap().len();
                match page["result"].get("cursor") {
                    Some(cursor) => params["cursor"] = cursor.clone(),
                    None => break,
                }
            }
            assert_eq!(found, 20);
        }
    }
}
