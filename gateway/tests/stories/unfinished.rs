//! Messages and bodies that do not come whole: what they hold together is bounded, and whoever
//! sends whole ones goes on.

use protocol::{
    Encoding, ErrorCode,
    frame::encode_request,
    operation::message::{MessageSend, SendMessage},
};
use serde_json::{Value, json};

use crate::{
    story::{Ground, World, refusal, until},
    wire::{Outcome, Raw, TEXT, frame},
};

/// How much each unfinished message holds.
const LARGE: usize = 62_000;

/// A world with room for three large messages that are not whole, and 14,000 bytes more.
struct LittleRoom(World);

impl LittleRoom {
    async fn on(ground: Ground) -> Self {
        let limits = ["incoming_total_bytes=200000", "unauthenticated_per_ip=0"];
        let flags = limits.map(|limit| ["--limit", limit]).concat();
        Self(World::with(ground, 1, &flags).await)
    }
}

impl World {
    async fn holds(&self, bytes: usize) {
        until("so many bytes are held", || async {
            self.metric(0, "chaos_incoming_bytes").await == bytes as f64
        })
        .await;
    }
}

on_both_stores! {
    async fn unfinished_messages_have_a_bound_together_and_whole_ones_go_on(world: LittleRoom) {
        let world = world.0;
        let general = world.channel("group", "general", &["alice"]).await;
        let (address, token) = (world.nodes[0].address, world.token("alice").await);
        let mut alice = world.connects("alice").await;
        let mut ping = encode_request(Encoding::Json, 2, "ping", &json!({}));
        ping.resize(LARGE, b' ');
        let large = frame(true, TEXT, &ping);
        let mut half = Vec::new();
        for is_connected in [false, true, true] {
            let mut raw = match is_connected {
                true => Raw::session(address, Encoding::Json, &token).await,
                false => Raw::open(address, Encoding::Json).await,
            };
            raw.bytes(&large[..50]).await;
            half.push(raw);
            world.holds(half.len() * LARGE).await;
        }
        let mut stranger = Raw::open(address, Encoding::Json).await;
        stranger.bytes(&large[..50]).await;
        assert_eq!(stranger.outcome().await, Outcome::Closed(4012));
        let mut session = Raw::session(address, Encoding::Json, &token).await;
        session.bytes(&large[..50]).await;
        assert_eq!(session.outcome().await, Outcome::Closed(4012));
        let message = |length| SendMessage { text: Some("x".repeat(length)), ..SendMessage::default() };
        let path = format!("/v1/channels/{general}/messages");
        let large_body: Result<Value, _> = world.team().post(&path, &json!({ "sender_id": "alice", "text": "x".repeat(15_000) })).await;
        assert_eq!(refusal(large_body), (429, ErrorCode::RateLimited));
        let hits = r#"chaos_limits_hit_total{limit="incoming_total_bytes"}"#;
        assert_eq!(world.metric(0, hits).await, 3.0);

        // Small ones need no room.
        alice.session.call::<MessageSend>(&general, &message(1000)).await.unwrap();
        alice.sees(&"x".repeat(1000)).await;
        let _: Value = world.team().post(&path, &json!({ "sender_id": "alice", "text": "y" })).await.unwrap();
        alice.sees("y").await;

        let mut whole = half.pop().unwrap();
        whole.bytes(&large[50..]).await;
        assert_eq!(whole.outcome().await, Outcome::Reply(2, None));
        world.holds(2 * LARGE).await;
        let _: Value = world.team().post(&path, &json!({ "sender_id": "alice", "text": "z".repeat(15_000) })).await.unwrap();
        alice.sees(&"z".repeat(15_000)).await;
        drop(half);
        world.holds(0).await;
    }
}
