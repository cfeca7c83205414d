//! A hundred readers that stall at once: what they cost a whole process, and that none of them loses anything.
//!
//! `CHAOS_STALLED_MIB=10` lets 10 MiB pass for each, 1 GiB in all; the suite lets 5 MiB pass, which is more than sockets buffer.

use client::{Connector, Events, Session};
use futures_util::future::join_all;
use protocol::{
    ChannelId, Encoding,
    event::Event,
    model::EntryResult,
    params::{Connect, Cursor, SendMessage},
};

use crate::{
    process::{Chaos, Shop, admin_key},
    story::{PATIENCE, metric_in, until},
};

const READERS: usize = 100;
const BYTES: usize = 8 * 1024;
const OUTBOX: u64 = 128 * 1024;
/// What a node may need besides the outboxes.
const BESIDES: u64 = 32 * 1024 * 1024;

/// A reader, and the last event that it has.
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

    /// Reads until it has this `seq`, or the connection ends.
    async fn reads_to(&mut self, last: u64) {
        while self.position.0 < last {
            let Some(event) = tokio::time::timeout(3 * PATIENCE, self.events.next())
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
            .http("")
            .call(axum::http::Method::GET, "/metrics")
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
            .send(
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
    // One frame may stand at the edge of each.
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
