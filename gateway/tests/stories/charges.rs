//! Requests are charged for what they read.

use std::time::{Duration, Instant};

use client::{BackendError, ConnectError, Connector};
use domain::{
    credential::{Actor, Who},
    messages,
    schema::Scope,
};
use protocol::{
    CloseCode, Cursor, Encoding, ErrorCode, KeyId, MessageId,
    entity::Environment,
    operation::{
        message::{MessageSend, SendMessage},
        session::{Connect, Watch},
    },
};
use serde_json::{Value, json};

use crate::{
    lists::{many_groups, quiet},
    story::{Person, StoreKind, World, refusal},
};

/// A world with 20 requests per second for a user, few enough that even a slow machine does not
/// serve them all.
struct FewRequests(World);

impl FewRequests {
    async fn on(store_kind: StoreKind) -> Self {
        Self(World::with(store_kind, 1, &["--limit", "requests_per_second=20"]).await)
    }
}

/// A world with one request per second for a user: a page of five tokens exceeds it however slow
/// the machine is.
struct FewerRequests(World);

impl FewerRequests {
    async fn on(store_kind: StoreKind) -> Self {
        Self(World::with(store_kind, 1, &["--limit", "requests_per_second=1"]).await)
    }
}

/// A world with one request per second for a user, and texts of many megabytes.
struct LargeTexts(World);

impl LargeTexts {
    async fn on(store_kind: StoreKind) -> Self {
        let limits = [
            "requests_per_second=1",
            "text_bytes=20000000",
            "frame_bytes=30000000",
            "outbox_bytes=0",
            "requests_total_bytes=0",
        ];
        let flags: Vec<&str> = limits.iter().flat_map(|limit| ["--limit", limit]).collect();
        Self(World::with(store_kind, 1, &flags).await)
    }
}

on_both_stores! {
    async fn requests_are_charged_for_what_they_read(world: FewerRequests) {
        let world = world.0;
        many_groups(&world, "alice", 600).await;
        let alice = world.backend(&world.token("alice").await);
        let served = async |path: &str| {
            for served in 0..200 {
                match alice.get::<Value>(path).await {
                    Ok(_) => {}
                    refused => {
                        assert_eq!(refusal(refused), (429, ErrorCode::RateLimited));
                        return served;
                    }
                }
            }
            200
        };
        // 2 tokens at once, and each page of 200 takes 5.
        let affordable = |started: Instant| 1 + started.elapsed().as_secs() / 4;
        let started = Instant::now();
        let pages = served("/v1/users/alice/channels?limit=200").await;
        assert!((1..=affordable(started)).contains(&pages), "{pages}");

        many_groups(&world, "carol", 600).await;
        let params = Connect { token: world.token("carol").await, ..Connect::default() };
        let person = quiet(&world, "carol").await;
        let (mut pages, started) = (0, Instant::now());
        while pages < 200 && person.session.request::<_, Value>("channel.list", &json!({ "limit": 200 })).await.is_ok() {
            pages += 1;
        }
        assert!(pages <= affordable(started), "its `connect` took 5 tokens, and each page takes 10: {pages}");
// A debt belongs to the user, not to the session.
        let connector = Connector::new(&world.url(0), Encoding::Json).unwrap();
        let Err(ConnectError::Refused { error, closed }) = connector.connect(&params).await else { panic!("a new session has no debt") };
        assert_eq!((error.code, closed.code), (ErrorCode::RateLimited, Some(CloseCode::TooManyConnections.code())));
    }

    async fn a_user_whom_others_put_into_many_channels_connects_and_counts_unread_for_little(world: FewRequests) {
        let world = world.0;
        many_groups(&world, "alice", 3000).await;
        // 40 tokens at once. Reading 3,000 channels would take more than 60 of them.
        for _ in 0..2 {
            assert!(world.connects("alice").await.connected().more);
        }
        let alice = world.backend(&world.token("alice").await);
        for _ in 0..2 {
            let unread: Value = alice.get("/v1/users/alice/unread").await.unwrap();
            assert_eq!(unread["unread"], 0);
        }
    }

    async fn sends_are_charged_for_what_they_read(world: LargeTexts) {
        let world = world.0;
        let general = world.channel("group", "general", &["alice"]).await;
        let alice = quiet(&world, "alice").await;
        let backend = world.backend(&world.token("alice").await);
        let body = SendMessage { message_id: Some(MessageId::from_bits(1)), text: Some("x".repeat(16_000_000)), ..SendMessage::default() };
        let sends = async || {
            // A token comes back in each second.
            while let Err(error) = alice.session.call::<MessageSend>(&general, &body).await {
                let refused = error.refusal().expect("the session goes on");
                assert_eq!(refused.code, ErrorCode::RateLimited);
                tokio::time::sleep(Duration::from_millis(refused.retry_after_ms.unwrap())).await;
            }
        };
        sends().await;
        // The repeat reads 16 MB, which take 5 tokens of 2.
        sends().await;
        let refused = backend.get::<Value>("/v1/users/alice").await;
        let Err(BackendError::Refused { error, .. }) = refused else { panic!("the repeat was free") };
        assert_eq!(error.code, ErrorCode::RateLimited);
        // Without a debt, a token is there after a second at most.
        assert!(error.retry_after_ms > Some(1_000), "{error:?}");
    }

    async fn replay_of_the_users_own_stream_is_charged_to_the_user(world: FewerRequests) {
        let world = world.0;
        world.people(&["alice"]).await;
        let (seq, at) = quiet(&world, "alice").await.connected().user_position;
        many_groups(&world, "alice", 900).await;
        let connects = async |user_position| {
            let params = Connect { token: world.token("alice").await, watch: Watch::None, user_position, ..Connect::default() };
            Connector::new(&world.url(0), Encoding::Json).unwrap().connect(&params).await.map(drop)
        };
        // 2 tokens at once, and the replay of 900 events takes 4.
        connects(Some(Cursor::After(seq, at))).await.unwrap();
        let Err(ConnectError::Refused { error, .. }) = connects(None).await else { panic!("the replay was free") };
        assert_eq!(error.code, ErrorCode::RateLimited);
    }

    async fn replays_are_charged_to_their_user(world: World) {
        let general = world.channel("group", "general", &["alice"]).await;
        let scope = Scope { app: world.app.parse().unwrap(), environment: Environment::Live };
        let actor = Actor { scope, who: Who::App { key: KeyId::from_bits(0) } };
        let body = SendMessage { sender_id: Some("alice".parse().unwrap()), text: Some("hi".into()), ..SendMessage::default() };
        let mut first = None;
        for _ in 0..9 {
            let (sent, _) = messages::send::send_messages(&world.nodes[0].services, &actor, &general, vec![body.clone(); 100], None).await;
            first = first.or(Some(sent[0].as_ref().unwrap().0.clone()));
        }
        let first = first.unwrap();
        let Person { session: alice, mut events, .. } = quiet(&world, "alice").await;
        tokio::spawn(async move { while events.next_frame().await.is_some() {} });
        let from_there = json!({ "channels": { (general.as_str()): [first.seq, first.created_at] } });
        let mut refused = None;
        // Fewer than the session itself may send at once.
        for _ in 0..60 {
            refused = alice.request::<_, Value>("channel.subscribe", &from_there).await.err();
            if refused.is_some() {
                break;
            }
        }
        let refused = refused.expect("899 events take more than the token of the request");
        assert_eq!(refused.refusal().map(|error| error.code), Some(ErrorCode::RateLimited), "{refused}");
    }
}
