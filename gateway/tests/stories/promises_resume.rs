//! Across a resume: what was missed follows in order, each once, as it is now; where that cannot be, it is told.

use protocol::{
    ChannelId, Encoding, ErrorCode, EventMessage,
    event::Event,
    model::{EntryResult, Gap},
    params::{Connect, Cursor, EditMessage, ListMessages, Watch},
};
use serde_json::json;

use crate::story::{ByHand, Ground, Keeper, PATIENCE, Person, World};

/// A world that keeps few events.
struct Forgetful(World);

impl Forgetful {
    async fn on(ground: Ground) -> Self {
        Self(World::with(ground, 1, &["--limit", "log_events=5"]).await)
    }
}

/// A world in which nobody is too fast, and little waits for a reader.
struct Narrow(World);

impl Narrow {
    async fn on(ground: Ground) -> Self {
        Self(
            World::with(
                ground,
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

/// How many commands a Redis has run.
async fn commands_of(server: &fanout::redis::testing::Server) -> u64 {
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

/// Of somebody who only sends.
fn deaf() -> Connect {
    Connect {
        watch: Watch::None,
        ..Connect::default()
    }
}

/// What came before the answer to a request that is made now, by hand.
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

/// Listens from an entry's head on until this `seq`; without a hole.
async fn hears_until(
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
    async fn what_was_missed_follows_in_order_as_it_is_now(world: World) {
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
        alice.session.edit(&general, &edited.id, &patch).await.unwrap();
        alice.session.delete_message(&general, &deleted.id).await.unwrap();
        alice.session.react(&general, &reacted.id, "👍").await.unwrap();
        alice.session.react(&general, &reacted.id, "❤").await.unwrap();
        alice.session.unreact(&general, &reacted.id, "👍").await.unwrap();
        alice.session.remove_participant(&general, &"carol".parse().unwrap()).await.unwrap();

        for encoding in Encoding::ALL {
            let mut bob = world.connects_to(0, "bob", encoding, resuming(&general, seq, at)).await;
            let head = bob.entry(&general).clone();
            assert_eq!((head.gap, head.seq), (None, seq + 9), "the entry shows the head, what is replayed follows");
            let events = hears_until(&mut bob, &general, seq, seq + 9).await;
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
        let events = hears_until(&mut bob, &general, seq, seq + 10).await;
        assert_eq!(events[9].data["message"]["text"], "live", "newer ones follow what is replayed");
        bob.hears_nothing().await;
    }

    async fn a_resume_in_the_middle_of_a_storm_has_no_hole(world: World) {
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
        bob.hears_nothing().await;
    }

    async fn the_beginning_is_always_a_position(world: World) {
        let general = world.channel("group", "general", &["alice", "bob"]).await;
        let alice = world.connects("alice").await;
        alice.sends(&general, "one").await;
        let mut bob = world.connects_to(0, "bob", Encoding::MessagePack, resuming(&general, 0, 0)).await;
        let names: Vec<String> = hears_until(&mut bob, &general, 0, 3).await.into_iter().map(|e| e.event).collect();
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
            bob.hears_nothing().await;
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
        alice.session.edit(&general, &first.id, &patch).await.unwrap();
        let mut bob = world.connects_to(0, "bob", Encoding::MessagePack, resuming(&general, entry.seq, entry.at)).await;
        assert_eq!(bob.entry(&general).gap, Some(Gap::Trimmed));
        // Complete, whatever was trimmed.
        let query = ListMessages { changed_after: Some(entry.seq), limit: Some(200), ..ListMessages::default() };
        let changed = bob.session.messages(&general, &query).await.unwrap();
        assert_eq!((changed.items.len(), changed.more), (30, false));
        assert_eq!(changed.items.last().unwrap().text, "edited", "by seq ascending");
        bob.hears_nothing().await;
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
        let answers = bob.session.subscribe(channels.into()).await.unwrap();
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
        hears_until(&mut bob, &general, 0, 5).await;
        alice.sends(&quiet, "from now on").await;
        bob.sees("from now on").await;

        // Again from the same place: the stream begins anew, without a hole.
        bob.session.subscribe([(general.clone(), Cursor::After(0, 0))].into()).await.unwrap();
        hears_until(&mut bob, &general, 0, 5).await;
        bob.session.unsubscribe(vec![general.clone(), quiet.clone()]).await.unwrap();
        alice.sends(&general, "unheard").await;
        bob.hears_nothing().await;
    }

    async fn the_own_stream_is_resumed_too(world: World) {
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
        // Of a channel that the user is in no longer, nothing but its end is told.
        assert!(events[1..3].iter().all(|e| e.event == "channel.removed" && e.data == json!({ "channel_id": gone })), "{events:?}");
        assert_eq!((events[3].event.as_str(), &events[3].data["user"]), ("user.updated", &user));
        bob.hears_nothing().await;

        let bob = world.connects_to(0, "bob", Encoding::MessagePack, from(seq + 100, at)).await;
        assert_eq!(bob.connected().user_gap, Some(Gap::Diverged));
    }

    async fn whoever_was_removed_and_added_again_resumes_from_before(world: World) {
        let general = world.channel("group", "general", &["alice", "bob"]).await;
        let bob = world.connects("bob").await;
        let entry = bob.entry(&general).clone();
        drop(bob);
        let alice = world.connects("alice").await;
        alice.session.remove_participant(&general, &"bob".parse().unwrap()).await.unwrap();
        alice.sends(&general, "without bob").await;
        alice.session.add_participant(&general, &"bob".parse().unwrap(), None).await.unwrap();
        let mut bob = world.connects_to(0, "bob", Encoding::MessagePack, resuming(&general, entry.seq, entry.at)).await;
        assert_eq!(bob.entry(&general).gap, None);
        hears_until(&mut bob, &general, entry.seq, entry.seq + 3).await;
        alice.sends(&general, "with bob").await;
        bob.sees("with bob").await;
    }

    async fn whoever_was_removed_and_added_again_and_resumes_the_own_stream_has_no_hole_behind_what_it_was_told_last(world: Narrow) {
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
                alice.session.remove_participant(&general, &name).await.unwrap();
                alice.session.add_participant(&general, &name, None).await.unwrap();
                let params = Connect { user_position: Some(Cursor::After(position.0, position.1)), ..Connect::default() };
                let mut bob = world.connects_to(0, "bob", Encoding::MessagePack, params).await;
                // As a client does: what is told of the channel last is where it stands, and nothing once it is out.
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

    async fn who_is_removed_in_the_middle_of_a_long_replay_is_told_nothing_from_there_on(world: Narrow) {
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
        alice.session.remove_participant(&general, &"bob".parse().unwrap()).await.unwrap();
        alice.sends(&general, "a secret").await;
        let removed = witness.hears("participant.removed").await;
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
            let event = bob.hears_event().await;
            if event["channel_id"] == "general" {
                seqs.push(event["seq"].as_u64().unwrap());
            }
        }
        assert_eq!(seqs, (1..=622).collect::<Vec<_>>());
        assert!(what_came(&mut bob).await.is_empty());
    }

    async fn many_sessions_that_resume_at_once_miss_nothing_of_a_storm(world: Narrow) {
        let world = world.0;
        let names: Vec<String> = (0..10).map(|n| format!("user-{n}")).collect();
        let people: Vec<&str> = std::iter::once("alice").chain(names.iter().map(String::as_str)).collect();
        let mut channels = Vec::new();
        for count in 0..8 {
            channels.push(world.channel("group", &format!("channel-{count}"), &people).await);
        }
        let alice = world.connects_to(0, "alice", Encoding::MessagePack, deaf()).await;
        for count in 0..10 {
            let text = format!("before {count}");
            futures_util::future::join_all(channels.iter().map(|channel| alice.sends(channel, &text))).await;
        }
        let joined = people.len() as u64;
        let last = joined + 30;
        let storm = async {
            for count in 0..20 {
                let text = format!("meanwhile {count}");
                futures_util::future::join_all(channels.iter().map(|channel| alice.sends(channel, &text))).await;
            }
        };
        let resumes = futures_util::future::join_all((0..40).map(|session| {
            let (world, channels, name) = (&world, &channels, &names[session % names.len()]);
            async move {
                let resume = channels.iter().map(|channel| (channel.clone(), Cursor::After(0, 0))).collect();
                let encoding = Encoding::ALL[session % 2];
                let mut person = world.connects_to(0, name, encoding, Connect { resume, ..Connect::default() }).await;
                let mut seqs: std::collections::BTreeMap<ChannelId, u64> = channels.iter().map(|channel| (channel.clone(), 0)).collect();
                while seqs.values().any(|seq| *seq < last) {
                    let event = person.next().await;
                    let seq = seqs.get_mut(event.channel_id.as_ref().unwrap()).unwrap();
                    assert_eq!(event.seq, Some(*seq + 1), "{name}, session {session}: {event:?}");
                    *seq += 1;
                }
                person
            }
        }));
        let (mut people, ()) = tokio::time::timeout(3 * PATIENCE, futures_util::future::join(resumes, storm)).await.unwrap();
        for person in people.iter_mut().take(2) {
            person.hears_nothing().await;
        }
    }

    async fn a_resume_names_at_most_200_channels(world: World) {
        world.people(&["bob"]).await;
        let cursors = |count: usize| (0..count).map(|n| (format!("channel-{n}").parse().unwrap(), Cursor::After(0, 0))).collect();
        let token = world.token("bob").await;
        let params = Connect { token: token.clone(), resume: cursors(201), ..Connect::default() };
        assert_eq!(world.is_refused(&params).await, (ErrorCode::BadRequest, 4002));
        let bob = world.connects_to(0, "bob", Encoding::MessagePack, Connect { resume: cursors(200), ..Connect::default() }).await;
        assert_eq!(bob.connected().channels.len(), 200, "each is answered");
        let refused = bob.session.subscribe(cursors(201)).await.unwrap_err();
        assert_eq!(refused.refusal().unwrap().code, ErrorCode::BadRequest);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resume_of_200_channels_asks_the_store_a_few_times_for_each() {
    const CHANNELS: u64 = 200;
    let world = World::with(Ground::Redis, 1, &["--limit", "key_requests_per_second=0"]).await;
    let mut resume = std::collections::BTreeMap::new();
    for count in 0..CHANNELS {
        resume.insert(
            world
                .channel("group", &format!("channel-{count}"), &["alice", "bob"])
                .await,
            Cursor::After(0, 0),
        );
    }
    let Keeper::Redis(server, _) = &world.keeper else {
        unreachable!("it stands on Redis")
    };
    let before = commands_of(server).await;
    let mut bob = world
        .connects_to(
            0,
            "bob",
            Encoding::MessagePack,
            Connect {
                resume,
                ..Connect::default()
            },
        )
        .await;
    for _ in 0..2 * CHANNELS {
        bob.hears("participant.added").await;
    }
    let asked = commands_of(server).await - before;
    // For each: when it was last active, whether it may be joined, the entry, whether the log goes on, and then a page of the log with its
    // entities. The rest is for the session as a whole, and what the node does by itself meanwhile.
    assert!(
        asked <= 6 * CHANNELS + 100,
        "{asked} commands for {CHANNELS} channels"
    );
}
