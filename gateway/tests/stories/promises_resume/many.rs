//! Resumes of many channels and by many sessions.

use std::time::Instant;

use super::*;

on_both_stores! {
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
        let (mut people, ()) = tokio::time::timeout(3 * TIMEOUT, futures_util::future::join(resumes, storm)).await.unwrap();
        for person in people.iter_mut().take(2) {
            person.receives_nothing().await;
        }
    }

    async fn a_resume_names_at_most_200_channels(world: World) {
        world.people(&["bob"]).await;
        let cursors = |count: usize| (0..count).map(|n| (format!("channel-{n}").parse().unwrap(), Cursor::After(0, 0))).collect();
        let token = world.token("bob").await;
        let params = Connect { token: token.clone(), resume: cursors(201), ..Connect::default() };
        assert_eq!(world.is_refused(&params).await, (ErrorCode::BadRequest, 4000));
        let bob = world.connects_to(0, "bob", Encoding::MessagePack, Connect { resume: cursors(200), ..Connect::default() }).await;
        assert_eq!(bob.connected().channels.len(), 200, "each is answered");
        let refused = bob.session.call::<ChannelSubscribe>((), Subscribe { channels: cursors(201) }).await.unwrap_err();
        assert_eq!(refused.refusal().unwrap().code, ErrorCode::BadRequest);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resume_of_200_channels_asks_the_store_a_few_times_for_each() {
    const CHANNELS: u64 = 200;
    let world = World::with(
        StoreKind::Redis,
        1,
        &["--limit", "key_requests_per_second=0"],
    )
    .await;
    let mut resume = std::collections::BTreeMap::new();
    for count in 0..CHANNELS {
        resume.insert(
            world
                .channel("group", &format!("channel-{count}"), &["alice", "bob"])
                .await,
            Cursor::After(0, 0),
        );
    }
    let StoreProcess::Redis(server, _) = &world.store_process else {
        unreachable!("it stands on Redis")
    };
    let before = commands_of(server).await;
    let started = Instant::now();
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
        bob.receives("participant.added").await;
    }
    let asked = commands_of(server).await - before;
    // For each channel: when it was last active, whether the user may join it, the entry, whether
    // the log goes on, and then a page of the log with its entities.
    let resume_commands = 6 * CHANNELS + 100;
    // Meanwhile the node publishes a digest in each second, and compares one head in 300. On a slow
    // machine its digests may be late, and then all heads are compared.
    let seconds = started.elapsed().as_secs() + 1;
    let compared = (2 + CHANNELS / 100) * seconds + (CHANNELS + 2) * (seconds / 4);
    assert!(
        asked <= resume_commands + compared,
        "{asked} commands for {CHANNELS} channels in {seconds} s"
    );
}
