//! Memory of a process with many sessions: a hundred stalled readers that lose nothing,
//! and idle ones.
//!
//! `CHAOS_STALLED_MIB=10` sends 10 MiB to each, 1 GiB in total; by default 5 MiB are sent, which
//! is more than sockets buffer.

use client::{Connector, Events, Session};
use futures_util::future::join_all;
use protocol::{
    ChannelId, Cursor, Encoding,
    entity::EntryResult,
    event::Event,
    frame::encode_request,
    operation::{
        message::{MessageSend, SendMessage},
        session::Connect,
    },
};

use crate::{
    process::{Chaos, Shop, admin_key},
    story::{TIMEOUT, metric_in, until},
    wire::{Outcome, Raw},
};

const READERS: usize = 100;
const BYTES: usize = 8 * 1024;
const OUTBOX: u64 = 128 * 1024;
/// Maximum memory of a node besides the outboxes.
const BESIDES: u64 = 32 * 1024 * 1024;

/// A reader, and the last event that it received.
struct Reader {
    session: Session,
    events: Events,
    position: (u64, u64),
}

impl Reader {
    async fn connects(
        shop: &Shop,
        token: &str,
        channel: &ChannelId,
        after: Option<(u64, u64)>,
        encoding: Encoding,
    ) -> Self {
        let resume = after
            .map(|(seq, at)| (channel.clone(), Cursor::After(seq, at)))
            .into_iter()
            .collect();
        let params = Connect {
            token: token.to_owned(),
            resume,
            ..Connect::default()
        };
        let connector = Connector::new(&format!("ws://{}", shop.address), encoding)
            .unwrap()
            .receive_buffer(4096)
            .event_queue(1);
        let (session, events) = connector.connect(&params).await.unwrap();
        let entry = session
            .connected()
            .channels
            .iter()
            .find_map(|entry| match entry {
                EntryResult::Entry(entry) if entry.channel_id == *channel => Some(entry),
                _ => None,
            });
        let entry = entry.expect("it is in the channel");
        assert_eq!(entry.gap, None);
        let position = after.unwrap_or((entry.seq, entry.at));
        Self {
            session,
            events,
            position,
        }
    }

    /// Reads every event up to this `seq`, and checks that none is missing.
    async fn reads_past(&mut self, last: u64) {
        while self.position.0 < last {
            let event = tokio::time::timeout(3 * TIMEOUT, self.events.next())
                .await
                .expect("something comes");
            let event =
                event.unwrap_or_else(|| panic!("the connection ended: {}", self.events.closed()));
            if let (Some(seq), Some(at), Some(_)) = (event.seq, event.at, event.channel_id) {
                assert_eq!(seq, self.position.0 + 1, "no hole, and nothing twice");
                self.position = (seq, at);
            }
        }
    }

    /// Reads until it has received this `seq`, or the connection ends.
    async fn reads_to(&mut self, last: u64) {
        while self.position.0 < last {
            let Some(event) = tokio::time::timeout(3 * TIMEOUT, self.events.next())
                .await
                .expect("something comes")
            else {
                return;
            };
            if let (Some(seq), Some(at), Event::MessageCreated(_)) =
                (event.seq, event.at, event.read().unwrap())
            {
                assert_eq!(seq, self.position.0 + 1, "no hole, and nothing twice");
                self.position = (seq, at);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_stalled_readers_cost_no_more_than_their_outboxes_and_all_resume_without_loss() {
    let each = std::env::var("CHAOS_STALLED_MIB")
        .map_or(5, |mib| mib.parse::<usize>().expect("a number of MiB"))
        * 1024
        * 1024;
    let folder = tempfile::tempdir().unwrap();
    let outbox = format!("outbox_bytes={OUTBOX}");
    let limits = [
        outbox.as_str(),
        "requests_per_second=0",
        "connections_per_user=0",
        "log_bytes=0",
        "log_events=0",
    ];
    let flags: Vec<&str> = ["--demo", "off"]
        .into_iter()
        .chain(limits.iter().flat_map(|limit| ["--limit", limit]))
        .collect();
    let (node, address) = Chaos::node(folder.path(), &flags).await;
    let shop = Shop::open(address, &admin_key(folder.path())).await;
    shop.group("general", &["alice", "bob"]).await;
    let general: ChannelId = "general".parse().unwrap();
    let token = shop.token("bob").await;
    let metric = async |name: &str| {
        let answer = shop
            .http(&shop.admin_key)
            .request(axum::http::Method::GET, "/metrics")
            .send()
            .await
            .unwrap();
        metric_in(std::str::from_utf8(&answer.body).unwrap(), name)
    };
    let mut readers = Vec::with_capacity(READERS);
    for index in 0..READERS {
        readers
            .push(Reader::connects(&shop, &token, &general, None, Encoding::ALL[index % 2]).await);
    }
    readers
        .iter()
        .for_each(|reader| reader.session.pause_reading());

    let before = node.anonymous_bytes();
    let (alice, events) = shop.connects("alice", Encoding::MessagePack).await;
    drop(events);
    let first = readers[0].position.0 + 1;
    let count = each / BYTES;
    let (mut most, mut most_queued) = (before, 0.0f64);
    for index in 0..count {
        let text = format!("{index} {}", "x".repeat(BYTES));
        alice
            .call::<MessageSend>(
                &general,
                &SendMessage {
                    text: Some(text),
                    ..SendMessage::default()
                },
            )
            .await
            .unwrap();
        if index % 16 == 0 {
            most = most.max(node.anonymous_bytes());
            most_queued = most_queued.max(metric("chaos_outbox_bytes").await);
        }
    }
    let grown = most - before;
    let bound = READERS as u64 * OUTBOX + BESIDES;
    eprintln!(
        "{READERS} stalled readers, {} MiB for each: grown by {} KiB of {} KiB",
        each >> 20,
        grown >> 10,
        bound >> 10
    );
    assert!(
        grown <= bound,
        "the node has grown by {grown} bytes, and {bound} are allowed"
    );
    // Each may exceed its limit by one frame.
    assert!(
        most_queued <= (READERS + 1) as f64 * (OUTBOX as f64 + 2.0 * BYTES as f64),
        "{most_queued} bytes waited"
    );
    until("who stalls is closed", || async {
        metric(r#"chaos_closes_total{code="4009"}"#).await == READERS as f64
    })
    .await;

    let last = first + count as u64 - 1;
    for index in (0..READERS).step_by(10) {
        join_all(
            readers[index..index + 10]
                .iter_mut()
                .enumerate()
                .map(async |(place, reader)| {
                    reader.session.resume_reading();
                    reader.reads_to(last).await;
                    assert!(
                        reader.position.0 < last,
                        "there is something left to resume"
                    );
                    let mut again = Reader::connects(
                        &shop,
                        &token,
                        &general,
                        Some(reader.position),
                        Encoding::ALL[place % 2],
                    )
                    .await;
                    again.reads_to(last).await;
                    assert_eq!(
                        again.position.0,
                        last,
                        "the rest came: {}",
                        again.events.closed()
                    );
                }),
        )
        .await;
    }
    assert!(!node.log().contains("panicked"), "{}", node.log());
}

/// Number of sessions that resume and read nothing, and the bytes that each has to catch up with:
/// more than eight outboxes.
const RESUMING: usize = 60;
const LARGE_MESSAGES: usize = 150;
const LARGE_BYTES: usize = 56 * 1024;
/// Maximum memory of the hub for pages: 64 of 64 KiB, or of one record, encoded and not.
const PAGES: u64 = 64 * 2 * 64 * 1024;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_that_resume_and_read_nothing_cost_no_more_than_their_outboxes() {
    const OUTBOX: u64 = 1024 * 1024;
    let folder = tempfile::tempdir().unwrap();
    let limits = [
        "outbox_bytes=1048576",
        // None may be closed as too slow before the last one is connected.
        "outbox_seconds=300",
        "requests_per_second=0",
        "connections_per_user=0",
        "text_bytes=60000",
        "log_bytes=0",
    ];
    let flags: Vec<&str> = ["--demo", "off"]
        .into_iter()
        .chain(limits.iter().flat_map(|limit| ["--limit", limit]))
        .collect();
    let (node, address) = Chaos::node(folder.path(), &flags).await;
    let shop = Shop::open(address, &admin_key(folder.path())).await;
    shop.group("big", &["alice", "bob"]).await;
    let big: ChannelId = "big".parse().unwrap();
    let (alice, events) = shop.connects("alice", Encoding::MessagePack).await;
    drop(events);
    for index in 0..LARGE_MESSAGES {
        let text = format!("{index} {}", "x".repeat(LARGE_BYTES));
        alice
            .call::<MessageSend>(
                &big,
                &SendMessage {
                    text: Some(text),
                    ..SendMessage::default()
                },
            )
            .await
            .unwrap();
    }
    drop(alice);
    let token = shop.token("bob").await;

    let before = node.anonymous_bytes();
    let mut sessions = Vec::with_capacity(RESUMING);
    for index in 0..RESUMING {
        let reader =
            Reader::connects(&shop, &token, &big, Some((0, 0)), Encoding::ALL[index % 2]).await;
        reader.session.pause_reading();
        sessions.push(reader);
    }
    let queued = async || {
        let answer = shop
            .http(&admin_key(folder.path()))
            .request(axum::http::Method::GET, "/metrics")
            .send()
            .await
            .unwrap();
        metric_in(
            std::str::from_utf8(&answer.body).unwrap(),
            "chaos_outbox_bytes",
        )
    };
    until("every outbox holds what it may of a replay", || async {
        queued().await >= (RESUMING as u64 * OUTBOX / 4) as f64
    })
    .await;
    let mut most = 0;
    for _ in 0..20 {
        most = most.max(node.anonymous_bytes());
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let grown = most.saturating_sub(before);
    let bound = RESUMING as u64 * OUTBOX + PAGES + BESIDES;
    eprintln!(
        "{RESUMING} stalled replays: grown by {} KiB of {} KiB",
        grown >> 10,
        bound >> 10
    );
    assert!(
        grown <= bound,
        "the node has grown by {grown} bytes, and {bound} are allowed"
    );

    let first = &mut sessions[0];
    first.session.resume_reading();
    let last = first.position.0 + LARGE_MESSAGES as u64;
    first.reads_past(last).await;
    assert!(!node.log().contains("panicked"), "{}", node.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_session_keeps_no_buffer_of_a_large_message() {
    const SESSIONS: usize = 200;
    let folder = tempfile::tempdir().unwrap();
    let limits = [
        "connections_per_user=0",
        "unauthenticated_per_ip=0",
        "requests_per_second=0",
    ];
    let flags: Vec<&str> = ["--demo", "off"]
        .into_iter()
        .chain(limits.iter().flat_map(|limit| ["--limit", limit]))
        .collect();
    let (node, address) = Chaos::node(folder.path(), &flags).await;
    let shop = Shop::open(address, &admin_key(folder.path())).await;
    shop.group("general", &["alice"]).await;
    let token = shop.token("alice").await;
    let mut sessions = Vec::with_capacity(SESSIONS);
    for _ in 0..SESSIONS {
        sessions.push(Raw::session(address, Encoding::Json, &token).await);
    }
    let mut ping = encode_request(Encoding::Json, 2, "ping", &serde_json::json!({}));
    ping.resize(60_000, b' ');
    let before = node.anonymous_bytes();
    for session in &mut sessions {
        session.message(&ping).await;
        assert_eq!(session.outcome().await, Outcome::Reply(2, None));
    }
    let grown = node.anonymous_bytes().saturating_sub(before);
    eprintln!("{SESSIONS} sessions: grown by {} KiB", grown >> 10);
    assert!(
        grown < (SESSIONS * ping.len() / 4) as u64,
        "{grown} bytes are kept"
    );
}
