//! Every close code, and refused upgrades.

use std::time::{Duration, Instant};

use axum::http::{HeaderValue, header};
use client::{ConnectError, Connector, Frame};
use protocol::{
    CloseCode, Encoding, ErrorCode,
    frame::encode_request,
    operation::session::{Connect, Ping},
};
use serde_json::{Value, json};

use crate::{
    story::{StoreKind, World, has_exactly},
    wire::{BINARY, Outcome, Raw, declared, frame},
};

/// A world without a limit on failed attempts.
struct Patient(World);

impl Patient {
    async fn on(store_kind: StoreKind) -> Self {
        Self(World::with(store_kind, 1, &["--limit", "unauthenticated_per_ip=0"]).await)
    }
}

/// A world with a short heartbeat.
struct Impatient(World);

impl Impatient {
    async fn on(store_kind: StoreKind) -> Self {
        Self(World::with(store_kind, 1, &["--heartbeat", "300ms"]).await)
    }
}

fn other(encoding: Encoding) -> Encoding {
    match encoding {
        Encoding::Json => Encoding::MessagePack,
        Encoding::MessagePack => Encoding::Json,
    }
}

on_both_stores! {
    async fn invalid_request_closes_with_4000(world: Patient) {
        let world = world.0;
        world.people(&["alice"]).await;
        let token = world.token("alice").await;
        for encoding in Encoding::ALL {
            let frame = |text: &str| Frame::of(encoding, encode_request(Encoding::Json, 1, "ping", &json!({ "x": text })));
            let wrong = [
                Frame::of(encoding, "nonsense"),
                Frame::of(encoding, ""),
                Frame::of(encoding, encoding.encode(&json!({ "id": 0, "method": "ping" }))),
                Frame::of(encoding, encoding.encode(&json!({ "id": -1, "method": "ping" }))),
                Frame::of(encoding, encoding.encode(&json!({ "id": 4_294_967_296u64, "method": "ping" }))),
                Frame::of(encoding, encoding.encode(&json!({ "method": "ping" }))),
                Frame::of(encoding, encoding.encode(&json!({ "id": 2 }))),
                Frame::of(encoding, encoding.encode(&json!(["ping"]))),
                Frame::of(encoding, encoding.encode(&json!({ "id": 2, "method": "ping", "params": [] }))),
                Frame::of(other(encoding), encode_request(encoding, 2, "ping", &json!({}))),
                Frame::of(encoding, [encode_request(encoding, 2, "ping", &json!({})), b"\xc1".to_vec()].concat()),
            ];
            for wrong in wrong {
                let mut first = world.opens(encoding).await;
                first.says(wrong.clone()).await;
                assert_eq!(first.ends().await.code, Some(4000), "{encoding:?} {wrong:?} at first");
                let mut later = world.opens(encoding).await;
                later.asks("connect", json!({ "token": token })).await;
                later.says(wrong.clone()).await;
                assert_eq!(later.ends().await.code, Some(4000), "{encoding:?} {wrong:?}");
            }
            if encoding == Encoding::MessagePack {
                let mut first = world.opens(encoding).await;
                first.says(frame("JSON in a binary message")).await;
                assert_eq!(first.ends().await.code, Some(4000));
            }
        }
    }

    async fn a_close_with_4000_says_what_was_wrong(world: Patient) {
        let world = world.0;
        world.people(&["alice"]).await;
        let token = world.token("alice").await;
        for encoding in Encoding::ALL {
            let mixed = match encoding {
                Encoding::MessagePack => "text in a MessagePack session: offer chaos.v1.json for JSON",
                Encoding::Json => "binary in a JSON session: offer chaos.v1.msgpack for MessagePack",
            };
            for (frame, reason) in [
                (Frame::of(other(encoding), encode_request(other(encoding), 2, "ping", &json!({}))), mixed),
                (Frame::of(encoding, encoding.encode(&json!({ "id": 0, "method": "ping" }))), "a request's id is 1 to 2^32-1"),
                (Frame::of(encoding, encoding.encode(&json!({ "id": -1, "method": "ping" }))), "a request's id is 1 to 2^32-1"),
                (Frame::of(encoding, encoding.encode(&json!({ "method": "ping" }))), "a request has an id and a method"),
                (Frame::of(encoding, encoding.encode(&json!({ "id": 2 }))), "a request has an id and a method"),
                (Frame::of(encoding, encoding.encode(&json!(["ping"]))), "a request is a map"),
                (Frame::of(encoding, encoding.encode(&json!({ "id": 2, "method": "ping", "params": [] }))), "params is not a map"),
            ] {
                let mut first = world.opens(encoding).await;
                first.says(frame.clone()).await;
                assert_eq!(first.ends().await.reason, reason, "{encoding:?} at first");
                let mut later = world.opens(encoding).await;
                later.asks("connect", json!({ "token": token })).await;
                later.says(frame).await;
                assert_eq!(later.ends().await.reason, reason, "{encoding:?}");
            }
        }
        let mut first = world.opens(Encoding::Json).await;
        first.asks("ping", json!({})).await;
        assert_eq!(first.ends().await.reason, "the first request is `connect`");
        let mut first = world.opens(Encoding::Json).await;
        let reply = first.asks("connect", json!({ "token": "sk_test_0" })).await;
        assert_eq!(reply["error"]["message"], "this is an app key: `connect` takes a user token");
    }

    async fn another_first_request_than_connect_closes_with_4000(world: Patient) {
        let world = world.0;
        for method in ["ping", "message.send", "token.refresh", "nonsense"] {
            let mut first = world.opens(Encoding::Json).await;
            let reply = first.asks(method, json!({})).await;
            assert_eq!(reply["error"]["code"], "unauthenticated");
            assert_eq!(first.ends().await.code, Some(4000), "{method}");
        }
    }

    async fn a_connect_that_does_not_fit_is_answered_and_refused(world: Patient) {
        let world = world.0;
        world.people(&["alice"]).await;
        let token = world.token("alice").await;
        for params in [json!({}), json!({ "token": 7 }), json!({ "token": token, "watch": "some" }), json!({ "token": token, "resume": { "general": [1] } })] {
            let mut first = world.opens(Encoding::Json).await;
            let reply = first.asks("connect", params.clone()).await;
            has_exactly(&reply, "id error");
            assert_eq!(reply["error"]["code"], "bad_request", "{params}");
            assert_eq!(first.ends().await.code, Some(4000));
        }
    }

    async fn a_frame_that_is_too_large_closes_with_4010(world: Patient) {
        let world = world.0;
        world.people(&["alice"]).await;
        let token = world.token("alice").await;
        for encoding in Encoding::ALL {
            let padded = |bytes: usize| json!({ "token": token, "client": "x".repeat(bytes) });
            let mut first = world.opens(encoding).await;
            first.says(Frame::of(encoding, encode_request(encoding, 1, "connect", &padded(32 * 1024)))).await;
            assert_eq!(first.ends().await.code, Some(4010), "a connect has 32 KiB");
            let mut session = world.opens(encoding).await;
            assert!(session.asks("connect", padded(31 * 1024)).await.get("result").is_some());
            assert!(session.asks("ping", json!({ "x": "x".repeat(65_000) })).await.get("result").is_some());
            session.says(Frame::of(encoding, encode_request(encoding, 9, "ping", &json!({ "x": "x".repeat(65_536) })))).await;
            assert_eq!(session.ends().await.code, Some(4010));
        }
    }

    async fn a_reader_that_answers_no_ping_closes_with_4008(world: Impatient) {
        let world = world.0;
        world.people(&["alice", "bob"]).await;
        let mut alive = world.connects("alice").await;
        assert_eq!(alive.connected().heartbeat_ms, 300);
        let mut dead = Raw::session(world.nodes[0].address, Encoding::MessagePack, &world.token("bob").await).await;
        dead.plays_dead();
        let began = Instant::now();
        assert_eq!(dead.outcome().await, Outcome::Closed(4008), "it reads, and answers no ping");
        assert!(began.elapsed() >= Duration::from_millis(600), "two pings later");
        alive.session.call::<Ping>((), ()).await.unwrap();
        alive.receives_nothing().await;
    }

    async fn a_drain_tells_every_session_and_closes_with_1001(world: World) {
        let mut world = world;
        world.people(&["alice", "bob"]).await;
        let mut alice = world.connects("alice").await;
        let mut bob = world.connects_to(0, "bob", Encoding::Json, Connect::default()).await;
        let url = world.url(0);
        let node = world.nodes.pop().unwrap();
        let drained = tokio::spawn(node.drain());
        for person in [&mut alice, &mut bob] {
            let told = person.receives_raw("server.draining").await;
            has_exactly(&told, "event data");
            has_exactly(&told["data"], "reconnect_after_ms");
// Ending two sessions takes a few milliseconds, not the window.
            assert!(told["data"]["reconnect_after_ms"].as_u64().is_some_and(|within| within <= 50), "{told}");
            assert_eq!(person.is_closed().await, 1001);
        }
        drained.await.unwrap();
        assert!(Connector::new(&url, Encoding::Json).unwrap().open().await.is_err(), "nobody listens any more");
    }

    async fn the_sub_protocol_says_how_frames_are_encoded(world: Patient) {
        let world = world.0;
        let name = header::SEC_WEBSOCKET_PROTOCOL;
        let offering = async |protocols: &'static str| {
            let connector = Connector::new(&world.url(0), Encoding::Json).unwrap();
            connector.header(name.clone(), HeaderValue::from_static(protocols)).open().await
        };
        for unknown in ["chat", "chaos.v2.json", "chaos.v1.msgpack2, graphql-ws"] {
            let Err(ConnectError::Upgrade { status, body }) = offering(unknown).await else { panic!("{unknown} was taken") };
            let body: Value = serde_json::from_str(&body).unwrap();
            assert_eq!((status, &body["error"]["code"]), (400, &json!("bad_request")));
        }
        assert!(offering("chat, chaos.v1.json").await.is_ok(), "one known is enough");
        world.people(&["alice"]).await;
        let without = Connector::new(&world.url(0), Encoding::MessagePack).unwrap().without_header(&name);
        let params = Connect { token: world.token("alice").await, ..Connect::default() };
        without.connect(&params).await.unwrap().0.call::<Ping>((), ()).await.unwrap();
        let get = world.team().request(axum::http::Method::GET, "/v1/ws").send().await.unwrap();
        assert_eq!(get.status.as_u16(), 400, "no upgrade");
    }

    async fn pages_of_other_origins_may_not_connect(world: Patient) {
        let world = world.0;
        let from = async |origin: String| {
            let connector = Connector::new(&world.url(0), Encoding::Json).unwrap();
            connector.header(header::ORIGIN, HeaderValue::from_str(&origin).unwrap()).open().await
        };
        let port = world.nodes[0].address.port();
        for own in [format!("http://127.0.0.1:{port}"), "http://localhost:3000".to_owned(), "https://localhost".to_owned()] {
            assert!(from(own.clone()).await.is_ok(), "{own}");
        }
        for foreign in ["https://evil.example", "null", "https://localhost.evil.example", "http://10.0.0.1:3000"] {
            let Err(ConnectError::Upgrade { status, body }) = from(foreign.to_owned()).await else { panic!("{foreign} was let in") };
            let body: Value = serde_json::from_str(&body).unwrap();
            assert_eq!((status, &body["error"]["code"]), (403, &json!("forbidden")), "{foreign}");
        }
    }
}

// These take ten seconds and do not depend on the store.

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_without_connect_closes_with_4001_after_ten_seconds() {
    let world = World::on(StoreKind::Embedded).await;
    let mut silent = world.opens(Encoding::MessagePack).await;
    let began = Instant::now();
    assert_eq!(silent.ends().await.code, Some(4001));
    assert!(
        (Duration::from_secs(9)..Duration::from_secs(13)).contains(&began.elapsed()),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ignoring_rate_limited_closes_with_4011() {
    let world = World::on(StoreKind::Embedded).await;
    world.people(&["alice"]).await;
    let mut alice = world.connects("alice").await;
    let began = Instant::now();
    let session = alice.session.clone();
    let flood = tokio::spawn(async move {
        // A few at a time, so that refusals never pause for a second.
        while began.elapsed() < Duration::from_secs(15) {
            let burst: Vec<_> = (0..50).map(|_| session.call::<Ping>((), ())).collect();
            for answer in futures_util::future::join_all(burst).await {
                if matches!(answer, Err(client::RequestError::Closed(_))) {
                    return;
                }
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    assert_eq!(alice.is_closed().await, 4011);
    assert!(
        began.elapsed() > Duration::from_secs(9),
        "who is refused for ten seconds"
    );
    flood.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn incomplete_message_closes_with_4009() {
    let world = World::with(
        StoreKind::Embedded,
        1,
        &["--limit", "outbox_seconds=1", "--heartbeat", "300ms"],
    )
    .await;
    world.people(&["alice"]).await;
    let token = world.token("alice").await;
    // Pings are answered between the fragments.
    let fragment = frame(false, BINARY, &[0; 1000]);
    let mut raw = Raw::session(world.nodes[0].address, Encoding::MessagePack, &token).await;
    raw.bytes(&fragment).await;
    assert_eq!(raw.outcome().await, Outcome::Closed(4009));
    // A pong cannot be sent in the middle of a frame.
    let world = World::with(StoreKind::Embedded, 1, &["--limit", "outbox_seconds=1"]).await;
    world.people(&["alice"]).await;
    let mut raw = Raw::session(
        world.nodes[0].address,
        Encoding::MessagePack,
        &world.token("alice").await,
    )
    .await;
    raw.bytes(&declared(true, BINARY, true, 60_000)).await;
    assert_eq!(raw.outcome().await, Outcome::Closed(4009));
}

/// Every close code has a test: 1001, 4000, 4001, 4008, 4010 and 4011 here; 4002, 4003 and 4004 in
/// `tokens`; 4009 in `promises`; 4012 in `limits`. 4500 is for defects, of which none
/// is known.
#[test]
fn every_close_code_is_tested() {
    let told = [
        1001, 4000, 4001, 4002, 4003, 4004, 4008, 4009, 4010, 4011, 4012, 4500,
    ];
    assert_eq!(
        CloseCode::ALL
            .iter()
            .map(|code| code.code())
            .collect::<Vec<_>>(),
        told
    );
    assert_eq!(ErrorCode::ALL.len(), 13);
}
