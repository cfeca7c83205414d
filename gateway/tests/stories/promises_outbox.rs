//! Slow readers: bounded memory, a closed connection, and no loss after a
//! resume.

use client::Connector;
use protocol::{
    ChannelId, Cursor, Encoding,
    event::Event,
    operation::{
        message::{MessageSend, SendMessage},
        session::Connect,
    },
};

use crate::story::{Person, StoreKind, World, until};

/// A world with small outboxes.
struct Narrow(World);

impl Narrow {
    async fn on(store_kind: StoreKind) -> Self {
        let flags = [
            "--limit",
            "outbox_bytes=65536",
            "--limit",
            "requests_per_second=0",
            "--limit",
            "log_bytes=0",
        ];
        Self(World::with(store_kind, 1, &flags).await)
    }
}

const BYTES: usize = 8 * 1024;
/// More bytes than the socket's buffers and the outbox hold together.
const ENOUGH: usize = 600;

on_both_stores! {
    async fn a_stalled_reader_costs_bounded_memory_is_closed_with_4009_and_resumes_without_loss(world: Narrow) {
        let world = world.0;
        let general = world.channel("group", "general", &["alice", "bob", "carol"]).await;
        let stalled = Connector::new(&world.url(0), Encoding::MessagePack).unwrap().receive_buffer(4096).event_queue(1);
        let params = Connect { token: world.token("bob").await, ..Connect::default() };
        let (session, events) = stalled.connect(&params).await.unwrap();
        let mut bob = Person { name: "bob".parse().unwrap(), session, events, heard: Vec::new() };
        let entry = bob.entry(&general);
        let mut position = (entry.seq, entry.at);
        bob.session.pause_reading();

        let mut carol = world.connects("carol").await;
        let first = carol.entry(&general).seq + 1;
        let reading = tokio::spawn(async move {
            for seq in first..first + ENOUGH as u64 {
                let event = carol.receives("message.created").await;
                assert_eq!(event.seq, Some(seq), "others lose nothing, and do not wait");
            }
            carol
        });
        let alice = world.connects("alice").await;
        let sender = alice.session.clone();
        drop(alice.events);
        let mut most = 0.0f64;
        for count in 0..ENOUGH {
            let text = format!("{count} {}", "x".repeat(BYTES));
            sender.call::<MessageSend>(&general, &SendMessage { text: Some(text), ..SendMessage::default() }).await.unwrap();
            if count % 20 == 0 {
                most = most.max(metric(&world, "chaos_outbox_bytes").await);
            }
        }
        let last_seq = first + ENOUGH as u64 - 1;
        reading.await.unwrap();
        until("the stalled reader is closed", || async { metric(&world, r#"chaos_closes_total{code="4009"}"#).await == 1.0 }).await;
// Three connections with bounded memory, each of which one frame may exceed.
        assert!(most <= 3.0 * (65_536.0 + 2.0 * BYTES as f64), "{most} bytes waited");
        until("the stalled reader's memory is given back", || async { metric(&world, "chaos_outbox_bytes").await == 0.0 }).await;

        bob.session.resume_reading();
        while let Some(event) = bob.events.next().await {
            if event.channel_id.as_ref() == Some(&general) && let (Some(seq), Some(at)) = (event.seq, event.at) {
                assert_eq!(seq, position.0 + 1);
                position = (seq, at);
            }
        }
        assert!(position.0 < last_seq, "there is something left to resume");
        let mut bob = world.connects_to(0, "bob", Encoding::MessagePack, resuming(&general, position)).await;
        assert_eq!((bob.entry(&general).gap, bob.entry(&general).seq), (None, last_seq));
        for seq in position.0 + 1..=last_seq {
            let event = bob.next().await;
            assert_eq!(event.seq, Some(seq));
            assert!(matches!(event.read().unwrap(), Event::MessageCreated(message) if message.number == seq - (first - 1)));
        }
        bob.receives_nothing().await;
    }

    async fn slow_reader_is_closed_with_4009(world: Narrow) {
        let world = world.0;
        let general = world.channel("group", "general", &["alice", "bob"]).await;
        let stalled = Connector::new(&world.url(0), Encoding::MessagePack).unwrap().receive_buffer(4096).event_queue(1);
        let (session, events) = stalled.connect(&Connect { token: world.token("bob").await, ..Connect::default() }).await.unwrap();
        let mut bob = Person { name: "bob".parse().unwrap(), session, events, heard: Vec::new() };
        bob.session.pause_reading();
        let alice = world.connects("alice").await;
        drop(alice.events);
        let text = "x".repeat(BYTES);
        let closes = r#"chaos_closes_total{code="4009"}"#;
        for _ in 0..ENOUGH {
            alice.session.call::<MessageSend>(&general, &SendMessage { text: Some(text.clone()), ..SendMessage::default() }).await.unwrap();
            if metric(&world, closes).await > 0.0 || metric(&world, r#"chaos_slow_readers_total{bound="bytes"}"#).await > 0.0 {
                break;
            }
        }
        bob.session.resume_reading();
        assert_eq!(bob.is_closed().await, 4009);
    }
}

fn resuming(channel: &ChannelId, (seq, at): (u64, u64)) -> Connect {
    Connect {
        resume: [(channel.clone(), Cursor::After(seq, at))].into(),
        ..Connect::default()
    }
}

/// Returns a metric of the first node.
async fn metric(world: &World, name: &str) -> f64 {
    world.metric(0, name).await
}
