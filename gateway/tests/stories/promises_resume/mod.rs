//! Resume: missed events are replayed in order, each once, with the current entities, or a gap is
//! reported.

mod many;
mod own_stream;

use protocol::{
    ChannelId, Cursor, Encoding, ErrorCode, EventMessage,
    entity::{EntryResult, Gap},
    event::Event,
    operation::{
        channel::{ChannelSubscribe, ChannelUnsubscribe, Subscribe, Unsubscribe},
        message::{EditMessage, ListMessages, MessageDelete, MessageEdit, MessageList},
        participant::{AddParticipant, ParticipantAdd, ParticipantRemove},
        reaction::{ReactionAdd, ReactionRemove},
        session::{Connect, Watch},
    },
};
use serde_json::json;

use crate::story::{ByHand, Person, StoreKind, StoreProcess, TIMEOUT, World};

/// A world that retains few events.
struct Forgetful(World);

impl Forgetful {
    async fn on(store_kind: StoreKind) -> Self {
        Self(World::with(store_kind, 1, &["--limit", "log_events=5"]).await)
    }
}

/// A world without rate limits, and with small outboxes.
struct Narrow(World);

impl Narrow {
    async fn on(store_kind: StoreKind) -> Self {
        Self(
            World::with(
                store_kind,
                1,
                &[
                    "--limit",
                    "requests_per_second=0",
                    "--limit",
                    "outbox_bytes=65536",
                ],
            )
            .await,
        )
    }
}

/// Returns the number of commands that a Redis has run.
async fn commands_of(server: &redis_testing::Server) -> u64 {
    let answer = server.command(&["INFO", "commandstats"]).await.unwrap();
    let stats: String = redis::from_redis_value(answer).unwrap();
    let of_scripts = stats
        .lines()
        .filter(|line| line.starts_with("cmdstat_eval"));
    of_scripts
        .map(|line| {
            line.split_once("calls=")
                .unwrap()
                .1
                .split_once(',')
                .unwrap()
                .0
                .parse::<u64>()
                .unwrap()
        })
        .sum()
}

/// Returns a cursor for a user who only sends.
fn deaf() -> Connect {
    Connect {
        watch: Watch::None,
        ..Connect::default()
    }
}

/// Sends a request on a raw connection, and returns the events before its answer.
async fn what_came(by_hand: &mut ByHand) -> Vec<serde_json::Value> {
    let mut events = Vec::new();
    by_hand
        .asks_aside("ping", json!({}), |event| events.push(event))
        .await;
    events
}

fn resuming(channel: &ChannelId, seq: u64, at: u64) -> Connect {
    Connect {
        resume: [(channel.clone(), Cursor::After(seq, at))].into(),
        ..Connect::default()
    }
}

/// Receives the events from an entry's head to this `seq`, and checks that none is missing.
async fn receives_until(
    person: &mut Person,
    channel: &ChannelId,
    after: u64,
    last: u64,
) -> Vec<EventMessage> {
    let mut events = Vec::new();
    for seq in after + 1..=last {
        let event = person.next().await;
        assert_eq!(
            (event.channel_id.as_ref(), event.seq),
            (Some(channel), Some(seq)),
            "{event:?}"
        );
        events.push(event);
    }
    events
}

on_both_stores! {
    async fn missed_events_are_replayed_in_order_with_current_entities(world: World) {
        let general = world.channel("group", "general", &["alice", "bob", "carol"]).await;
        let alice = world.connects("alice").await;
        let mut bob = world.connects("bob").await;
        alice.sends(&general, "heard").await;
        let heard = bob.next().await;
        let (seq, at) = (heard.seq.unwrap(), heard.at.unwrap());
        bob.session.abort().await;

        let edited = alice.sends(&general, "before").await;
        let deleted = alice.sends(&general, "a secret").await;
        let reacted = alice.sends(&general, "like me").await;
        let patch = EditMessage { text: protocol::Patch::Set("after".into()), ..EditMessage::default() };
        alice.session.call::<MessageEdit>((&general, &edited.id), &patch).await.unwrap();
        alice.session.call::<MessageDelete>((&general, &deleted.id), ()).await.unwrap();
        alice.session.call::<ReactionAdd>((&general, &reacted.id, "👍"), ()).await.unwrap();
        alice.session.call::<ReactionAdd>((&general, &reacted.id, "❤"), ()).await.unwrap();
        alice.session.call::<ReactionRemove>((&general, &reacted.id, "👍"), ()).await.unwrap();
        alice.session.call::<ParticipantRemove>((&general, &"carol".parse().unwrap()), ()).await.unwrap();

        for encoding in Encoding::ALL {
            let mut bob = world.connects_to(0, "bob", encoding, resuming(&general, seq, at)).await;
            let head = bob.entry(&general).clone();
            assert_eq!((head.gap, head.seq), (None, seq + 9), "the entry shows the head, what is replayed follows");
            let events = receives_until(&mut bob, &general, seq, seq + 9).await;
            let names: Vec<&str> = events.iter().map(|e| e.event.as_str()).collect();
            assert_eq!(names, [
                "message.created", "message.created", "message.created", "message.updated", "message.deleted",
                "reaction.added", "reaction.added", "reaction.removed", "participant.removed",
            ]);
            for (event, text) in events.iter().zip(["after", "", "like me", "after", ""]) {
                assert_eq!(event.data["message"]["text"], text, "as it is now: {event:?}");
            }
            assert!(events[1].data["message"]["deleted_at"].is_u64());
            assert_eq!(events[2].data["message"]["reactions"], json!({ "❤": 1 }));
            let counts: Vec<u64> = events[5..8].iter().map(|e| e.data["count"].as_u64().unwrap()).collect();
            assert_eq!(counts, [0, 1, 0], "the present counts");
            assert_eq!(events[8].data["participant"]["user_id"], "carol", "as it was last");
            let instants: Vec<u64> = events.iter().map(|e| e.at.unwrap()).collect();
            assert!(instants.is_sorted() && instants[0] >= at);
            bob.session.abort().await;
        }
        let mut bob = world.connects_to(0, "bob", Encoding::MessagePack, resuming(&general, seq, at)).await;
        alice.sends(&general, "live").await;
        let events = receives_until(&mut bob, &general, seq, seq + 10).await;
        assert_eq!(events[9].data["message"]["text"], "live", "newer ones follow what is replayed");
        bob.receives_nothing().await;
    }

    async fn resume_during_a_storm_has_no_gap(world: World) {
        let general = world.channel("group", "general", &["alice", "bob"]).await;
        let mut bob = world.connects("bob").await;
        let entry = bob.entry(&general);
        let (mut seq, mut at) = (entry.seq, entry.at);
        let last = seq + 90;
        let storm = tokio::spawn({
            let (alice, general) = (world.connects("alice").await, general.clone());
            async move {
                for count in 0..90 {
                    alice.sends(&general, &format!("message {count}")).await;
                }
            }
        });
        let mut encodings = Encoding::ALL.into_iter().cycle();
        while seq < last {
            for _ in 0..15.min(last - seq) {
                let event = bob.next().await;
                assert_eq!(event.seq, Some(seq + 1));
                (seq, at) = (event.seq.unwrap(), event.at.unwrap());
            }
            bob.session.abort().await;
            bob = world.connects_to(0, "bob", encodings.next().unwrap(), resuming(&general, seq, at)).await;
        }
        storm.await.unwrap();
        bob.receives_nothing().await;
    }

    async fn the_beginning_is_always_a_position(world: World) {
        let general = world.channel("group", "general", &["alice", "bob"]).await;
        let alice = world.connects("alice").await;
        alice.sends(&general, "one").await;
        let mut bob = world.connects_to(0, "bob", Encoding::MessagePack, resuming(&general, 0, 0)).await;
        let names: Vec<String> = receives_until(&mut bob, &general, 0, 3).await.into_iter().map(|e| e.event).collect();
        assert_eq!(names, ["participant.added", "participant.added", "message.created"], "making a channel adds each of its participants");
    }

    async fn a_position_at_which_no_event_stands_has_diverged(world: World) {
        let general = world.channel("group", "general", &["alice", "bob"]).await;
        let alice = world.connects("alice").await;
        alice.sends(&general, "one").await;
        let entry = world.connects("bob").await.entry(&general).clone();
        for (seq, at) in [(entry.seq + 5, entry.at), (entry.seq, entry.at + 1), (entry.seq - 1, 17)] {
            let mut bob = world.connects_to(0, "bob", Encoding::MessagePack, resuming(&general, seq, at)).await;
            assert_eq!(bob.entry(&general).gap, Some(Gap::Diverged), "[{seq}, {at}]");
            bob.receives_nothing().await;
        }
        let mut bob = world.connects_to(0, "bob", Encoding::MessagePack, resuming(&general, entry.seq, entry.at)).await;
        assert_eq!(bob.entry(&general).gap, None);
        alice.sends(&general, "two").await;
        assert_eq!(bob.next().await.seq, Some(entry.seq + 1));
    }

    async fn a_position_older_than_the_kept_log_is_trimmed_and_nothing_is_replayed(world: Forgetful) {
        let world = world.0;
        let general = world.channel("group", "general", &["alice", "bob"]).await;
        let alice = world.connects("alice").await;
        let entry = alice.entry(&general).clone();
        let first = alice.sends(&general, "message 0").await;
        for count in 1..30 {
            alice.sends(&general, &format!("message {count}")).await;
        }
        let patch = EditMessage { text: protocol::Patch::Set("edited".into()), ..EditMessage::default() };
        alice.session.call::<MessageEdit>((&general, &first.id), &patch).await.unwrap();
        let mut bob = world.connects_to(0, "bob", Encoding::MessagePack, resuming(&general, entry.seq, entry.at)).await;
        assert_eq!(bob.entry(&general).gap, Some(Gap::Trimmed));
// Complete, although the log was trimmed.
        let query = ListMessages { changed_after: Some(entry.seq), limit: Some(200), ..ListMessages::default() };
        let changed = bob.session.call::<MessageList>(&general, &query).await.unwrap();
        assert_eq!((changed.items.len(), changed.more), (30, false));
        assert_eq!(changed.items.last().unwrap().text, "edited", "by seq ascending");
        bob.receives_nothing().await;
        let mut again = world.connects_to(0, "bob", Encoding::MessagePack, resuming(&general, 0, 0)).await;
        assert_eq!(again.entry(&general).gap, Some(Gap::Trimmed), "the beginning is valid, and may be trimmed");
        let head = again.entry(&general).seq;
        alice.sends(&general, "live").await;
        assert_eq!(again.next().await.seq, Some(head + 1), "from the entry on");
    }

    async fn channel_subscribe_goes_on_from_a_position_too(world: World) {
        let general = world.channel("group", "general", &["alice", "bob"]).await;
        let secret = world.channel("group", "secret", &["alice"]).await;
        let quiet = world.channel("group", "quiet", &["alice", "bob"]).await;
        let alice = world.connects("alice").await;
        for count in 0..3 {
            alice.sends(&general, &format!("message {count}")).await;
        }
        let params = Connect { watch: Watch::None, ..Connect::default() };
        let mut bob = world.connects_to(0, "bob", Encoding::Json, params).await;
        assert!(bob.connected().channels.is_empty());
        let channels = [
            (general.clone(), Cursor::After(0, 0)), (secret.clone(), Cursor::Now), (quiet.clone(), Cursor::Now),
            ("unused".parse().unwrap(), Cursor::After(3, 4)),
        ];
        let answers = bob.session.call::<ChannelSubscribe>((), Subscribe { channels: channels.into() }).await.unwrap().channels;
        assert_eq!(answers.len(), 4, "one for each, be it an error");
        let mut errors = Vec::new();
        for answer in answers {
            match answer {
                EntryResult::Entry(entry) => assert!([&general, &quiet].contains(&&entry.channel_id) && entry.gap.is_none()),
                EntryResult::Failed(failed) => errors.push((failed.channel_id.to_string(), failed.error.code)),
            }
        }
        errors.sort_by(|a, b| a.0.cmp(&b.0));
        assert_eq!(errors, [("secret".to_owned(), ErrorCode::NotFound), ("unused".to_owned(), ErrorCode::NotFound)]);
        receives_until(&mut bob, &general, 0, 5).await;
        alice.sends(&quiet, "from now on").await;
        bob.sees("from now on").await;

// Subscribes again at the same position: the events are replayed without a gap.
        bob.session.call::<ChannelSubscribe>((), Subscribe { channels: [(general.clone(), Cursor::After(0, 0))].into() }).await.unwrap();
        receives_until(&mut bob, &general, 0, 5).await;
        bob.session.call::<ChannelUnsubscribe>((), Unsubscribe { channel_ids: vec![general.clone(), quiet.clone()] }).await.unwrap();
        alice.sends(&general, "unheard").await;
        bob.receives_nothing().await;
    }

    async fn user_removed_during_a_long_replay_receives_nothing_after_the_removal(world: Narrow) {
        let world = world.0;
        let general = world.channel("group", "general", &["alice", "bob"]).await;
        let alice = world.connects_to(0, "alice", Encoding::MessagePack, deaf()).await;
        // More than the buffers between two sockets and the outbox take together.
        let long = "x".repeat(16_000);
        for _ in 0..30 {
            futures_util::future::join_all((0..30).map(|_| alice.sends(&general, &long))).await;
        }
        let mut bob = world.opens(Encoding::MessagePack).await;
        let token = world.token("bob").await;
        let reply = bob.asks("connect", json!({ "token": token, "resume": { "general": [0, 0] } })).await;
        assert_eq!(reply["result"]["channels"][0]["seq"], 902);
        // Bob does not read.
        let mut witness = world.connects("alice").await;
        alice.session.call::<ParticipantRemove>((&general, &"bob".parse().unwrap()), ()).await.unwrap();
        alice.sends(&general, "a secret").await;
        let removed = witness.receives("participant.removed").await;
        let came = what_came(&mut bob).await;
        assert!(came.iter().any(|event| event["event"] == "channel.removed"), "bob is told that it is over");
        let seqs: Vec<u64> = came.iter().filter(|event| event["channel_id"] == "general").map(|event| event["seq"].as_u64().unwrap()).collect();
        assert_eq!(seqs, (1..=seqs.len() as u64).collect::<Vec<_>>(), "without a hole");
        assert!((seqs.len() as u64) < removed.seq.unwrap() - 1, "the replay was under way: {} events", seqs.len());
        assert!(what_came(&mut bob).await.is_empty());
    }

    async fn a_replay_larger_than_the_outbox_reaches_a_slow_reader_whole_and_what_happens_meanwhile_follows(world: Narrow) {
        let world = world.0;
        let general = world.channel("group", "general", &["alice", "bob"]).await;
        let alice = world.connects_to(0, "alice", Encoding::MessagePack, deaf()).await;
        let long = "x".repeat(16_000);
        for _ in 0..20 {
            futures_util::future::join_all((0..30).map(|_| alice.sends(&general, &long))).await;
        }
        let mut bob = world.opens(Encoding::Json).await;
        let token = world.token("bob").await;
        bob.asks("connect", json!({ "token": token, "resume": { "general": [0, 0] } })).await;
        for count in 0..20 {
            alice.sends(&general, &format!("meanwhile {count}")).await;
        }
        let mut seqs = Vec::new();
        while seqs.len() < 622 {
            let event = bob.receives_event().await;
            if event["channel_id"] == "general" {
                seqs.push(event["seq"].as_u64().unwrap());
            }
        }
        assert_eq!(seqs, (1..=622).collect::<Vec<_>>());
        assert!(what_came(&mut bob).await.is_empty());
    }
}
