//! The message methods: fields, pages in four ways, and
//! permitted changes.

use protocol::{
    ErrorCode,
    entity::Message,
    operation::message::{ListMessages, MessageList, MessageSend, SendMessage},
};
use serde_json::{Value, json};

use crate::story::{Person, StoreKind, World, has_exactly, refusal};

/// The fields that every message has.
const MESSAGE: &str = "id channel_id number seq sender_id kind text attachments mention_ids reactions metadata created_at";

/// A world without rate limits.
struct Fast(World);

impl Fast {
    async fn on(store_kind: StoreKind) -> Self {
        Self(World::with(store_kind, 1, &["--limit", "requests_per_second=0"]).await)
    }
}

fn with(fields: &str) -> String {
    format!("{MESSAGE} {fields}")
}

fn numbers(page: &Value) -> Vec<u64> {
    page["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["number"].as_u64().unwrap())
        .collect()
}

async fn send(person: &Person, body: Value) -> Value {
    let answer = person.asks("message.send", body).await;
    has_exactly(&answer, "message");
    answer["message"].clone()
}

on_both_stores! {
    async fn a_message_has_the_fields_that_it_was_sent_with_and_no_others(world: World) {
        let general = world.channel("group", "general", &["alice", "bob"]).await;
        let alice = world.connects("alice").await;
        let bare = send(&alice, json!({ "channel_id": general, "text": "bare" })).await;
        has_exactly(&bare, MESSAGE);
        assert_eq!((&bare["kind"], &bare["sender_id"], &bare["number"]), (&json!("text"), &json!("alice"), &json!(1)));
        assert_eq!((&bare["attachments"], &bare["mention_ids"], &bare["reactions"], &bare["metadata"]), (&json!([]), &json!([]), &json!({}), &json!({})));

        let attachment = json!({
            "type": "image", "url": "https://pictures.example/1.png", "name": "1.png", "size": 1234, "mime": "image/png",
            "width": 640, "height": 480, "duration_ms": 10, "metadata": { "blurred": true },
        });
        let full = json!({
            "channel_id": general, "message_id": "msg_00000000000000bb", "text": "full", "reply_to_id": bare["id"],
            "attachments": [attachment, { "type": "file", "url": "http://files.example/2" }], "mention_ids": ["bob"],
            "metadata": { "deep": { "list": [1, -2.5, "three", null, false] } },
        });
        let sent = send(&alice, full.clone()).await;
        has_exactly(&sent, &with("reply_to_id"));
        for field in ["text", "reply_to_id", "attachments", "mention_ids", "metadata", "channel_id"] {
            assert_eq!(sent[field], full[field], "{field}");
        }
        assert_eq!(sent["id"], "msg_00000000000000bb");
        assert_eq!(sent["seq"].as_u64(), bare["seq"].as_u64().map(|seq| seq + 1));

        let alone = send(&alice, json!({ "channel_id": general, "attachments": [attachment] })).await;
        assert_eq!(alone["text"], "", "a message may be an attachment alone");

        let path = format!("/v1/channels/{general}/messages");
        let notice: Value = world.team().post(&path, &json!({ "kind": "system", "text": "bob was here" })).await.unwrap();
        assert_eq!((&notice["kind"], notice.get("sender_id")), (&json!("system"), None));
        let listed = alice.asks("message.list", json!({ "channel_id": general })).await;
        for (item, sent) in listed["items"].as_array().unwrap().iter().zip([&bare, &sent, &alone, &notice]) {
            let mut item = item.clone();
            assert_eq!(item.as_object_mut().unwrap().remove("own_reactions"), Some(json!([])));
            assert_eq!(item, *sent, "listed as it was answered");
        }
        let read: Value = world.team().get(&format!("{path}/msg_00000000000000bb")).await.unwrap();
        assert_eq!(read, sent);
    }

    async fn invalid_message_is_refused(world: World) {
        let general = world.channel("group", "general", &["alice"]).await;
        world.people(&["bob"]).await;
        let alice = world.connects("alice").await;
        let kind = |kind: &str| json!({ "channel_id": general, "text": "x", "attachments": [{ "type": kind, "url": "https://a.example" }] });
        for (body, code) in [
            (json!({ "channel_id": general }), ErrorCode::BadRequest),
            (json!({ "channel_id": general, "text": "" }), ErrorCode::BadRequest),
            (json!({ "channel_id": general, "text": "x".repeat(16_385) }), ErrorCode::TooLarge),
            (json!({ "channel_id": general, "text": 7 }), ErrorCode::BadRequest),
            (json!({ "text": "x" }), ErrorCode::BadRequest),
            (json!({ "channel_id": "no such channel", "text": "x" }), ErrorCode::BadRequest),
            (json!({ "channel_id": "unused", "text": "x" }), ErrorCode::NotFound),
            (json!({ "channel_id": general, "text": "x", "message_id": "mine" }), ErrorCode::BadRequest),
            (json!({ "channel_id": general, "text": "x", "reply_to_id": "msg_00000000000000cc" }), ErrorCode::NotFound),
            (json!({ "channel_id": general, "text": "x", "kind": "system" }), ErrorCode::Forbidden),
            (json!({ "channel_id": general, "text": "x", "sender_id": "bob" }), ErrorCode::Forbidden),
            (json!({ "channel_id": general, "text": "x", "attachments": [{ "url": "https://a.example" }] }), ErrorCode::BadRequest),
            (json!({ "channel_id": general, "text": "x", "attachments": [{ "type": "image" }] }), ErrorCode::BadRequest),
            (json!({ "channel_id": general, "text": "x", "attachments": [{ "type": "image", "url": "javascript:alert(1)" }] }), ErrorCode::BadRequest),
            (kind(""), ErrorCode::BadRequest),
            (json!({ "channel_id": general, "text": "x", "metadata": { "big": "x".repeat(9000) } }), ErrorCode::TooLarge),
            (json!({ "channel_id": general, "text": "x", "metadata": ["no", "map"] }), ErrorCode::BadRequest),
        ] {
            let told = body.to_string();
            assert_eq!(alice.is_refused("message.send", body).await, code, "{}", &told[..told.len().min(200)]);
        }
        let mut deep = json!(1);
        for _ in 0..20 {
            deep = json!({ "d": deep });
        }
        let refused = alice.is_refused("message.send", json!({ "channel_id": general, "text": "x", "metadata": deep })).await;
        assert!([ErrorCode::BadRequest, ErrorCode::TooLarge].contains(&refused));
        let most = send(&alice, json!({ "channel_id": general, "text": "x".repeat(16_384) })).await;
        assert_eq!(most["number"], 1, "what was refused left no trace");
    }

    async fn a_backend_sends_in_the_name_of_any_user(world: World) {
        let general = world.channel("group", "general", &["alice"]).await;
        world.people(&["robot"]).await;
        let (team, path) = (world.team(), format!("/v1/channels/{general}/messages"));
        let made: Message = team.post(&path, &json!({ "sender_id": "robot", "text": "beep" })).await.unwrap();
        assert_eq!(made.sender_id.unwrap().as_str(), "robot", "who need not be a participant");
        assert_eq!(refusal(team.post::<Message>(&path, &json!({ "text": "whose?" })).await), (400, ErrorCode::BadRequest));
        assert_eq!(refusal(team.post::<Message>(&path, &json!({ "sender_id": "nobody", "text": "x" })).await), (404, ErrorCode::NotFound));
        let token = world.token("robot").await;
        let robot = world.backend(&token);
        assert_eq!(refusal(robot.post::<Message>(&path, &json!({ "text": "x" })).await), (404, ErrorCode::NotFound));
    }

    async fn messages_are_listed_in_four_ways(world: Fast) {
        let world = world.0;
        let general = world.channel("group", "general", &["alice"]).await;
        let mut alice = world.connects("alice").await;
        for count in 1..=60 {
            alice.sends(&general, &format!("message {count}")).await;
        }
        let first_seq = alice.receives("message.created").await.seq.unwrap();
        let list = async |query: Value| {
            let mut params = json!({ "channel_id": general });
            params.as_object_mut().unwrap().extend(query.as_object().unwrap().clone());
            let page = alice.asks("message.list", params).await;
            has_exactly(&page, "items more");
            (numbers(&page), page["more"].as_bool().unwrap())
        };
        let range = |from: u64, to: u64| (from..=to).collect::<Vec<_>>();
        assert_eq!(list(json!({})).await, (range(11, 60), true), "the newest 50, by number ascending");
        assert_eq!(list(json!({ "limit": 60 })).await, (range(1, 60), false));
        assert_eq!(list(json!({ "limit": 5 })).await, (range(56, 60), true));
        assert_eq!(list(json!({ "before": 11 })).await, (range(1, 10), false), "exclusive");
        assert_eq!(list(json!({ "before": 11, "limit": 3 })).await, (range(8, 10), true), "those just before it");
        assert_eq!(list(json!({ "before": 1 })).await, (vec![], false));
        assert_eq!(list(json!({ "after": 0, "limit": 10 })).await, (range(1, 10), true));
        assert_eq!(list(json!({ "after": 50 })).await, (range(51, 60), false));
        assert_eq!(list(json!({ "after": 60 })).await, (vec![], false));
        assert_eq!(list(json!({ "before": 1000, "limit": 200 })).await, (range(1, 60), false));
        assert_eq!(list(json!({ "limit": 100_000 })).await, (range(1, 60), false), "more than limits.page is that");

        let page: Vec<Message> = alice.session.call::<MessageList>(&general, &ListMessages { after: Some(0), ..ListMessages::default() }).await.unwrap().items;
        alice.asks("message.edit", json!({ "channel_id": general, "message_id": page[4].id, "text": "changed" })).await;
        alice.asks("reaction.add", json!({ "channel_id": general, "message_id": page[1].id, "emoji": "👍" })).await;
        alice.asks("message.delete", json!({ "channel_id": general, "message_id": page[2].id })).await;
        assert_eq!(list(json!({ "changed_after": first_seq + 57 })).await, (vec![59, 60, 5, 2, 3], false), "by seq ascending, exclusive");
        assert_eq!(list(json!({ "changed_after": first_seq + 57, "limit": 2 })).await, (vec![59, 60], true));
        assert_eq!(list(json!({ "changed_after": first_seq + 62 })).await, (vec![], false));
        let (all, more) = list(json!({ "changed_after": 0, "limit": 200 })).await;
        assert_eq!((all.len(), more), (60, false), "each once");

        for wrong in [json!({ "limit": 0 }), json!({ "before": 3, "after": 1 }), json!({ "after": 1, "changed_after": 1 }), json!({ "before": -1 })] {
            let mut params = json!({ "channel_id": general });
            params.as_object_mut().unwrap().extend(wrong.as_object().unwrap().clone());
            assert_eq!(alice.is_refused("message.list", params).await, ErrorCode::BadRequest);
        }
        let over_http: Value = world.team().get(&format!("/v1/channels/{general}/messages?before=11&limit=3")).await.unwrap();
        assert_eq!((numbers(&over_http), over_http["more"].as_bool()), (range(8, 10), Some(true)));
        assert!(over_http["items"][0].get("own_reactions").is_none(), "an app key reacts in nobody's name");
    }

    async fn a_reply_longer_than_256_kib_ends_early_and_says_so(world: Fast) {
        let world = world.0;
        let general = world.channel("group", "general", &["alice"]).await;
        let alice = world.connects("alice").await;
        // Each is twice as long in JSON as it is in MessagePack.
        let text = "\"".repeat(16_000);
        for _ in 0..40 {
            alice.session.call::<MessageSend>(&general, &SendMessage { text: Some(text.clone()), ..SendMessage::default() }).await.unwrap();
        }
        for encoding in protocol::Encoding::ALL {
            let mut by_hand = world.opens(encoding).await;
            by_hand.asks("connect", json!({ "token": world.token("alice").await })).await;
            for (query, newest) in [(json!({ "after": 0 }), false), (json!({ "changed_after": 0 }), false), (json!({}), true)] {
                let mut params = query.clone();
                params["channel_id"] = json!(general);
                params["limit"] = json!(200);
                let (length, page) = by_hand.asks_measured("message.list", params).await;
                assert!(length <= 256 * 1024, "{encoding:?} {query}: {length} bytes");
                let items = numbers(&page["result"]);
                assert!(items.len() >= 4 && page["result"]["more"] == true, "{encoding:?} {query}: {items:?}");
                let first = if newest { 40 - items.len() as u64 + 1 } else { 1 };
                assert_eq!(items, (first..first + items.len() as u64).collect::<Vec<_>>(), "the far end is cut");
            }
        }
// The pages contain all messages.
        let (mut seen, mut after) = (0, 0);
        loop {
            let page = alice.session.call::<MessageList>(&general, &ListMessages { after: Some(after), limit: Some(200), ..ListMessages::default() }).await.unwrap();
            seen += page.items.len();
            after = page.items.last().unwrap().number;
            if !page.more {
                break;
            }
        }
        assert_eq!(seen, 40);
    }

    async fn an_edit_changes_what_it_names(world: World) {
        let general = world.channel("group", "general", &["alice", "bob"]).await;
        let (alice, bob) = (world.connects("alice").await, world.connects("bob").await);
        let sent = send(&alice, json!({
            "channel_id": general, "text": "before", "mention_ids": ["bob"], "metadata": { "a": 1, "b": { "c": 2, "d": 3 } },
            "attachments": [{ "type": "file", "url": "https://files.example/1" }],
        })).await;
        let edit = async |fields: Value| {
            let mut params = json!({ "channel_id": general, "message_id": sent["id"] });
            params.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
            let answer = alice.asks("message.edit", params).await;
            has_exactly(&answer, "message");
            answer["message"].clone()
        };
        let edited = edit(json!({ "text": "after" })).await;
        has_exactly(&edited, &with("edited_at"));
        assert_eq!(edited["seq"].as_u64(), sent["seq"].as_u64().map(|seq| seq + 1));
        assert!(edited["edited_at"].as_u64() >= sent["created_at"].as_u64());
        for same in ["id", "number", "created_at", "attachments", "mention_ids", "metadata", "sender_id"] {
            assert_eq!(edited[same], sent[same], "{same}");
        }
        let merged = edit(json!({ "metadata": { "a": null, "b": { "c": 7 }, "e": 5 } })).await;
        assert_eq!((&merged["metadata"], &merged["text"]), (&json!({ "b": { "c": 7, "d": 3 }, "e": 5 }), &json!("after")));
        let emptied = edit(json!({ "attachments": [], "mention_ids": [], "metadata": null })).await;
        assert_eq!((&emptied["attachments"], &emptied["mention_ids"], &emptied["metadata"]), (&json!([]), &json!([]), &json!({})));
        let params = json!({ "channel_id": general, "message_id": sent["id"], "text": "" });
        assert_eq!(alice.is_refused("message.edit", params).await, ErrorCode::BadRequest, "nothing would be left of it");
        let params = json!({ "channel_id": general, "message_id": sent["id"], "text": "mine" });
        assert_eq!(bob.is_refused("message.edit", params).await, ErrorCode::Forbidden);
        let params = json!({ "channel_id": general, "message_id": "msg_00000000000000dd", "text": "x" });
        assert_eq!(alice.is_refused("message.edit", params).await, ErrorCode::NotFound);
        let path = format!("/v1/channels/{general}/messages/{}", sent["id"].as_str().unwrap());
        let by_backend: Value = world.team().patch(&path, &json!({ "text": "moderated" })).await.unwrap();
        assert_eq!((&by_backend["text"], &by_backend["sender_id"]), (&json!("moderated"), &json!("alice")));
    }

    async fn a_deleted_message_keeps_its_place_and_nothing_of_what_it_said(world: World) {
        let general = world.channel("group", "general", &["alice", "bob"]).await;
        let (alice, bob) = (world.connects("alice").await, world.connects("bob").await);
        let first = send(&alice, json!({ "channel_id": general, "text": "first" })).await;
        let sent = send(&bob, json!({
            "channel_id": general, "text": "secret", "mention_ids": ["alice"], "metadata": { "a": 1 }, "reply_to_id": first["id"],
            "attachments": [{ "type": "file", "url": "https://files.example/1" }],
        })).await;
        let named = json!({ "channel_id": general, "message_id": sent["id"] });
        let reaction = json!({ "channel_id": general, "message_id": sent["id"], "emoji": "👍" });
        alice.asks("reaction.add", reaction.clone()).await;
        bob.asks("message.edit", json!({ "channel_id": general, "message_id": sent["id"], "text": "a secret" })).await;
        assert_eq!(alice.asks("message.delete", named.clone()).await, json!({}), "an owner deletes others' messages");
        let path = format!("/v1/channels/{general}/messages/{}", sent["id"].as_str().unwrap());
        let deleted: Value = world.team().get(&path).await.unwrap();
        has_exactly(&deleted, &with("reply_to_id edited_at deleted_at"));
        for kept in ["id", "channel_id", "number", "kind", "sender_id", "reply_to_id", "created_at"] {
            assert_eq!(deleted[kept], sent[kept], "{kept}");
        }
        assert_eq!(deleted["seq"].as_u64(), sent["seq"].as_u64().map(|seq| seq + 3));
        assert_eq!(deleted["text"], "");
        for emptied in ["attachments", "mention_ids"] {
            assert_eq!(deleted[emptied], json!([]));
        }
        for emptied in ["reactions", "metadata"] {
            assert_eq!(deleted[emptied], json!({}), "{emptied}");
        }
        let listed = alice.asks("message.list", json!({ "channel_id": general, "after": 1 })).await;
        assert_eq!((listed["items"].as_array().unwrap().len(), &listed["items"][0]["text"]), (1, &json!("")));
        assert_eq!(listed["items"][0]["own_reactions"], json!([]));
        assert_eq!(bob.asks("message.delete", named.clone()).await, json!({}), "again is nothing");
        let again: Value = world.team().get(&path).await.unwrap();
        assert_eq!(again, deleted);
        let edit = json!({ "channel_id": general, "message_id": sent["id"], "text": "back" });
        assert_eq!(bob.is_refused("message.edit", edit).await, ErrorCode::NotFound);
        assert_eq!(bob.is_refused("reaction.add", reaction.clone()).await, ErrorCode::NotFound);
        let answer = send(&bob, json!({ "channel_id": general, "text": "to what is gone", "reply_to_id": sent["id"] })).await;
        assert_eq!(answer["reply_to_id"], sent["id"]);
        assert_eq!(bob.is_refused("message.delete", json!({ "channel_id": general, "message_id": first["id"] })).await, ErrorCode::Forbidden);
    }

    async fn reactions_are_counted_by_kind_and_once_for_each_user(world: World) {
        let general = world.channel("group", "general", &["alice", "bob"]).await;
        let (alice, bob) = (world.connects("alice").await, world.connects("bob").await);
        let sent = send(&alice, json!({ "channel_id": general, "text": "like me" })).await;
        let react = async |who: &Person, method: &str, emoji: &str| {
            let answer = who.asks(method, json!({ "channel_id": general, "message_id": sent["id"], "emoji": emoji })).await;
            has_exactly(&answer, "count");
            answer["count"].as_u64().unwrap()
        };
        assert_eq!(react(&alice, "reaction.add", "👍").await, 1);
        assert_eq!(react(&alice, "reaction.add", "👍").await, 1, "again is nothing");
        assert_eq!(react(&bob, "reaction.add", "👍").await, 2);
        assert_eq!(react(&bob, "reaction.add", ":party:").await, 1);
        assert_eq!(react(&alice, "reaction.remove", ":party:").await, 1, "bob's stays");
        let listed = bob.asks("message.list", json!({ "channel_id": general })).await;
        let item = &listed["items"][0];
        assert_eq!(item["reactions"], json!({ "👍": 2, ":party:": 1 }));
        let mut own: Vec<&str> = item["own_reactions"].as_array().unwrap().iter().map(|e| e.as_str().unwrap()).collect();
        own.sort_unstable();
        assert_eq!(own, [":party:", "👍"]);
        assert_eq!(item["seq"].as_u64(), sent["seq"].as_u64().map(|seq| seq + 3), "a reaction changes its message's seq");
        assert_eq!(item.get("edited_at"), None, "and nothing else of it");
        let path = format!("/v1/channels/{general}/messages/{}/reactions/{}", sent["id"].as_str().unwrap(), client::segment("👍"));
        let count: Value = world.team().delete(&format!("{path}?sender_id=bob")).await.unwrap();
        assert_eq!(count, json!({ "count": 1 }));
        assert_eq!(react(&alice, "reaction.remove", "👍").await, 0);
        let listed = alice.asks("message.list", json!({ "channel_id": general })).await;
        assert_eq!((&listed["items"][0]["reactions"], &listed["items"][0]["own_reactions"]), (&json!({ ":party:": 1 }), &json!([])));
        for wrong in ["", &"x".repeat(65), "a\nb"] {
            let params = json!({ "channel_id": general, "message_id": sent["id"], "emoji": wrong });
            assert_eq!(alice.is_refused("reaction.add", params).await, ErrorCode::BadRequest);
        }
        let params = json!({ "channel_id": general, "message_id": "msg_00000000000000dd", "emoji": "👍" });
        assert_eq!(alice.is_refused("reaction.add", params).await, ErrorCode::NotFound);
    }

    async fn reading_moves_forwards_and_at_most_to_the_newest(world: World) {
        let general = world.channel("group", "general", &["alice", "bob"]).await;
        let (alice, bob) = (world.connects("alice").await, world.connects("bob").await);
        for _ in 0..5 {
            alice.sends(&general, "x").await;
        }
        let mark = async |number: u64| bob.asks("read.mark", json!({ "channel_id": general, "number": number })).await;
        assert_eq!(mark(3).await, json!({ "read": 3 }));
        assert_eq!(mark(1).await, json!({ "read": 3 }), "only forwards");
        let unread: Value = world.team().get("/v1/users/bob/unread").await.unwrap();
        assert_eq!(unread, json!({ "unread": 2, "channels": { "general": 2 } }));
        assert_eq!(mark(1_000_000).await, json!({ "read": 5 }), "at most to the newest");
        let unread: Value = world.backend(&world.token("bob").await).get("/v1/users/bob/unread").await.unwrap();
        assert_eq!(unread, json!({ "unread": 0, "channels": {} }));
        let listed = alice.asks("participant.list", json!({ "channel_id": general })).await;
        let read: Vec<(&str, u64)> = listed["items"].as_array().unwrap().iter().map(|p| (p["user_id"].as_str().unwrap(), p["read"].as_u64().unwrap())).collect();
        assert_eq!(read, [("alice", 0), ("bob", 5)]);
        world.people(&["carol"]).await;
        let _: Value = world.team().post(&format!("/v1/channels/{general}/participants"), &json!({ "user_id": "carol" })).await.unwrap();
        let carol = world.connects("carol").await;
        assert_eq!((carol.entry(&general).read, carol.entry(&general).unread), (5, Some(0)), "joining has read everything");
    }
}

on_both_stores! {
    async fn an_edit_that_changes_nothing_is_answered_without_an_event(world: World) {
        let general = world.channel("group", "general", &["alice", "bob"]).await;
        let (alice, mut bob) = (world.connects("alice").await, world.connects("bob").await);
        let sent = send(&alice, json!({ "channel_id": general, "text": "same", "mention_ids": ["bob"], "metadata": { "a": 1 } })).await;
        let edit = async |fields: Value| {
            let mut params = json!({ "channel_id": general, "message_id": sent["id"] });
            params.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
            alice.asks("message.edit", params).await["message"].clone()
        };
        for same in [json!({}), json!({ "text": "same" }), json!({ "mention_ids": ["bob"], "attachments": [] }), json!({ "metadata": { "a": 1, "b": null } })] {
            assert_eq!(edit(same.clone()).await, sent, "{same}");
        }
        let path = format!("/v1/channels/{general}/messages/{}", sent["id"].as_str().unwrap());
        let over_http: Value = world.team().patch(&path, &json!({ "text": "same" })).await.unwrap();
        assert_eq!(over_http, sent);

        let marked: Value = world.team().patch(&path, &json!({ "metadata": { "reviewed": true } })).await.unwrap();
        assert_eq!(marked.get("edited_at"), None, "metadata is nothing that a reader sees edited");
        assert_eq!(marked["seq"].as_u64(), sent["seq"].as_u64().map(|seq| seq + 1));
        let changed = edit(json!({ "text": "other" })).await;
        assert!(changed["edited_at"].is_u64());
        let marked: Value = world.team().patch(&path, &json!({ "metadata": { "reviewed": null } })).await.unwrap();
        assert_eq!(marked["edited_at"], changed["edited_at"]);

        bob.sees("same").await;
        for seq in [1, 2, 3] {
            let updated = bob.receives_raw("message.updated").await;
            assert_eq!(updated["seq"].as_u64(), sent["seq"].as_u64().map(|first| first + seq), "one event for each change");
        }
        bob.receives_nothing().await;
    }

    async fn an_update_of_a_channel_or_a_user_that_changes_nothing_makes_no_event(world: World) {
        let general = world.channel("group", "general", &["alice"]).await;
        let mut alice = world.connects("alice").await;
        let named = alice.asks("channel.update", json!({ "channel_id": general, "name": "General" })).await;
        assert_eq!(alice.asks("channel.update", json!({ "channel_id": general, "name": "General" })).await, named);
        let user = alice.asks("user.update", json!({ "bio": "hi" })).await;
        assert_eq!(alice.asks("user.update", json!({ "bio": "hi", "avatar": null })).await, user);
        alice.receives("channel.updated").await;
        alice.receives("user.updated").await;
        alice.receives_nothing().await;
    }

    async fn a_direct_channel_with_a_deleted_user_is_neither_given_nor_written_to(world: World) {
        let pair = world.channel("direct", "", &["alice", "bob"]).await;
        let alice = world.connects("alice").await;
        alice.sends(&pair, "are you there?").await;
        let (): () = world.team().delete("/v1/users/bob").await.unwrap();

        let create = json!({ "type": "direct", "participant_ids": ["bob"] });
        assert_eq!(alice.is_refused("channel.create", create).await, ErrorCode::NotFound);
        let body = json!({ "type": "direct", "participant_ids": ["alice", "bob"] });
        assert_eq!(refusal(world.team().post::<Value>("/v1/channels", &body).await), (404, ErrorCode::NotFound));
        let path = format!("/v1/channels/{pair}/messages");
        let message = json!({ "channel_id": pair, "text": "hello?" });
        assert_eq!(alice.is_refused("message.send", message).await, ErrorCode::Forbidden, "though this session has sent before");
        let answer = world.team().post::<Value>(&path, &json!({ "sender_id": "alice", "text": "hello?" })).await;
        assert_eq!(refusal(answer), (403, ErrorCode::Forbidden));
        let listed = alice.asks("message.list", json!({ "channel_id": pair })).await;
        assert_eq!(numbers(&listed), [1], "what was written stays readable");
    }

    async fn the_reaction_of_a_deleted_user_is_removed_by_the_app(world: World) {
        let general = world.channel("group", "general", &["alice", "bob"]).await;
        let (alice, bob) = (world.connects("alice").await, world.connects("bob").await);
        let sent = send(&alice, json!({ "channel_id": general, "text": "like me" })).await;
        bob.asks("reaction.add", json!({ "channel_id": general, "message_id": sent["id"], "emoji": "👍" })).await;
        let (): () = world.team().delete("/v1/users/bob").await.unwrap();
        let path = format!("/v1/channels/{general}/messages/{}/reactions/{}", sent["id"].as_str().unwrap(), client::segment("👍"));
        assert_eq!(refusal(world.team().put::<Value>(&format!("{path}?sender_id=bob"), &json!({})).await), (404, ErrorCode::NotFound));
        for _ in 0..2 {
            let count: Value = world.team().delete(&format!("{path}?sender_id=bob")).await.unwrap();
            assert_eq!(count, json!({ "count": 0 }));
        }
        assert_eq!(refusal(world.team().delete::<Value>(&format!("{path}?sender_id=nobody")).await), (404, ErrorCode::NotFound));
    }

    async fn spellings_of_an_emoji_that_look_the_same_count_together(world: World) {
        let general = world.channel("group", "general", &["alice", "bob"]).await;
        let (alice, mut bob) = (world.connects("alice").await, world.connects("bob").await);
        let sent = send(&alice, json!({ "channel_id": general, "text": "like me" })).await;
        let react = async |who: &Person, method: &str, emoji: &str| {
            let answer = who.asks(method, json!({ "channel_id": general, "message_id": sent["id"], "emoji": emoji })).await;
            answer["count"].as_u64().unwrap()
        };
        assert_eq!(react(&alice, "reaction.add", "\u{2764}").await, 1);
        assert_eq!(react(&alice, "reaction.add", "\u{2764}\u{fe0f}").await, 1, "the same user, the same emoji");
        assert_eq!(react(&bob, "reaction.add", "\u{2764}\u{fe0f}").await, 2);
        for _ in 0..2 {
            assert_eq!(bob.receives_raw("reaction.added").await["data"]["emoji"], "\u{2764}");
        }
        let listed = alice.asks("message.list", json!({ "channel_id": general })).await;
        assert_eq!((&listed["items"][0]["reactions"], &listed["items"][0]["own_reactions"]), (&json!({ "\u{2764}": 2 }), &json!(["\u{2764}"])));
        let path = format!("/v1/channels/{general}/messages/{}/reactions/{}", sent["id"].as_str().unwrap(), client::segment("\u{2764}\u{fe0e}"));
        let count: Value = world.team().delete(&format!("{path}?sender_id=bob")).await.unwrap();
        assert_eq!(count, json!({ "count": 1 }));
        for invisible in [" ", "\u{fe0f}", "\u{202e}👍", "\u{3164}"] {
            let params = json!({ "channel_id": general, "message_id": sent["id"], "emoji": invisible });
            assert_eq!(alice.is_refused("reaction.add", params).await, ErrorCode::BadRequest, "{}", invisible.escape_unicode());
        }
    }

    async fn messages_are_counted_whatever_brought_them_and_once(world: World) {
        let general = world.channel("group", "general", &["alice"]).await;
        let alice = world.connects("alice").await;
        let body = json!({ "channel_id": general, "text": "x", "message_id": "msg_0000000000000001" });
        send(&alice, body.clone()).await;
        send(&alice, body).await;
        let path = format!("/v1/channels/{general}/messages");
        let body = json!({ "sender_id": "alice", "text": "y", "message_id": "msg_0000000000000002" });
        for _ in 0..2 {
            let _: Value = world.team().post(&path, &body).await.unwrap();
        }
        alice.asks("message.edit", json!({ "channel_id": general, "message_id": "msg_0000000000000001", "text": "z" })).await;
        assert_eq!(world.metric(0, "chaos_messages_total").await, 2.0);
    }
}
