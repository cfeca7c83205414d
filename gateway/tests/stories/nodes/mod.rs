//! Several nodes over one Redis, with moving slots, failovers, a
//! restart, a hang and an outage.

mod failover;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use chaos_redis::slot;
use client::{Backend, ConnectError, Connector, RequestError};
use protocol::{
    ChannelId, Encoding, ErrorCode, MessageId,
    entity::Message,
    event::Event,
    operation::{
        message::{ListMessages, MessageDelete, MessageList, MessageSend, SendMessage},
        reaction::ReactionAdd,
        read::{MarkRead, ReadMark},
        session::{Connect, Ping},
    },
};
use redis_testing as testing;

use crate::{
    kill::refuses_to_start,
    process::{Chaos, Shop},
    story::{Person, StoreKind, StoreProcess, TIMEOUT, World, until},
};

const NO_LIMIT: [&str; 2] = ["--limit", "requests_per_second=0"];
/// Maximum time to answer a send while the store is unreachable.
const VERDICT: Duration = Duration::from_secs(5);
/// The admin key of nodes over Redis.
pub(crate) const ADMIN: &str = "adm_0123456789abcdef0123456789abcdef";

impl Person {
    /// Receives this number of created messages. Checks that their seqs are consecutive, so that no
    /// event was missed.
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

    /// Sends a message with the same id until it is acknowledged.
    async fn sends_surely(&self, channel: &ChannelId, id: u64) -> Message {
        self.sends_counting(channel, id, &AtomicUsize::new(0)).await
    }

    /// Like `sends_until`, and counts the answers.
    async fn sends_counting(&self, channel: &ChannelId, id: u64, answers: &AtomicUsize) -> Message {
        let (begun, id) = (Instant::now(), MessageId::from_bits(id));
        let body = SendMessage {
            message_id: Some(id.clone()),
            text: Some(format!("{} says {id}", self.name)),
            ..SendMessage::default()
        };
        loop {
            let answer = self.session.call::<MessageSend>(channel, &body).await;
            answers.fetch_add(1, Ordering::Relaxed);
            match answer {
                Ok(message) => return message,
                Err(RequestError::Refused(error)) if error.code == ErrorCode::Unavailable => {}
                Err(error) => panic!("{}: {error}", self.name),
            }
            assert!(begun.elapsed() < 2 * TIMEOUT, "{} sent in vain", self.name);
        }
    }

    /// Checks that a send is answered in time, by its message or by `unavailable`, and that the
    /// session stays open.
    async fn is_answered_in_time(&self, channel: &ChannelId, id: u64) {
        let begun = Instant::now();
        let body = SendMessage {
            message_id: Some(MessageId::from_bits(id)),
            text: Some("is anybody there?".into()),
            ..Default::default()
        };
        if let Err(error) = self.session.call::<MessageSend>(channel, &body).await {
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
        self.session.call::<Ping>((), ()).await.unwrap();
    }

    /// Checks that a send that fails is answered in time, and that the session stays open.
    async fn is_told_that_the_store_is_away(&self, channel: &ChannelId, id: u64) {
        let begun = Instant::now();
        let body = SendMessage {
            message_id: Some(MessageId::from_bits(id)),
            text: Some("is anybody there?".into()),
            ..Default::default()
        };
        let error = self
            .session
            .call::<MessageSend>(channel, &body)
            .await
            .unwrap_err();
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
        self.session.call::<Ping>((), ()).await.unwrap();
    }
}

impl World {
    async fn listener(&self, node: usize, name: &str, encoding: Encoding) -> Person {
        self.connects_to(node, name, encoding, Connect::default())
            .await
    }

    fn redis(&mut self) -> &mut testing::Server {
        match &mut self.store_process {
            StoreProcess::Redis(server, _) => server,
            _ => panic!("this world stands on something else"),
        }
    }

    /// Waits until every node reports this readiness by `/readyz` and by its
    /// metrics.
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

    /// Returns all messages of a channel by id. Checks that none occurs twice and that numbers have
    /// no gap.
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
                .call::<MessageList>(
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

/// Sends 400 messages from two users on different nodes, with receivers on both in both encodings.
async fn everybody_hears_the_same(store_kind: StoreKind) {
    const EACH: u64 = 200;
    let world = World::with(store_kind, 2, &NO_LIMIT).await;
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
                replies.push(session.begin::<MessageSend>(&channel, &body).await.unwrap());
            }
            let mut sent = Vec::new();
            for reply in replies {
                sent.push(reply.reply().await.unwrap());
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
async fn two_nodes_over_one_redis_deliver_the_same_order() {
    everybody_hears_the_same(StoreKind::Redis).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_over_a_cluster_deliver_the_same_order() {
    everybody_hears_the_same(StoreKind::Cluster).await;
}

/// A secret key file, as long as its folder exists.
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
            .request(hyper::Method::GET, path)
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
        .call::<MessageSend>(&"general".parse().unwrap(), &body)
        .await
        .unwrap();
    let event = tokio::time::timeout(TIMEOUT, events.next())
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
