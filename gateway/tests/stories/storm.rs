//! Many connects at once: some are served, some wait, the others get a retry hint, while existing
//! sessions are served.

use std::{collections::BTreeSet, time::Duration};

use axum::http::{HeaderName, HeaderValue};
use client::{ConnectError, Connector, Frame};
use futures_util::future::join_all;
use protocol::{
    ChannelId, Cursor, Encoding, ErrorCode,
    frame::encode_request,
    operation::{
        message::{MessageSend, SendMessage},
        session::{Connect, Ping},
        user::Token,
    },
};
use serde_json::{Value, json};

use crate::story::{Person, StoreKind, StoreProcess, TIMEOUT, World, until};

/// A world in which few connects are served at a time.
struct Gated(World);

impl Gated {
    async fn on(store_kind: StoreKind) -> Self {
        let gate = ["connects_at_once=2", "connects_waiting=3"];
        // The log is long enough to replay everything.
        let no_other = [
            "unauthenticated_per_ip=0",
            "connections_per_user=0",
            "requests_per_second=0",
            "log_events=0",
            "log_bytes=0",
        ];
        let limits = gate.into_iter().chain(no_other);
        let flags: Vec<&str> = limits.flat_map(|limit| ["--limit", limit]).collect();
        Self(World::with(store_kind, 1, &flags).await)
    }
}

/// Number of simultaneous connects.
const STORM: usize = 60;

fn from_the_beginning(channel: &ChannelId) -> Connect {
    Connect {
        resume: [(channel.clone(), Cursor::After(0, 0))].into(),
        ..Connect::default()
    }
}

impl World {
    /// Opens connections of a user, then sends all connects together. Returns the sessions
    /// and the hints of rejected connects.
    async fn is_stormed_by(
        &self,
        name: &str,
        count: usize,
        channel: &ChannelId,
    ) -> (usize, Vec<Duration>) {
        let token = self.token(name).await;
        let request = json!({ "token": token, "resume": { (channel.as_str()): [0, 0] } });
        let request = encode_request(Encoding::MessagePack, 1, "connect", &request);
        let mut all = join_all((0..count).map(|_| self.opens(Encoding::MessagePack))).await;
        join_all(
            all.iter_mut()
                .map(|one| one.says(Frame::of(Encoding::MessagePack, request.clone()))),
        )
        .await;
        let answers = join_all(all.iter_mut().map(async |one| {
            let reply = one.receives_reply().await;
            match reply.get("error") {
                None => None,
                Some(error) if error["code"] == "unavailable" => None,
                Some(error) => {
                    assert_eq!(error["code"], "rate_limited", "{error}");
                    let closed = one.ends().await;
                    assert_eq!(closed.code, Some(4012), "{closed}");
                    let hint = closed.retry_after().expect("a hint in the close frame");
                    assert_eq!(
                        error["retry_after_ms"].as_u64().map(Duration::from_millis),
                        Some(hint),
                        "the reply says the same"
                    );
                    Some(hint)
                }
            }
        }))
        .await;
        let hints: Vec<Duration> = answers.into_iter().flatten().collect();
        (count - hints.len(), hints)
    }

    /// Retries a connect after each hint until it succeeds.
    async fn comes_after(&self, mut hint: Duration, params: &Connect, name: &str) -> Person {
        let connector = Connector::new(&self.url(0), Encoding::MessagePack).unwrap();
        let deadline = tokio::time::Instant::now() + 2 * TIMEOUT;
        loop {
            tokio::time::sleep(hint).await;
            match connector.connect(params).await {
                Ok((session, events)) => {
                    return Person {
                        name: name.parse().unwrap(),
                        session,
                        events,
                        heard: Vec::new(),
                    };
                }
                Err(ConnectError::Refused { closed, .. } | ConnectError::Closed(closed))
                    if closed.code == Some(4012) =>
                {
                    hint = closed.retry_after().unwrap_or(Duration::from_millis(500));
                }
                Err(error) => panic!("{name}: {error}"),
            }
            assert!(
                tokio::time::Instant::now() < deadline,
                "{name} came in vain"
            );
        }
    }
}

on_both_stores! {
    async fn reader_that_stalls_in_its_replay_delays_no_other_connect(world: Gated) {
        let world = world.0;
        let general = world.channel("group", "general", &["alice", "bob"]).await;
        let alice = world.connects("alice").await;
// More than socket buffers and half an outbox hold.
        let text = "x".repeat(16_000);
        for _ in 0..60 {
            let body = SendMessage { text: Some(text.clone()), ..Default::default() };
            alice.session.call::<MessageSend>(&general, &body).await.unwrap();
        }
        let params = Connect { token: world.token("bob").await, ..from_the_beginning(&general) };
        let mut stalled = Vec::new();
        for _ in 0..4 {
            let connector = Connector::new(&world.url(0), Encoding::MessagePack).unwrap().receive_buffer(4096).event_queue(1);
            let (session, events) = connector.connect(&params).await.unwrap();
            session.pause_reading();
            stalled.push((session, events));
        }
        until("the gate is free", || async { world.metric(0, "chaos_connects_under_way").await == 0.0 }).await;
        world.connects("bob").await;
    }
}

// On the embedded store, a connect is served in one step of one thread, so that connects hardly
// ever wait.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rejected_connects_get_a_hint_and_succeed_later_while_sessions_are_served() {
    let Gated(world) = Gated::on(StoreKind::Redis).await;
    let general = world
        .channel("group", "general", &["alice", "bob", "carol"])
        .await;
    let Person {
        session: alice,
        events,
        ..
    } = world.connects("alice").await;
    // Dropped, since a session is served only while its events are read.
    drop(events);
    let says = async |text: String| {
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
    };
    let mut carol = world.connects("carol").await;
    for count in 0..100 {
        says(format!("before {count}")).await;
        carol.sees(&format!("before {count}")).await;
    }
    let (is_over, over) = tokio::sync::oneshot::channel::<()>();
    let chat = async {
        let mut over = over;
        let mut count = 0;
        while over.try_recv().is_err() {
            says(format!("meanwhile {count}")).await;
            carol.sees(&format!("meanwhile {count}")).await;
            count += 1;
        }
        count
    };
    let storm = async {
        let (admitted, hints) = world.is_stormed_by("bob", STORM, &general).await;
        assert!(
            admitted >= 5,
            "as many as have a place, and as many as may wait: {admitted}"
        );
        assert!(!hints.is_empty(), "{STORM} are more than 5");
        assert!(hints.iter().all(|hint| *hint >= Duration::from_millis(500)));
        assert!(
            hints.iter().collect::<BTreeSet<_>>().len() > hints.len() / 2,
            "they do not come again together: {hints:?}"
        );
        let turned_away = world.metric(0, "chaos_connects_turned_away_total").await;
        assert_eq!(turned_away, hints.len() as f64);
        assert_eq!(
            world
                .metric(0, r#"chaos_limits_hit_total{limit="connects_waiting"}"#)
                .await,
            turned_away
        );
        let params = Connect {
            token: world.token("bob").await,
            ..from_the_beginning(&general)
        };
        let all = join_all(
            hints
                .into_iter()
                .map(|hint| world.comes_after(hint, &params, "bob")),
        )
        .await;
        for mut bob in all {
            let created = bob.sees("before 0").await;
            assert_eq!(created.number, 1, "what was missed is told to each");
        }
        is_over.send(()).unwrap();
    };
    let (chatted, ()) = tokio::join!(chat, storm);
    assert!(chatted > 10, "{chatted}");
    until("nobody is at the gate", || async {
        world.metric(0, "chaos_connects_under_way").await == 0.0
            && world.metric(0, "chaos_connects_waiting").await == 0.0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_store_hangs_a_bounded_number_of_connects_wait_and_all_succeed_afterwards() {
    const COUNT: usize = 20;
    let Gated(world) = Gated::on(StoreKind::Redis).await;
    let general = world.channel("group", "general", &["alice", "bob"]).await;
    let alice = world.connects("alice").await;
    let StoreProcess::Redis(server, _) = &world.store_process else {
        unreachable!()
    };
    let params = Connect {
        token: world.token("bob").await,
        ..from_the_beginning(&general)
    };
    let connector = Connector::new(&world.url(0), Encoding::MessagePack).unwrap();
    server.stop();
    let waiting = join_all((0..COUNT).map(|_| connector.connect(&params)));
    let (answers, ()) = tokio::join!(waiting, async {
        until("the others are turned away", || async {
            let turned_away = world.metric(0, "chaos_connects_turned_away_total").await;
            assert!(turned_away <= COUNT as f64 - 2.0);
            turned_away >= COUNT as f64 - 5.0
        })
        .await;
        alice.session.call::<Ping>((), ()).await.unwrap();
        server.cont();
    });
    let mut again = Vec::new();
    for answer in answers {
        match answer {
            Ok(_) => {}
            Err(ConnectError::Refused { closed, .. }) => {
                assert_eq!(closed.code, Some(4012));
                again.push(closed.retry_after().unwrap_or(Duration::from_millis(500)));
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert!(again.len() >= COUNT - 5, "{again:?}");
    join_all(
        again
            .into_iter()
            .map(|hint| world.comes_after(hint, &params, "bob")),
    )
    .await;
    let _: Value = alice.session.request("ping", &json!({})).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn app_that_fills_the_queue_does_not_block_other_apps() {
    let Gated(world) = Gated::on(StoreKind::Redis).await;
    world.people(&["alice"]).await;
    let loud = Connect {
        token: world.token("alice").await,
        ..Connect::default()
    };
    let (_, key) = world.make_app("live").await;
    let team = world.backend(&key);
    let _: Value = team.put("/v1/users/bob", &json!({})).await.unwrap();
    let token: Token = team.post("/v1/users/bob/tokens", &json!({})).await.unwrap();
    let quiet = Connect {
        token: token.token,
        ..Connect::default()
    };
    let connector = Connector::new(&world.url(0), Encoding::MessagePack).unwrap();
    let StoreProcess::Redis(server, _) = &world.store_process else {
        unreachable!()
    };
    // The node knows both token keys.
    let _held = (
        connector.connect(&loud).await,
        connector.connect(&quiet).await,
    );
    server.stop();
    let waiting = |count: f64| {
        let world = &world;
        async move { world.metric(0, "chaos_connects_waiting").await == count }
    };
    let crowd = join_all((0..5).map(|_| connector.connect(&loud)));
    let comes = async {
        until("the queue is full", || waiting(3.0)).await;
        let answer = connector.connect(&quiet);
        let goes_on = async {
            until("the other app gives a place away", || async {
                world.metric(0, "chaos_connects_turned_away_total").await == 1.0
            })
            .await;
            server.cont();
        };
        tokio::join!(answer, goes_on).0
    };
    let (crowd, answer) = tokio::join!(crowd, comes);
    answer.map(drop).expect("the quiet app has its turn");
    let refused: Vec<_> = crowd.into_iter().filter_map(Result::err).collect();
    let [ConnectError::Refused { error, closed }] = &refused[..] else {
        panic!("{refused:?}");
    };
    assert_eq!(
        (error.code, closed.code),
        (ErrorCode::RateLimited, Some(4012))
    );
    assert!(closed.retry_after() >= Some(Duration::from_millis(500)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connects_that_find_the_queue_full_count_against_their_address() {
    let limits = [
        "connects_at_once=1",
        "connects_waiting=1",
        "unauthenticated_per_ip=1",
    ];
    let flags = limits.map(|limit| ["--limit", limit]).concat();
    let flags = [&flags[..], &["--trusted-proxies", "127.0.0.1/32"]].concat();
    let world = World::with(StoreKind::Redis, 1, &flags).await;
    world.people(&["alice"]).await;
    let params = Connect {
        token: world.token("alice").await,
        ..Connect::default()
    };
    let from = |address: &'static str| {
        let forwarded = HeaderName::from_static("x-forwarded-for");
        Connector::new(&world.url(0), Encoding::MessagePack)
            .unwrap()
            .header(forwarded, HeaderValue::from_static(address))
    };
    let is_limited = async |address| {
        let connector = from(address);
        matches!(
            connector.connect(&params).await,
            Err(ConnectError::Upgrade { status: 429, .. })
        )
    };
    let StoreProcess::Redis(server, _) = &world.store_process else {
        unreachable!()
    };
    let _held = from("203.0.113.1").connect(&params).await.unwrap();
    server.stop();
    let patient = from("203.0.113.2");
    let patient = join_all((0..2).map(|_| patient.connect(&params)));
    let others = async {
        until("the queue is full", || async {
            world.metric(0, "chaos_connects_waiting").await == 1.0
        })
        .await;
        // More than the burst of two, in case a second passes.
        until("whoever repeats it is refused", || {
            is_limited("203.0.113.3")
        })
        .await;
        assert!(world.metric(0, "chaos_connects_turned_away_total").await >= 2.0);
        server.cont();
    };
    tokio::join!(patient, others);
}
