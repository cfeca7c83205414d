//! The delivery guarantees: a reply means stored, streams have no gaps, and nobody receives events
//! of others.

use std::collections::BTreeMap;

use protocol::{
    ChannelId, Cursor, Encoding, ErrorCode, EventMessage, UserId,
    entity::Message,
    operation::{
        channel::{ChannelSubscribe, Subscribe},
        message::{
            EditMessage, ListMessages, MessageDelete, MessageEdit, MessageList, MessageSend,
            SendMessage,
        },
        participant::{AddParticipant, ParticipantAdd, ParticipantRemove},
        session::{Connect, Watch},
        typing::{Typing, TypingSet},
    },
};
use serde_json::json;

use crate::story::{Person, SILENCE, StoreKind, World, refusal};

/// A message with an id of the sender's choice.
fn message(id: &str, text: &str) -> SendMessage {
    SendMessage {
        message_id: Some(id.parse().unwrap()),
        text: Some(text.to_owned()),
        ..SendMessage::default()
    }
}

const ID: &str = "msg_00000000000000aa";

async fn all_messages(person: &Person, channel: &ChannelId) -> Vec<Message> {
    let page = person
        .session
        .call::<MessageList>(
            channel,
            &ListMessages {
                after: Some(0),
                limit: Some(200),
                ..ListMessages::default()
            },
        )
        .await
        .unwrap();
    assert!(!page.more);
    page.items
}

on_both_stores! {
    async fn a_reply_means_that_the_message_is_stored_and_listed_exactly_once(world: World) {
        let mut world = world;
        let general = world.channel("group", "general", &["alice"]).await;
        let alice = world.connects("alice").await;
        let mut pending = Vec::new();
        for count in 0..60 {
            let message = SendMessage { text: Some(format!("message {count}")), ..SendMessage::default() };
            pending.push(alice.session.begin::<MessageSend>(&general, &message).await.unwrap());
        }
        let mut sent: Vec<Message> = Vec::new();
        for reply in pending {
            sent.push(reply.reply().await.unwrap());
        }
        assert_eq!(sent.iter().map(|m| m.number).collect::<Vec<_>>(), (1..=60).collect::<Vec<_>>(), "in the order sent");
        drop(alice);
        world.restarts().await;
        let alice = world.connects("alice").await;
        let listed = all_messages(&alice, &general).await;
        let bare = |messages: Vec<Message>| messages.into_iter().map(|m| Message { own_reactions: None, ..m }).collect::<Vec<_>>();
        assert_eq!(bare(listed), sent);
    }

    async fn retry_with_same_id_returns_first_message(world: World) {
        let mut world = world;
        let general = world.channel("group", "general", &["alice", "bob"]).await;
        let alice = world.connects("alice").await;
        let first = alice.session.call::<MessageSend>(&general, &message(ID, "first")).await.unwrap();
        assert_eq!(first.id.as_str(), ID);
        for retry in [
            message(ID, "first"),
            message(ID, "second"),
            SendMessage { text: None, ..message(ID, "") },
            message(ID, &"x".repeat(20_000)),
            SendMessage { reply_to_id: Some("msg_0000000000000bad".parse().unwrap()), ..message(ID, "an answer to nothing") },
        ] {
            assert_eq!(alice.session.call::<MessageSend>(&general, &retry).await.unwrap(), first);
        }
        let path = format!("/v1/channels/{general}/messages");
        let body = json!({ "message_id": ID, "sender_id": "alice", "text": "over HTTP" });
        let answer = world.team().request(axum::http::Method::POST, &path).json(&body).send().await.unwrap();
        assert_eq!((answer.status.as_u16(), answer.json::<Message>().unwrap()), (200, first.clone()));

        let edit = EditMessage { text: protocol::Patch::Set("edited".into()), ..EditMessage::default() };
        let edited = alice.session.call::<MessageEdit>((&general, &first.id), &edit).await.unwrap();
        assert_eq!(alice.session.call::<MessageSend>(&general, &message(ID, "first")).await.unwrap(), edited, "as it is now");
        drop(alice);
        world.restarts().await;
        let alice = world.connects("alice").await;
        assert_eq!(alice.session.call::<MessageSend>(&general, &message(ID, "first")).await.unwrap(), edited);
        alice.session.call::<MessageDelete>((&general, &first.id), ()).await.unwrap();
        let gone = alice.session.call::<MessageSend>(&general, &message(ID, "first")).await.unwrap();
        assert!(gone.deleted_at.is_some() && gone.text.is_empty(), "a retry does not bring it back: {gone:?}");
        assert_eq!(all_messages(&alice, &general).await.len(), 1);
    }

    async fn the_same_id_from_another_sender_is_a_conflict(world: World) {
        let general = world.channel("group", "general", &["alice", "bob"]).await;
        let other = world.channel("group", "other", &["bob"]).await;
        let (alice, bob) = (world.connects("alice").await, world.connects("bob").await);
        alice.session.call::<MessageSend>(&general, &message(ID, "first")).await.unwrap();
        let params = json!({ "channel_id": general, "message_id": ID, "text": "first" });
        assert_eq!(bob.is_refused("message.send", params).await, ErrorCode::Conflict);
        let path = format!("/v1/channels/{general}/messages");
        let body = json!({ "message_id": ID, "sender_id": "bob", "text": "first" });
        assert_eq!(refusal(world.team().post::<Message>(&path, &body).await), (409, ErrorCode::Conflict));
        assert_eq!(bob.session.call::<MessageSend>(&other, &message(ID, "mine")).await.unwrap().text, "mine", "an id is of its channel");
        assert_eq!(all_messages(&alice, &general).await.len(), 1);
    }

    async fn the_same_id_twice_in_a_row_without_waiting_is_one_message(world: World) {
        let general = world.channel("group", "general", &["alice"]).await;
        let alice = world.connects("alice").await;
        let mut pending = Vec::new();
        for count in 0..40 {
            let id = format!("msg_{:016x}", count % 8);
            pending.push((count % 8, alice.session.begin::<MessageSend>(&general, &message(&id, &format!("try {count}"))).await.unwrap()));
        }
        let mut seen: BTreeMap<u64, Message> = BTreeMap::new();
        for (name, reply) in pending {
            let message = reply.reply().await.unwrap();
            assert_eq!(*seen.entry(name).or_insert_with(|| message.clone()), message);
        }
        let listed = all_messages(&alice, &general).await;
        assert_eq!(listed.iter().map(|m| (m.number, m.text.clone())).collect::<Vec<_>>(), (0..8).map(|n| (n + 1, format!("try {n}"))).collect::<Vec<_>>());
    }

    async fn events_of_a_session_are_in_order_and_complete(world: World) {
        world.people(&["dora", "eve"]).await;
        let general = world.channel("group", "general", &["alice", "bob", "carol"]).await;
        let watching = world.connects("dora").await;
        let senders = [world.connects("alice").await, world.connects("bob").await, world.connects("carol").await];
        let heads = senders.each_ref().map(|s| s.entry(&general).seq);
        let json = world.connects_to(0, "carol", Encoding::Json, Connect::default()).await;
        let json_head = json.entry(&general).seq;
        let mut storm = Vec::new();
        for sender in senders {
            let general = general.clone();
            storm.push(tokio::spawn(async move {
                for count in 0..25 {
                    sender.sends(&general, &format!("{} {count}", sender.name)).await;
                }
                sender
            }));
        }
// During the storm, one user is added to the channel, and a participant connects.
        for name in ["dora", "eve"] {
            let _: serde_json::Value = world.team().post(&format!("/v1/channels/{general}/participants"), &json!({ "user_id": name })).await.unwrap();
        }
        let late = world.connects("eve").await;
        let late_head = late.entry(&general).seq;
        let mut listeners: Vec<(Person, u64)> = vec![(json, json_head), (late, late_head)];
        for (sender, head) in storm.into_iter().zip(heads) {
            listeners.push((sender.await.unwrap(), head));
        }
        listeners[0].0.sends(&general, "the end").await;
        let mut watching = watching;
        let added = watching.receives("channel.added").await;
        listeners.push((watching, added.data["entry"]["seq"].as_u64().unwrap()));
        let mut told: BTreeMap<u64, EventMessage> = BTreeMap::new();
        for (mut listener, head) in listeners {
            for seq in head + 1.. {
                let event = next_in(&mut listener, &general).await;
                assert_eq!(event.seq, Some(seq), "{}: {event:?}", listener.name);
                let is_last = event.data["message"]["text"] == "the end";
                assert_eq!(*told.entry(seq).or_insert_with(|| event.clone()), event, "all are told the same");
                if is_last {
                    break;
                }
            }
            listener.receives_nothing().await;
        }
    }

    async fn after_participant_removed_nothing_more_arrives(world: World) {
        nothing_after_a_removal(&world, 0, 0).await;
    }

    async fn readded_user_receives_every_later_event(world: World) {
        comes_and_goes(&world, 0).await;
    }

    async fn entities_of_other_apps_and_environments_are_not_found(world: World) {
        let general = world.channel("group", "general", &["alice"]).await;
        let mut alice = world.connects("alice").await;
        let sent = alice.sends(&general, "ours").await;
        alice.sees("ours").await;
        let (_, other_app) = world.make_app("live").await;
        let test_key = world.make_app_key(&world.app, "test").await;
        for key in [other_app, test_key] {
            let theirs = world.backend(&key);
            let _: serde_json::Value = theirs.put("/v1/users/alice", &json!({})).await.unwrap();
            for (path, unused) in [
                (format!("/v1/channels/{general}"), "/v1/channels/unused".to_owned()),
                (format!("/v1/channels/{general}/messages"), "/v1/channels/unused/messages".to_owned()),
                (format!("/v1/channels/{general}/messages/{}", sent.id), "/v1/channels/unused/messages/msg_0000000000000001".to_owned()),
            ] {
                let (named, unused) = (theirs.get::<serde_json::Value>(&path).await, theirs.get::<serde_json::Value>(&unused).await);
                assert_eq!(named.unwrap_err().refusal(), unused.unwrap_err().refusal());
            }
            let channels: serde_json::Value = theirs.get("/v1/channels").await.unwrap();
            assert_eq!(channels["items"], json!([]));
            // The other tenant may use the same ids. The replies reveal nothing about the first
            // tenant.
            let body = json!({ "id": general, "type": "group", "creator_id": "alice" });
            let _: serde_json::Value = theirs.post("/v1/channels", &body).await.unwrap();
            let body = json!({ "text": "theirs", "sender_id": "alice" });
            let made: Message = theirs.post(&format!("/v1/channels/{general}/messages"), &body).await.unwrap();
            assert_eq!(made.number, 1);
        }
        alice.receives_nothing().await;
        assert_eq!(all_messages(&alice, &general).await.len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_participant_removed_nothing_more_arrives_on_either_of_two_nodes() {
    let world = World::with(StoreKind::Redis, 2, &[]).await;
    nothing_after_a_removal(&world, 1, 0).await;
    nothing_after_a_removal(&world, 0, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readded_user_receives_every_later_event_on_another_node() {
    let world = World::with(StoreKind::Redis, 2, &[]).await;
    comes_and_goes(&world, 1).await;
}

/// Bob has three sessions and is removed during a storm of messages.
async fn nothing_after_a_removal(world: &World, at: usize, remover: usize) {
    let general = world
        .channel(
            "group",
            &format!("general-{at}-{remover}"),
            &["alice", "bob", "carol"],
        )
        .await;
    let alice = world
        .connects_to(remover, "alice", Encoding::MessagePack, Connect::default())
        .await;
    let mut carol = world
        .connects_to(at, "carol", Encoding::MessagePack, Connect::default())
        .await;
    let unwatching = Connect {
        watch: Watch::None,
        ..Connect::default()
    };
    let named = Connect {
        resume: [(general.clone(), Cursor::After(0, 0))].into(),
        ..unwatching.clone()
    };
    let mut bobs = [
        world
            .connects_to(at, "bob", Encoding::MessagePack, Connect::default())
            .await,
        world
            .connects_to(remover, "bob", Encoding::Json, named)
            .await,
        world
            .connects_to(at, "bob", Encoding::MessagePack, unwatching)
            .await,
    ];
    bobs[2]
        .session
        .call::<ChannelSubscribe>(
            (),
            Subscribe {
                channels: [(general.clone(), Cursor::Now)].into(),
            },
        )
        .await
        .unwrap();
    let storm = tokio::spawn({
        let (general, carol) = (general.clone(), carol.session.clone());
        async move {
            for count in 0..40 {
                let message = SendMessage {
                    text: Some(format!("message {count}")),
                    ..SendMessage::default()
                };
                carol.call::<MessageSend>(&general, &message).await.unwrap();
                carol
                    .call::<TypingSet>(&general, Typing { typing: true })
                    .await
                    .unwrap();
            }
        }
    });
    for bob in &mut bobs {
        bob.receives("message.created").await;
    }
    alice
        .session
        .call::<ParticipantRemove>((&general, &"bob".parse().unwrap()), ())
        .await
        .unwrap();
    let removed = carol.receives("participant.removed").await;
    storm.await.unwrap();
    alice.sends(&general, "bob is gone").await;
    carol.sees_in_the_end("bob is gone").await;
    for bob in &mut bobs {
        let mut is_told = false;
        while let Ok(event) = tokio::time::timeout(SILENCE, bob.events.next()).await {
            let event = event.unwrap();
            match event.event.as_str() {
                "channel.removed" => {
                    assert_eq!(event.data, json!({ "channel_id": general }));
                    is_told = true;
                }
                _ if event.channel_id.as_ref() == Some(&general) => {
                    assert!(
                        event.seq < removed.seq,
                        "{event:?} after the removal {removed:?}"
                    );
                }
                _ => {}
            }
        }
        assert!(is_told, "each session is told channel.removed");
        let channel = json!({ "channel_id": general });
        for method in ["message.list", "participant.list"] {
            assert_eq!(
                bob.is_refused(method, channel.clone()).await,
                ErrorCode::NotFound
            );
        }
        let params = json!({ "channel_id": general, "text": "still here" });
        assert_eq!(
            bob.is_refused("message.send", params).await,
            ErrorCode::NotFound
        );
    }
}

/// Bob is removed and added repeatedly. He receives all messages sent while he is a participant,
/// and no gap.
async fn comes_and_goes(world: &World, at: usize) {
    let general = world.channel("group", "general", &["alice"]).await;
    world.people(&["bob"]).await;
    let mut bob = world
        .connects_to(at, "bob", Encoding::MessagePack, Connect::default())
        .await;
    let mut alice = world.connects("alice").await;
    let name: UserId = "bob".parse().unwrap();
    for round in 0..12 {
        alice
            .session
            .call::<ParticipantAdd>(
                &general,
                AddParticipant {
                    user_id: name.clone(),
                    role: None,
                },
            )
            .await
            .unwrap();
        alice.sends(&general, &format!("round {round}")).await;
        let added = bob.receives("channel.added").await;
        let head = added.data["entry"]["seq"].as_u64().unwrap();
        let next = next_in(&mut bob, &general).await;
        assert_eq!(
            (next.data["message"]["text"].as_str(), next.seq),
            (Some(format!("round {round}").as_str()), Some(head + 1))
        );
        alice
            .session
            .call::<ParticipantRemove>((&general, &name), ())
            .await
            .unwrap();
        if round % 2 == 0 {
            assert_eq!(bob.next().await.event, "channel.removed");
        }
        alice.receives("participant.removed").await;
    }
}

async fn next_in(person: &mut Person, channel: &ChannelId) -> EventMessage {
    loop {
        let event = person.next().await;
        if event.channel_id.as_ref() == Some(channel) && event.seq.is_some() {
            return event;
        }
    }
}

impl Person {
    async fn sees_in_the_end(&mut self, text: &str) {
        while self.receives("message.created").await.data["message"]["text"] != text {}
    }
}
