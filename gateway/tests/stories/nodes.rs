//! Many nodes over one Redis, and what they make of its bad days: a slot that moves, a failover, a restart, a hang, none at all.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use client::{Backend, RequestError};
use fanout::redis::{self, testing};
use protocol::{
    ChannelId, Encoding, ErrorCode, MessageId,
    event::Event,
    model::Message,
    params::{Connect, ListMessages, SendMessage},
};

use crate::{
    kill::refuses_to_start,
    process::{Chaos, Shop},
    story::{Ground, Keeper, PATIENCE, Person, World, until},
};

const NO_LIMIT: [&str; 2] = ["--limit", "requests_per_second=0"];
/// Within which a send is answered while the store cannot be reached.
const VERDICT: Duration = Duration::from_secs(5);
/// The admin key of nodes over Redis.
pub(crate) const ADMIN: &str = "adm_0123456789abcdef0123456789abcdef";

impl Person {
    /// The messages created until there are so many. Their seqs follow each other: no event was missed.
    async fn collects(&mut self, count: usize) -> Vec<Message> {
        let mut messages: Vec<Message> = Vec::with_capacity(count);
        while messages.len() < count {
            let event = self.next().await;
            match event.read().unwrap() {
                Event::MessageCreated(message) => {
                    if let Some(before) = messages.last() {
                        assert_eq!(
                            event.seq,
                            Some(before.seq + 1),
                            "{}: a hole after {}",
                            self.name,
                            before.seq
                        );
                        assert!(
                            message.created_at >= before.created_at,
                            "{}: time ran backwards",
                            self.name
                        );
                    }
                    messages.push(message);
                }
                other => panic!("{} heard {other:?}", self.name),
            }
        }
        messages
    }

    /// Sends until it is acknowledged, with the same id.
    async fn sends_surely(&self, channel: &ChannelId, id: u64) -> Message {
        self.sends_counting(channel, id, &AtomicUsize::new(0)).await
    }

    /// The same, counting the answers.
    async fn sends_counting(&self, channel: &ChannelId, id: u64, answers: &AtomicUsize) -> Message {
        let (begun, id) = (Instant::now(), MessageId::from_bits(id));
        let body = SendMessage {
            message_id: Some(id.clone()),
            text: Some(format!("{} says {id}", self.name)),
            ..SendMessage::default()
        };
        loop {
            let answer = self.session.send(channel, &body).await;
            answers.fetch_add(1, Ordering::Relaxed);
            match answer {
                Ok(message) => return message,
                Err(RequestError::Refused(error)) if error.code == ErrorCode::Unavailable => {}
                Err(error) => panic!("{}: {error}", self.name),
            }
            assert!(begun.elapsed() < 2 * PATIENCE, "{} sent in vain", self.name);
        }
    }

    /// A send is answered in time, by its message or by `unavailable`, and the session lives on.
    async fn is_answered_in_time(&self, channel: &ChannelId, id: u64) {
        let begun = Instant::now();
        let body = SendMessage {
            message_id: Some(MessageId::from_bits(id)),
            text: Some("is anybody there?".into()),
            ..Default::default()
        };
        if let Err(error) = self.session.send(channel, &body).await {
            assert_eq!(
                error.refusal().map(|error| error.code),
                Some(ErrorCode::Unavailable),
                "{}: {error}",
                self.name
            );
        }
        assert!(
            begun.elapsed() < VERDICT,
            "{} waited {:?}",
            self.name,
            begun.elapsed()
        );
        self.session.ping().await.unwrap();
    }

    /// A send that the store cannot take is answered in time, and the session lives on.
    async fn is_told_that_the_store_is_away(&self, channel: &ChannelId, id: u64) {
        let begun = Instant::now();
        let body = SendMessage {
            message_id: Some(MessageId::from_bits(id)),
            text: Some("is anybody there?".into()),
            ..Default::default()
        };
        let error = self.session.send(channel, &body).await.unwrap_err();
        assert_eq!(
            error.refusal().map(|error| error.code),
            Some(ErrorCode::Unavailable),
            "{}: {error}",
            self.name
        );
        assert!(
            begun.elapsed() < VERDICT,
            "{} waited {:?}",
            self.name,
            begun.elapsed()
        );
        self.session.ping().await.unwrap();
    }
}

impl World {
    async fn listener(&self, node: usize, name: &str, encoding: Encoding) -> Person {
        self.connects_to(node, name, encoding, Connect::default())
            .await
    }

    fn redis(&mut self) -> &mut testing::Server {
        match &mut self.keeper {
            Keeper::Redis(server, _) => server,
            _ => panic!("this world stands on something else"),
        }
    }

    /// Waits until every node says that it is ready, or that it is not, to a load balancer and to a scrape.
    async fn are_ready(&self, ready: bool) {
        let status = if ready { 200 } else { 503 };
        for node in 0..self.nodes.len() {
            until("readiness is told", || async {
                self.readiness(node).await == status
            })
            .await;
            until("and measured", || async {
                self.metric(node, "chaos_ready").await == f64::from(u8::from(ready))
            })
            .await;
        }
    }

    /// All messages of a channel, by their ids: none is there twice, and the numbers have no hole.
    async fn whole_channel(
        &self,
        who: &Person,
        channel: &ChannelId,
    ) -> BTreeMap<MessageId, Message> {
        let mut all: Vec<Message> = Vec::new();
        loop {
            let after = Some(all.last().map_or(0, |message| message.number));
            let page = who
                .session
                .messages(
                    channel,
                    &ListMessages {
                        after,
                        limit: Some(200),
                        ..Default::default()
                    },
                )
                .await
                .unwrap();
            all.extend(page.items.into_iter().map(|message| Message {
                own_reactions: None,
                ..message
            }));
            if !page.more {
                break;
            }
        }
        let numbers: Vec<u64> = all.iter().map(|message| message.number).collect();
        assert_eq!(numbers, (1..=all.len() as u64).collect::<Vec<_>>());
        let count = all.len();
        let by_id: BTreeMap<_, _> = all
            .into_iter()
            .map(|message| (message.id.clone(), message))
            .collect();
        assert_eq!(by_id.len(), count, "a message is there twice");
        by_id
    }
}

/// 400 messages from two senders on different nodes, and listeners on both in both encodings.
async fn everybody_hears_the_same(ground: Ground) {
    const EACH: u64 = 200;
    let world = World::with(ground, 2, &NO_LIMIT).await;
    let general = world
        .channel("group", "general", &["alice", "bob", "carol"])
        .await;
    let mut listeners = Vec::new();
    for node in 0..2 {
        for encoding in Encoding::ALL {
            listeners.push(world.listener(node, "carol", encoding).await);
        }
    }
    let mut sending = Vec::new();
    for (node, name) in [(0, "alice"), (1, "bob")] {
        let person = world.listener(node, name, Encoding::ALL[node]).await;
        let channel = general.clone();
        sending.push(tokio::spawn(async move {
            let Person {
                session, events, ..
            } = person;
            drop(events);
            let mut replies = Vec::new();
            for number in 0..EACH {
                let id = MessageId::from_bits((node as u64) << 32 | number);
                let body = SendMessage {
                    message_id: Some(id),
                    text: Some(format!("{number}")),
                    ..SendMessage::default()
                };
                replies.push(session.begin_send(&channel, &body).await.unwrap());
            }
            let mut sent = Vec::new();
            for reply in replies {
                sent.push(
                    reply
                        .reply::<protocol::results::MessageResult>()
                        .await
                        .unwrap()
                        .message,
                );
            }
            assert!(
                sent.is_sorted_by_key(|message| message.number),
                "one session's messages keep their order"
            );
            sent
        }));
    }
    let hearing: Vec<_> = listeners
        .into_iter()
        .map(|mut listener| tokio::spawn(async move { listener.collects(2 * EACH as usize).await }))
        .collect();
    let mut sent = Vec::new();
    for sender in sending {
        sent.extend(sender.await.unwrap());
    }
    sent.sort_by_key(|message| message.number);
    assert!(sent.iter().map(|message| message.number).eq(1..=2 * EACH));
    for heard in hearing {
        assert_eq!(heard.await.unwrap(), sent);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_over_one_redis_tell_everybody_the_same_in_one_order() {
    everybody_hears_the_same(Ground::Redis).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_over_a_cluster_tell_everybody_the_same_in_one_order() {
    everybody_hears_the_same(Ground::Cluster).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_a_slot_moves_nothing_is_lost_doubled_or_missed() {
    let world = World::with(Ground::Cluster, 2, &NO_LIMIT).await;
    let general = world
        .channel("group", "general", &["alice", "bob", "carol"])
        .await;
    let mut listeners = [
        world.listener(0, "carol", Encoding::MessagePack).await,
        world.listener(1, "carol", Encoding::Json).await,
    ];
    let (stop, count) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
    );
    let mut sending = Vec::new();
    for (node, name) in [(0, "alice"), (1, "bob")] {
        let mut person = world.listener(node, name, Encoding::MessagePack).await;
        let (channel, stop, count) = (general.clone(), stop.clone(), count.clone());
        sending.push(tokio::spawn(async move {
            let mut sent = Vec::new();
            for number in 0.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                sent.push(
                    person
                        .sends_counting(&channel, (node as u64) << 32 | number, &count)
                        .await,
                );
                // What it hears is not looked at, but a session that nobody reads is not served.
                while person.events.try_next_frame().is_some() {}
                person.heard.clear();
            }
            sent
        }));
    }
    let Keeper::Cluster(cluster, _) = &world.keeper else {
        unreachable!()
    };
    let topic = format!("c:{}:live:{general}", world.app);
    let slot = redis::slot(&redis::channel(&topic));
    // While a slot is on its way Redis refuses a script of which one key is missing, as long as it is: messages are tried, and go through
    // when the move is over.
    let traffic = async |answers: usize| {
        let before = count.load(Ordering::Relaxed);
        until("messages are tried", || async {
            count.load(Ordering::Relaxed) >= before + answers
        })
        .await;
    };
    for _ in 0..2 {
        let from = cluster.owner(slot).await;
        let to = (from + 1) % 3;
        cluster.begin_migration(slot, from, to).await;
        traffic(2).await;
        cluster.move_keys(slot, from, to).await;
        traffic(2).await;
        cluster.finish_migration(slot, from, to).await;
        traffic(40).await;
    }
    stop.store(true, Ordering::Relaxed);
    let mut sent = Vec::new();
    for sender in sending {
        sent.extend(sender.await.unwrap());
    }
    sent.sort_by_key(|message| message.number);
    let stored = world.whole_channel(&listeners[0], &general).await;
    assert_eq!(
        stored.len(),
        sent.len(),
        "every message that was acknowledged, and no other"
    );
    for message in &sent {
        assert_eq!(stored.get(&message.id), Some(message));
    }
    for listener in &mut listeners {
        assert_eq!(listener.collects(sent.len()).await, sent);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sentinels_failover_is_survived_by_sessions_on_both_nodes() {
    let mut world = World::with(Ground::Sentinel, 2, &NO_LIMIT).await;
    let general = world.channel("group", "general", &["alice", "bob"]).await;
    let alice = world.listener(0, "alice", Encoding::MessagePack).await;
    let mut bob = world.listener(1, "bob", Encoding::Json).await;
    let before = alice.sends_surely(&general, 1).await;
    assert_eq!(bob.collects(1).await, std::slice::from_ref(&before));
    let Keeper::Sentinel(trio, _) = &mut world.keeper else {
        unreachable!()
    };
    let master = trio.master().await;
    // What the replica has not got yet is lost with the master: this story is about what it has.
    let caught_up = || async {
        format!(
            "{:?}",
            trio.servers[master]
                .command(&["WAIT", "1", "1000"])
                .await
                .unwrap()
        )
        .contains('1')
    };
    until("the replica has caught up", caught_up).await;
    trio.servers[master].kill9();
    // A failover that is over within a send's deadline is bridged: the message is stored then, and the retry finds it.
    alice.is_answered_in_time(&general, 2).await;
    trio.failed_over(master).await;
    let mut after = Vec::new();
    for id in 2..12 {
        after.push(alice.sends_surely(&general, id).await);
    }
    assert_eq!(after[0].number, before.number + 1);
    assert_eq!(bob.collects(10).await, after);
    assert_eq!(world.whole_channel(&bob, &general).await.len(), 11);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_redis_wait_nothing_is_acknowledged_that_no_replica_has_and_a_failover_loses_nothing_acknowledged()
 {
    let flags = [
        NO_LIMIT[0],
        NO_LIMIT[1],
        "--redis-wait",
        "1",
        "--redis-wait-timeout",
        "700ms",
    ];
    let mut world = World::with(Ground::Sentinel, 1, &flags).await;
    let general = world.channel("group", "general", &["alice", "bob"]).await;
    let alice = world.listener(0, "alice", Encoding::MessagePack).await;
    let mut bob = world.listener(0, "bob", Encoding::MessagePack).await;
    let mut sent = vec![alice.sends_surely(&general, 1).await];

    let Keeper::Sentinel(trio, _) = &world.keeper else {
        unreachable!()
    };
    let master = trio.master().await;
    let replica = 1 - master;
    trio.servers[replica].stop();
    // The master has it, and says so, but it is not acknowledged: neither the first time nor when it is found to be there.
    alice.is_told_that_the_store_is_away(&general, 2).await;
    alice.is_told_that_the_store_is_away(&general, 2).await;
    // Nor in another session, which reads it first.
    let elsewhere = world.listener(0, "alice", Encoding::Json).await;
    elsewhere.is_told_that_the_store_is_away(&general, 2).await;
    let Keeper::Sentinel(trio, _) = &world.keeper else {
        unreachable!()
    };
    trio.servers[replica].cont();
    for id in 2..40 {
        sent.push(alice.sends_surely(&general, id).await);
    }
    assert!(
        sent.iter().map(|message| message.number).eq(1..=39),
        "what was there already is there once"
    );
    // No moment to catch up is given.
    let Keeper::Sentinel(trio, _) = &mut world.keeper else {
        unreachable!()
    };
    trio.servers[master].kill9();
    trio.failed_over(master).await;
    // The new master has no replica to wait for. Reading waits for none.
    let stored = {
        let mut stored = BTreeMap::new();
        until("the node follows the failover", || async {
            world.metric(0, "chaos_ready").await == 1.0 && world.readiness(0).await == 200
        })
        .await;
        stored.extend(world.whole_channel(&alice, &general).await);
        stored
    };
    for message in &sent {
        assert_eq!(stored.get(&message.id), Some(message), "acknowledged");
    }
    assert_eq!(bob.collects(sent.len()).await, sent);
    alice.is_told_that_the_store_is_away(&general, 40).await;
    // All else that is acknowledged likewise, also where it is found to be done.
    let unconfirmed = |error: RequestError| {
        assert_eq!(
            error.refusal().map(|error| error.code),
            Some(ErrorCode::Unavailable),
            "{error}"
        );
    };
    for _ in 0..2 {
        unconfirmed(
            alice
                .session
                .react(&general, &sent[1].id, "+1")
                .await
                .unwrap_err(),
        );
        unconfirmed(
            alice
                .session
                .mark_read(&general, sent[2].number)
                .await
                .unwrap_err(),
        );
        unconfirmed(
            alice
                .session
                .delete_message(&general, &sent[0].id)
                .await
                .unwrap_err(),
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_redis_restarts_or_hangs_sessions_stay_and_afterwards_nobody_missed_anything() {
    let mut world = World::with(Ground::Redis, 2, &NO_LIMIT).await;
    let general = world.channel("group", "general", &["alice", "bob"]).await;
    let alice = world.listener(0, "alice", Encoding::MessagePack).await;
    let mut listeners = [
        world.listener(0, "bob", Encoding::Json).await,
        world.listener(1, "bob", Encoding::MessagePack).await,
    ];
    let mut sent = vec![alice.sends_surely(&general, 1).await];

    world.are_ready(true).await;
    world.redis().kill9();
    alice.is_told_that_the_store_is_away(&general, 2).await;
    listeners[1]
        .is_told_that_the_store_is_away(&general, 3)
        .await;
    world.are_ready(false).await;
    world.redis().restart().await;
    for id in 2..12 {
        sent.push(alice.sends_surely(&general, id).await);
    }

    world.are_ready(true).await;
    world.redis().stop();
    let first = SendMessage {
        message_id: Some(MessageId::from_bits(12)),
        text: Some("first in line".into()),
        ..Default::default()
    };
    let first = alice.session.begin_send(&general, &first).await.unwrap();
    alice.session.ping().await.unwrap();
    // Also those that wait in line behind it.
    futures_util::future::join_all(
        (13..17).map(|id| alice.is_told_that_the_store_is_away(&general, id)),
    )
    .await;
    let error = first
        .reply::<protocol::results::MessageResult>()
        .await
        .unwrap_err();
    assert_eq!(
        error.refusal().map(|error| error.code),
        Some(ErrorCode::Unavailable),
        "{error}"
    );
    world.are_ready(false).await;
    world.redis().cont();
    for id in 12..22 {
        sent.push(alice.sends_surely(&general, id).await);
    }
    for listener in &mut listeners {
        assert_eq!(
            listener.collects(sent.len()).await,
            sent,
            "{}",
            listener.name
        );
    }
    world.are_ready(true).await;
    assert_eq!(
        world.whole_channel(&alice, &general).await.len(),
        sent.len()
    );
}

/// A file with a secret key, for as long as its folder is kept.
pub(crate) fn secret_key() -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "07".repeat(32)).unwrap();
    (folder, secret.display().to_string())
}

pub(crate) fn over_redis<'a>(url: &'a str, secret: &'a str) -> Vec<&'a str> {
    vec![
        "--listen",
        "127.0.0.1:0",
        "--redis",
        url,
        "--admin-key",
        ADMIN,
        "--secret-key-file",
        secret,
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_starts_before_its_redis_is_ready_when_it_comes() {
    let (_folder, secret) = secret_key();
    let mut server = testing::Server::start().await;
    server.kill9();
    let node = Chaos::spawn(&over_redis(&server.url(), &secret));
    let address = node.address().await;
    let status = async |path: &str| {
        let backend = Backend::new(&format!("http://{address}"), "").unwrap();
        backend
            .call(hyper::Method::GET, path)
            .send()
            .await
            .unwrap()
            .status
            .as_u16()
    };
    assert_eq!(
        (status("/healthz").await, status("/readyz").await),
        (200, 503)
    );
    assert!(node.log().contains("not ready"), "{}", node.log());
    server.restart().await;
    until("the node is ready", || async {
        status("/readyz").await == 200
    })
    .await;
    let shop = Shop::open(address, ADMIN).await;
    shop.group("general", &["alice"]).await;
    let (alice, mut events) = shop.connects("alice", Encoding::MessagePack).await;
    let body = SendMessage {
        text: Some("at last".into()),
        ..SendMessage::default()
    };
    alice
        .send(&"general".parse().unwrap(), &body)
        .await
        .unwrap();
    let event = tokio::time::timeout(PATIENCE, events.next())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(event.event, "message.created");
    assert!(!node.log().contains("panicked"), "{}", node.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_may_evict_ends_the_start_and_one_without_aof_is_warned_of() {
    let (_folder, secret) = secret_key();
    let evicting = testing::Server::start_with(&["--maxmemory-policy", "allkeys-lru"]).await;
    let sentence = refuses_to_start(&over_redis(&evicting.url(), &secret)).await;
    assert!(
        sentence.contains("allkeys-lru") && sentence.contains("noeviction"),
        "{sentence}"
    );
    let forgetful = testing::Server::start_with(&["--appendonly", "no"]).await;
    let node = Chaos::spawn(&over_redis(&forgetful.url(), &secret));
    node.says("HTTP API").await;
    let warned = node
        .log()
        .lines()
        .any(|line| line.contains("WARN") && line.to_lowercase().contains("appendonly"));
    assert!(warned, "{}", node.log());
}
