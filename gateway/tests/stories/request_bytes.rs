//! The memory of requests and their answers is bounded in total and by tenant, while small
//! requests are served.

use client::Session;
use protocol::{
    Encoding, ErrorCode,
    frame::encode_request,
    operation::{
        channel::ChannelList,
        message::{MessageSend, SendMessage},
        page::ListPage,
        session::Ping,
    },
};
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt, net::TcpSocket};

use crate::{
    story::{StoreKind, StoreProcess, World, refusal, until},
    wire::{Outcome, Raw, TEXT, frame},
};

/// Bytes that each unfinished message holds.
const LARGE: usize = 62_000;
/// Number of them that connections without a session may have alone: half of the budget. A complete
/// message holds as much until it is answered.
const FIT: usize = 16;
/// Number of them that a tenant may have beside these: as much as is free then.
const FIT_BESIDE: usize = 8;

/// A world with room for the unfinished messages of two tenants.
struct LittleRoom(World);

impl LittleRoom {
    async fn on(store_kind: StoreKind) -> Self {
        let limits = ["requests_total_bytes=2000000", "unauthenticated_per_ip=0"];
        let flags = limits.map(|limit| ["--limit", limit]).concat();
        Self(World::with(store_kind, 1, &flags).await)
    }
}

impl World {
    async fn holds(&self, bytes: usize) {
        until("so many bytes are held", || async {
            self.metric(0, "chaos_requests_bytes").await == bytes as f64
        })
        .await;
    }
}

on_both_stores! {
    async fn unfinished_messages_of_a_tenant_are_bounded_and_complete_ones_are_served(world: LittleRoom) {
        let world = world.0;
        let general = world.channel("group", "general", &["alice"]).await;
        let (address, token) = (world.nodes[0].address, world.token("alice").await);
        let mut alice = world.connects("alice").await;
        let mut ping = encode_request(Encoding::Json, 2, "ping", &json!({}));
        ping.resize(LARGE, b' ');
        let large = frame(true, TEXT, &ping);
        let mut half = Vec::new();
        for number in 1..=FIT + FIT_BESIDE {
            let mut raw = match number <= FIT {
                true => Raw::open(address, Encoding::Json).await,
                false => Raw::session(address, Encoding::Json, &token).await,
            };
            raw.bytes(&large[..50]).await;
            half.push(raw);
            world.holds(number * LARGE).await;
        }
        let mut stranger = Raw::open(address, Encoding::Json).await;
        stranger.bytes(&large[..50]).await;
        assert_eq!(stranger.outcome().await, Outcome::Closed(4012));
        let mut session = Raw::session(address, Encoding::Json, &token).await;
        session.bytes(&large[..50]).await;
        assert_eq!(session.outcome().await, Outcome::Closed(4012));
        let message = |length| SendMessage { text: Some("x".repeat(length)), ..SendMessage::default() };
        let path = format!("/v1/channels/{general}/messages");
        let large_body: Result<Value, _> = world.team().post(&path, &json!({ "sender_id": "alice", "text": "x".repeat(5000) })).await;
        assert_eq!(refusal(large_body), (429, ErrorCode::RateLimited));
        let hits = r#"chaos_limits_hit_total{limit="requests_total_bytes"}"#;
        assert_eq!(world.metric(0, hits).await, 3.0);

        // Small requests do not count.
        alice.session.call::<MessageSend>(&general, &message(1000)).await.unwrap();
        alice.sees(&"x".repeat(1000)).await;
        let _: Value = world.team().post(&path, &json!({ "sender_id": "alice", "text": "y" })).await.unwrap();
        alice.sees("y").await;

        let mut whole = half.pop().unwrap();
        half.clear();
        world.holds(LARGE).await;
        whole.bytes(&large[50..]).await;
        assert_eq!(whole.outcome().await, Outcome::Reply(2, None));
        world.holds(0).await;
        let _: Value = world.team().post(&path, &json!({ "sender_id": "alice", "text": "z".repeat(5000) })).await.unwrap();
        alice.sees(&"z".repeat(5000)).await;
    }
}

/// Bytes that a page holds until it is answered.
const PAGE: usize = 256 * 1024;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_of_requests_that_wait_for_the_store_are_bounded() {
    let flags = [
        "--limit",
        "requests_total_bytes=800000",
        "--limit",
        "frame_bytes=8192",
    ];
    let world = World::with(StoreKind::Redis, 1, &flags).await;
    world.channel("group", "general", &["alice", "bob"]).await;
    let (alice, bob) = (world.connects("alice").await, world.connects("bob").await);
    let server = match &world.store_process {
        StoreProcess::Redis(server, _) => server,
        _ => panic!("it stands on Redis"),
    };
    let list = |session: &Session| {
        let session = session.clone();
        async move { session.call::<ChannelList>((), &ListPage::default()).await }
    };
    server.stop();
    let waiting = tokio::spawn(list(&alice.session));
    until("the page is counted", || async {
        world.metric(0, "chaos_requests_bytes").await >= PAGE as f64
    })
    .await;
    // A tenant has half of the budget: a second page does not fit, whoever requests it.
    let refused = list(&bob.session).await.unwrap_err();
    let refused = refused.refusal().unwrap();
    assert_eq!(refused.code, ErrorCode::RateLimited);
    bob.session.call::<Ping>((), ()).await.unwrap();
    server.cont();
    waiting.await.unwrap().unwrap();
    world.holds(0).await;
    list(&bob.session).await.unwrap();
}

on_both_stores! {
    async fn bytes_of_unread_answers_are_bounded(world: HalfPages) {
        let world = world.0;
        let general = world.channel("group", "general", &["alice"]).await;
        for _ in 0..6 {
            let text = "x".repeat(15_000);
            let body = json!({ "sender_id": "alice", "text": text });
            let _: Value = world.team().post(&format!("/v1/channels/{general}/messages"), &body).await.unwrap();
        }
        let request = format!(
            "GET /v1/channels/{general}/messages HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\r\n",
            world.app_key
        );
        let mut stalled = Vec::new();
        let refused = loop {
// Many answers on one connection with a small receive buffer.
            let socket = TcpSocket::new_v4().unwrap();
            socket.set_recv_buffer_size(4096).unwrap();
            let mut stream = socket.connect(world.nodes[0].address).await.unwrap();
            stream.write_all(request.repeat(200).as_bytes()).await.unwrap();
            stalled.push(stream);
            assert!(stalled.len() < 100, "answers have no bound");
            let page: Result<Value, _> = world.team().get(&format!("/v1/channels/{general}/messages")).await;
            if page.is_err() {
                break refusal(page);
            }
        };
        assert_eq!(refused, (429, ErrorCode::RateLimited));
        drop(stalled);
        world.holds(0).await;
    }
}

/// A world in which a tenant has room for little more than one page.
struct HalfPages(World);

impl HalfPages {
    async fn on(store_kind: StoreKind) -> Self {
        let flags = [
            "--limit",
            "requests_total_bytes=900000",
            "--limit",
            "frame_bytes=16384",
        ];
        Self(World::with(store_kind, 1, &flags).await)
    }
}
