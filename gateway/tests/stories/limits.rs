//! Limits on connections and on unauthenticated clients.

use axum::http::{HeaderName, HeaderValue, Method as Verb};
use client::{ConnectError, Connector};
use domain::credential::token::sign;
use protocol::{
    Encoding, ErrorCode, TokenKeyId,
    operation::session::{Connect, Ping},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::story::{StoreKind, World, refusal, until};

async fn turned_away(world: &World, token: &str) -> (u16, Option<std::time::Duration>) {
    let connector = Connector::new(&world.url(0), Encoding::MessagePack).unwrap();
    match connector
        .connect(&Connect {
            token: token.to_owned(),
            ..Connect::default()
        })
        .await
    {
        Err(ConnectError::Refused { closed, .. } | ConnectError::Closed(closed)) => {
            (closed.code.unwrap_or(0), closed.retry_after())
        }
        other => panic!("{other:?} was not turned away"),
    }
}

/// A world with room for two sessions of a user.
struct TwoPerUser(World);

impl TwoPerUser {
    async fn on(store_kind: StoreKind) -> Self {
        Self(World::with(store_kind, 1, &["--limit", "connections_per_user=2"]).await)
    }
}

/// A world with room for three sessions of an app.
struct ThreePerApp(World);

impl ThreePerApp {
    async fn on(store_kind: StoreKind) -> Self {
        Self(World::with(store_kind, 1, &["--limit", "connections_per_app=3"]).await)
    }
}

/// A world with room for three connections.
struct Three(World);

impl Three {
    async fn on(store_kind: StoreKind) -> Self {
        Self(World::with(store_kind, 1, &["--limit", "connections=3"]).await)
    }
}

/// A world behind a proxy, with few failed attempts per address.
struct Strict(World);

impl Strict {
    async fn on(store_kind: StoreKind) -> Self {
        Self(
            World::with(
                store_kind,
                1,
                &[
                    "--limit",
                    "unauthenticated_per_ip=3",
                    "--trusted-proxies",
                    "127.0.0.1/32",
                ],
            )
            .await,
        )
    }
}

/// The same with room for one session of a user.
struct StrictOnePerUser(World);

impl StrictOnePerUser {
    async fn on(store_kind: StoreKind) -> Self {
        let limits = [
            "--limit",
            "unauthenticated_per_ip=3",
            "--limit",
            "connections_per_user=1",
        ];
        let flags = [&limits[..], &["--trusted-proxies", "127.0.0.1/32"]].concat();
        Self(World::with(store_kind, 1, &flags).await)
    }
}

/// The same with room for one session of the node.
struct WaryOneInAll(World);

impl WaryOneInAll {
    async fn on(store_kind: StoreKind) -> Self {
        let limits = [
            "--limit",
            "unauthenticated_per_ip=3",
            "--limit",
            "connections=1",
        ];
        let flags = [&limits[..], &["--trusted-proxies", "127.0.0.1/32"]].concat();
        Self(World::with(store_kind, 1, &flags).await)
    }
}

/// A world with room for one session of a user, and a low rate.
struct SlowOnePerUser(World);

impl SlowOnePerUser {
    async fn on(store_kind: StoreKind) -> Self {
        let limits = [
            "unauthenticated_per_ip=0",
            "connections_per_user=1",
            "requests_per_second=5",
        ];
        Self(
            World::with(
                store_kind,
                1,
                &limits.map(|limit| ["--limit", limit]).concat(),
            )
            .await,
        )
    }
}

/// A world with few sockets: 14 for sessions, 2 reserved for HTTP.
struct FewSockets(World);

impl FewSockets {
    async fn on(store_kind: StoreKind) -> Self {
        Self(World::with(store_kind, 1, &["--limit", "sockets=16"]).await)
    }
}

/// A world with a low rate for an app.
struct Slow(World);

impl Slow {
    async fn on(store_kind: StoreKind) -> Self {
        Self(World::with(store_kind, 1, &["--limit", "app_requests_per_second=20"]).await)
    }
}

on_both_stores! {
    async fn connections_of_a_user_are_limited(world: TwoPerUser) {
        let world = world.0;
        world.people(&["alice", "bob"]).await;
        let token = world.token("alice").await;
        let (first, second) = (world.connects("alice").await, world.connects("alice").await);
        let (code, retry_after) = turned_away(&world, &token).await;
        assert!(code == 4012 && retry_after.is_some(), "{code} {retry_after:?}");
        world.connects("bob").await;
        drop(first);
        let connector = Connector::new(&world.url(0), Encoding::MessagePack).unwrap();
        let params = Connect { token, ..Connect::default() };
        until("there is room again", || async { connector.connect(&params).await.is_ok() }).await;
        second.session.call::<Ping>((), ()).await.unwrap();
    }

    async fn connections_of_an_app_are_limited(world: ThreePerApp) {
        let world = world.0;
        world.people(&["a", "b", "c", "d"]).await;
        let _held = [world.connects("a").await, world.connects("b").await, world.connects("c").await];
        assert_eq!(turned_away(&world, &world.token("d").await).await.0, 4012);
// Another environment has its own limit.
        let test_key = world.make_app_key(&world.app, "test").await;
        let team = world.backend(&test_key);
        let _: Value = team.put("/v1/users/d", &json!({})).await.unwrap();
        let token: protocol::operation::user::Token = team.post("/v1/users/d/tokens", &json!({})).await.unwrap();
        let connector = Connector::new(&world.url(0), Encoding::MessagePack).unwrap();
        connector.connect(&Connect { token: token.token, ..Connect::default() }).await.unwrap();
    }

    async fn connections_of_a_node_are_limited(world: Three) {
        let world = world.0;
        world.people(&["a", "b", "c", "d"]).await;
        let held = [world.connects("a").await, world.connects("b").await, world.connects("c").await];
        let token = world.token("d").await;
        assert_eq!(turned_away(&world, &token).await.0, 4012);
        assert!(world.team().get::<Value>("/v1/users/a").await.is_ok(), "requests over HTTP are none of them");
        drop(held);
        let connector = Connector::new(&world.url(0), Encoding::MessagePack).unwrap();
        let params = Connect { token, ..Connect::default() };
        until("there is room again", || async { connector.connect(&params).await.is_ok() }).await;
    }

    async fn failed_attempts_of_an_address_are_limited(world: Strict) {
        let world = world.0;
        world.people(&["alice"]).await;
        let token = world.token("alice").await;
        let from = |address: &str| {
            let forwarded = HeaderName::from_static("x-forwarded-for");
            Connector::new(&world.url(0), Encoding::Json).unwrap().header(forwarded, HeaderValue::from_str(address).unwrap())
        };
        let bad = Connect { token: "nonsense".into(), ..Connect::default() };
        let good = Connect { token: token.clone(), ..Connect::default() };
        let mut refused = None;
        for _ in 0..40 {
            match from("203.0.113.7").connect(&bad).await {
                Err(ConnectError::Refused { error, closed }) => assert_eq!((error.code, closed.code), (ErrorCode::Unauthenticated, Some(4002))),
                Err(ConnectError::Upgrade { status, body }) => {
                    refused = Some((status, body));
                    break;
                }
                other => panic!("{other:?}"),
            }
        }
        let (status, body) = refused.expect("the address meets its limit");
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!((status, &body["error"]["code"]), (429, &json!("rate_limited")));
        assert!(body["error"]["retry_after_ms"].is_u64());
        from("203.0.113.8").connect(&good).await.unwrap();

        let (mut statuses, wrong) = (Vec::new(), world.backend("sk_live_wrong"));
        for _ in 0..40 {
            let call = wrong.request(Verb::GET, "/v1/channels").header(HeaderName::from_static("x-forwarded-for"), "203.0.113.9");
            statuses.push(call.send().await.unwrap().status.as_u16());
        }
        assert_eq!((statuses[0], statuses.iter().filter(|s| ![401, 429].contains(s)).count()), (401, 0));
        assert!(statuses.contains(&429), "{statuses:?}");
        assert!(world.team().get::<Value>("/v1/users/alice").await.is_ok(), "a good credential is none of them");
    }

    async fn guessed_token_keys_beyond_the_limit_of_their_address_are_not_looked_up(world: Strict) {
        let world = world.0;
        let guess = |index: u64| {
            let forwarded = HeaderName::from_static("x-forwarded-for");
            let from = Connector::new(&world.url(0), Encoding::Json).unwrap().header(forwarded, HeaderValue::from_static("203.0.113.7"));
            async move {
                let token = sign(&TokenKeyId::from_bits(index), b"guess", &"alice".parse().unwrap(), 1, 2);
                from.connect(&Connect { token, ..Connect::default() }).await
            }
        };
        // All of them are upgraded before the first of them is refused.
        let answers = futures_util::future::join_all((0..25).map(guess)).await;
        let code = |answer: &Result<_, ConnectError>| match answer {
            Err(ConnectError::Refused { error, closed }) => (error.code, closed.code.unwrap_or(0), closed.retry_after().is_some()),
            Err(ConnectError::Upgrade { status: 429, .. }) => (ErrorCode::RateLimited, 4012, true),
            other => panic!("{:?}", other.as_ref().err()),
        };
        let codes: Vec<_> = answers.iter().map(code).collect();
        let looked_up = codes.iter().filter(|code| **code == (ErrorCode::Unauthenticated, 4002, false)).count();
        let limited = codes.iter().filter(|code| **code == (ErrorCode::RateLimited, 4012, true)).count();
        assert_eq!(looked_up + limited, 25, "{codes:?}");
        assert!((1..=12).contains(&looked_up), "{looked_up} for a burst of 6");
    }

    async fn requests_of_an_app_are_limited(world: Slow) {
        let world = world.0;
        let general = world.channel("group", "general", &["alice"]).await;
        let alice = world.connects("alice").await;
        let mut refused = None;
        for _ in 0..100 {
            if let Err(error) = alice.session.call::<Ping>((), ()).await {
                refused = error.refusal().cloned();
                break;
            }
        }
        assert_eq!(refused.expect("the app meets its limit").code, ErrorCode::RateLimited);
        let mut answers = Vec::new();
        for _ in 0..60 {
            answers.push(world.team().get::<Value>(&format!("/v1/channels/{general}")).await);
        }
        let refused = answers.into_iter().find(Result::is_err).expect("the backend meets it too");
        assert_eq!(refusal(refused), (429, ErrorCode::RateLimited));
        until("it goes on after a while", || async { alice.session.request::<_, Value>("ping", &json!({})).await.is_ok() }).await;
    }

    async fn connects_beyond_a_limit_count_against_their_address(world: StrictOnePerUser) {
        let world = world.0;
        world.people(&["alice"]).await;
        let _held = world.connects("alice").await;
        let params = Connect { token: world.token("alice").await, ..Connect::default() };
        let from = |address: &str| {
            let forwarded = HeaderName::from_static("x-forwarded-for");
            Connector::new(&world.url(0), Encoding::Json).unwrap().header(forwarded, HeaderValue::from_str(address).unwrap())
        };
        let mut is_limited = false;
        for _ in 0..40 {
            match from("203.0.113.7").connect(&params).await {
                Err(ConnectError::Refused { error, closed }) => assert_eq!((error.code, closed.code), (ErrorCode::LimitReached, Some(4012))),
                Err(ConnectError::Upgrade { status: 429, .. }) => {
                    is_limited = true;
                    break;
                }
                other => panic!("{other:?}"),
            }
        }
        assert!(is_limited, "the address meets its limit");
        assert!(matches!(from("203.0.113.8").connect(&params).await, Err(ConnectError::Refused { .. })), "another address is asked");
    }

    async fn connections_beyond_those_of_the_node_count_against_their_address(world: WaryOneInAll) {
        let world = world.0;
        world.people(&["alice"]).await;
        let _held = world.connects("alice").await;
        let forwarded = HeaderName::from_static("x-forwarded-for");
        let connector = Connector::new(&world.url(0), Encoding::Json).unwrap().header(forwarded, HeaderValue::from_static("203.0.113.7"));
        let is_limited = async || match connector.open().await {
            Ok(mut socket) => {
                assert_eq!(socket.receive().await.unwrap_err().code, Some(4012));
                false
            }
            Err(ConnectError::Upgrade { status, .. }) => status == 429,
            Err(other) => panic!("{other:?}"),
        };
        until("the address meets its limit", is_limited).await;
    }

    async fn connects_beyond_a_limit_take_tokens_of_their_user(world: SlowOnePerUser) {
        let world = world.0;
        world.people(&["alice", "bob"]).await;
        let _held = world.connects("alice").await;
        let params = Connect { token: world.token("alice").await, ..Connect::default() };
        let mut codes = Vec::new();
        while codes.len() < 60 && codes.last() != Some(&ErrorCode::RateLimited) {
            let (code, closed) = world.is_refused(&params).await;
            assert_eq!(closed, 4012);
            codes.push(code);
        }
        assert_eq!((codes.first(), codes.last()), (Some(&ErrorCode::LimitReached), Some(&ErrorCode::RateLimited)), "{}", codes.len());
        world.connects("bob").await;
    }

    async fn refused_connection_holds_no_socket_while_sockets_are_scarce(world: FewSockets) {
        let world = world.0;
        world.people(&["alice"]).await;
        let connector = Connector::new(&world.url(0), Encoding::MessagePack).unwrap();
        let params = Connect { token: world.token("alice").await, ..Connect::default() };
        let mut sessions = Vec::new();
        for _ in 0..14 {
            sessions.push(connector.connect(&params).await.unwrap());
        }
    // Their peers keep them open.
        let mut refused = Vec::new();
        for _ in 0..8 {
            let mut socket = connector.open().await.unwrap();
            assert_eq!(socket.receive().await.unwrap_err().code, Some(4012));
            refused.push(socket);
        }
        assert_eq!(world.readiness(0).await, 200);
    }

    async fn request_with_two_hosts_or_origins_is_refused(world: World) {
        let twice = ["Host: one.example\r\nHost: two.example", "Host: one.example\r\nOrigin: http://localhost\r\nOrigin: http://localhost:1"];
        let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n";
        for headers in twice {
            for (path, more) in [("/v1/openapi.json", "Connection: close\r\n"), ("/v1/ws", upgrade)] {
                let mut stream = TcpStream::connect(world.nodes[0].address).await.unwrap();
                stream.write_all(format!("GET {path} HTTP/1.1\r\n{headers}\r\n{more}\r\n").as_bytes()).await.unwrap();
                let mut answer = [0; 12];
                stream.read_exact(&mut answer).await.unwrap();
                assert_eq!(str::from_utf8(&answer).unwrap(), "HTTP/1.1 400", "{path} with {headers}");
            }
        }
    }
}
