//! Limits on connections and on whoever has not said who it is.

use axum::http::{HeaderName, HeaderValue, Method as Verb};
use client::{ConnectError, Connector};
use protocol::{Encoding, ErrorCode, Method, params::Connect};
use serde_json::{Value, json};

use crate::story::{Ground, World, refusal, until};

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
    async fn on(ground: Ground) -> Self {
        Self(World::with(ground, 1, &["--limit", "connections_per_user=2"]).await)
    }
}

/// A world with room for three sessions of an app.
struct ThreePerApp(World);

impl ThreePerApp {
    async fn on(ground: Ground) -> Self {
        Self(World::with(ground, 1, &["--limit", "connections_per_app=3"]).await)
    }
}

/// A world with room for three connections.
struct Three(World);

impl Three {
    async fn on(ground: Ground) -> Self {
        Self(World::with(ground, 1, &["--limit", "connections=3"]).await)
    }
}

/// A world behind a proxy that believes few mistakes.
struct Wary(World);

impl Wary {
    async fn on(ground: Ground) -> Self {
        Self(
            World::with(
                ground,
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

/// A world in which an app is slow.
struct Slow(World);

impl Slow {
    async fn on(ground: Ground) -> Self {
        Self(World::with(ground, 1, &["--limit", "app_requests_per_second=20"]).await)
    }
}

on_both_stores! {
    async fn a_user_has_so_many_connections(world: TwoPerUser) {
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
        second.session.ping().await.unwrap();
    }

    async fn an_app_has_so_many_connections(world: ThreePerApp) {
        let world = world.0;
        world.people(&["a", "b", "c", "d"]).await;
        let _held = [world.connects("a").await, world.connects("b").await, world.connects("c").await];
        assert_eq!(turned_away(&world, &world.token("d").await).await.0, 4012);
        // Another environment is another world.
        let test_key = world.make_app_key(&world.app, "test").await;
        let team = world.backend(&test_key);
        let _: Value = team.put("/v1/users/d", &json!({})).await.unwrap();
        let token: protocol::results::Token = team.post("/v1/users/d/tokens", &json!({})).await.unwrap();
        let connector = Connector::new(&world.url(0), Encoding::MessagePack).unwrap();
        connector.connect(&Connect { token: token.token, ..Connect::default() }).await.unwrap();
    }

    async fn a_node_has_so_many_connections(world: Three) {
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

    async fn an_address_has_so_many_attempts_without_a_valid_credential(world: Wary) {
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
            let call = wrong.call(Verb::GET, "/v1/channels").header(HeaderName::from_static("x-forwarded-for"), "203.0.113.9");
            statuses.push(call.send().await.unwrap().status.as_u16());
        }
        assert_eq!((statuses[0], statuses.iter().filter(|s| ![401, 429].contains(s)).count()), (401, 0));
        assert!(statuses.contains(&429), "{statuses:?}");
        assert!(world.team().get::<Value>("/v1/users/alice").await.is_ok(), "a good credential is none of them");
    }

    async fn an_app_has_so_many_requests(world: Slow) {
        let world = world.0;
        let general = world.channel("group", "general", &["alice"]).await;
        let alice = world.connects("alice").await;
        let mut refused = None;
        for _ in 0..100 {
            if let Err(error) = alice.session.ping().await {
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
        until("it goes on after a while", || async { alice.session.request::<_, Value>(Method::Ping, &json!({})).await.is_ok() }).await;
    }
}
