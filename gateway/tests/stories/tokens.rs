//! Tokens: validity, refresh by a session, and revocations that end
//! sessions.

use std::time::{Duration, Instant};

use domain::credential::token;
use protocol::{
    Encoding, ErrorCode,
    entity::TokenKey,
    operation::{
        session::{Connect, Ping},
        user::{Disconnected, Token},
    },
};
use serde_json::{Value, json};

use crate::story::{Person, StoreKind, World, has_exactly, refusal, until};

/// Returns the time in seconds.
fn now() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

fn with(token: impl Into<String>) -> Connect {
    Connect {
        token: token.into(),
        ..Connect::default()
    }
}

impl World {
    async fn token_key(&self) -> TokenKey {
        let path = format!(
            "/v1/organizations/{}/apps/{}/token-keys",
            self.organization, self.app
        );
        self.backend(&self.organization_key)
            .post(
                &path,
                &json!({ "environment": "live", "algorithm": "HS256" }),
            )
            .await
            .unwrap()
    }

    /// Checks that a revoked key is refused everywhere within five seconds, and that sessions
    /// opened meanwhile end.
    async fn is_soon_refused(&self, token: &str) {
        let began = Instant::now();
        loop {
            let connector = client::Connector::new(&self.url(0), Encoding::MessagePack).unwrap();
            match connector.connect(&with(token)).await {
                Ok((session, events)) => {
                    let mut person = Person {
                        name: session.connected().user.id.clone(),
                        session,
                        events,
                        heard: Vec::new(),
                    };
                    assert_eq!(person.is_closed().await, 4004);
                }
                // Stays below the connect rate of a user.
                Err(client::ConnectError::Refused { error, .. })
                    if error.code == ErrorCode::RateLimited =>
                {
                    tokio::time::sleep(Duration::from_millis(error.retry_after_ms.unwrap())).await;
                }
                Err(client::ConnectError::Refused { error, closed }) => {
                    assert_eq!(
                        (error.code, closed.code),
                        (ErrorCode::Unauthenticated, Some(4002))
                    );
                    break;
                }
                Err(other) => panic!("{other}"),
            }
            assert!(began.elapsed() < Duration::from_secs(5));
        }
    }

    async fn token_for(&self, name: &str, seconds: u64) -> String {
        let token: Token = self
            .team()
            .post(
                &format!("/v1/users/{name}/tokens"),
                &json!({ "expires_in": seconds }),
            )
            .await
            .unwrap();
        token.token
    }
}

fn signed(key: &TokenKey, user: &str, issued_at: u64, expires_at: u64) -> String {
    token::sign(
        &key.id,
        key.secret.as_ref().unwrap().as_bytes(),
        &user.parse().unwrap(),
        issued_at,
        expires_at,
    )
}

/// A world without a limit on failed attempts.
struct Patient(World);

impl Patient {
    async fn on(store_kind: StoreKind) -> Self {
        Self(World::with(store_kind, 1, &["--limit", "unauthenticated_per_ip=0"]).await)
    }
}

on_both_stores! {
    async fn connect_takes_a_good_token_and_names_why_it_refuses_another(world: Patient) {
        let world = world.0;
        world.people(&["alice"]).await;
        let key = world.token_key().await;
        let good = signed(&key, "alice", now(), now() + 60);
        let alice = world.connects_with(0, &good).await;
        assert_eq!(alice.connected().user.id.as_str(), "alice");
        let newcomer = world.connects_with(0, &signed(&key, "newcomer", now(), now() + 60)).await;
        assert_eq!(newcomer.connected().user.id.as_str(), "newcomer", "an unknown `sub` becomes a user");
        world.connects_with(0, &signed(&key, "alice", now() - 80, now() - 20)).await;

        let expired = signed(&key, "alice", now() - 100, now() - 40);
        assert_eq!(world.is_refused(&with(expired)).await, (ErrorCode::Unauthenticated, 4003));
        let mut forged = good.clone();
        forged.replace_range(good.len() - 4.., "AAAA");
        for refused in [
            String::new(),
            "nonsense".to_owned(),
            forged,
            world.app_key.clone(),
            signed(&key, "alice", now(), now() + 86_401),
            signed(&key, "alice", now() + 90, now() + 120),
            signed(&TokenKey { id: "tk_00000000000000ff".parse().unwrap(), ..key.clone() }, "alice", now(), now() + 60),
        ] {
            assert_eq!(world.is_refused(&with(refused.clone())).await, (ErrorCode::Unauthenticated, 4002), "{refused}");
        }
    }

    async fn a_session_refreshes_its_token_for_the_same_user_alone(world: World) {
        world.people(&["alice", "bob"]).await;
        let general = world.channel("group", "general", &["alice", "bob"]).await;
        let mut alice = world.connects_with(0, &world.token_for("alice", 2).await).await;
        let key = world.token_key().await;
        let new: Token = world.team().post("/v1/users/alice/tokens", &json!({ "expires_in": 3600 })).await.unwrap();
        let refreshed = alice.asks("token.refresh", json!({ "token": new.token })).await;
        has_exactly(&refreshed, "expires_at");
        assert_eq!(refreshed["expires_at"], new.expires_at);
        for (token, code) in [
            (world.token("bob").await, ErrorCode::Forbidden),
            ("nonsense".to_owned(), ErrorCode::Unauthenticated),
            (signed(&key, "alice", now() - 100, now() - 40), ErrorCode::Unauthenticated),
        ] {
            assert_eq!(alice.is_refused("token.refresh", json!({ "token": token })).await, code);
        }
// The old token has expired, and the session continues with the new one.
        let over = Instant::now() + Duration::from_secs(3);
        until("the old token is over", || async { Instant::now() > over }).await;
        alice.sends(&general, "still here").await;
        alice.sees("still here").await;
    }

    async fn an_expired_token_ends_its_session_with_4003(world: World) {
        world.people(&["alice", "bob"]).await;
        let mut short = world.connects_with(0, &world.token_for("alice", 5).await).await;
        let mut shortened = world.connects("bob").await;
        let key = world.token_key().await;
        let answer = shortened.asks("token.refresh", json!({ "token": signed(&key, "bob", now(), now() + 5) })).await;
        assert!(answer["expires_at"].as_u64().unwrap() <= (now() + 5) * 1000);
        assert_eq!(short.is_closed().await, 4003);
        assert_eq!(shortened.is_closed().await, 4003, "a shorter token counts too");
    }

    async fn client_is_warned_sixty_seconds_before_its_token_expires(world: World) {
        world.people(&["alice"]).await;
        let token: Token = world.team().post("/v1/users/alice/tokens", &json!({ "expires_in": 62 })).await.unwrap();
        let mut alice = world.connects_with(0, &token.token).await;
        let event = alice.receives_raw("token.expiring").await;
        has_exactly(&event, "event data");
        assert_eq!(event["data"], json!({ "expires_at": token.expires_at }));
        let left = token.expires_at.saturating_sub(alice.session.call::<Ping>((), ()).await.unwrap().at);
        assert!((55_000..=60_500).contains(&left), "{left} ms before");
        alice.receives_nothing().await;
    }

    async fn disconnected_user_can_reconnect_at_once_unless_revoked(world: Patient) {
        let world = world.0;
        world.people(&["alice", "bob"]).await;
        let token = world.token("alice").await;
        let mut sessions = [world.connects_with(0, &token).await, world.connects_with(0, &token).await];
        let mut bob = world.connects("bob").await;
        let path = "/v1/users/alice/disconnect";
        let _: Value = world.team().post(path, &json!({})).await.unwrap();
        for session in &mut sessions {
            assert_eq!(session.is_closed().await, 1001);
        }
        let mut again = world.connects_with(0, &token).await;
        let began = Instant::now();
        let answer: Value = world.team().post(path, &json!({ "revoke": true })).await.unwrap();
        has_exactly(&answer, "sessions");
        assert_eq!(again.is_closed().await, 4004);
        assert!(began.elapsed() < Duration::from_secs(5));
        assert_eq!(world.is_refused(&with(token.clone())).await, (ErrorCode::Unauthenticated, 4002));
        assert_eq!(refusal(world.backend(&token).get::<Value>("/v1/users/alice").await), (401, ErrorCode::Unauthenticated));
        world.connects("alice").await.session.call::<Ping>((), ()).await.unwrap();
        bob.receives_nothing().await;
        assert_eq!(refusal(world.team().post::<Value>("/v1/users/nobody/disconnect", &json!({})).await), (404, ErrorCode::NotFound));
    }

    async fn a_revoked_token_key_ends_the_sessions_that_it_opened(world: Patient) {
        let world = world.0;
        world.people(&["alice"]).await;
        let key = world.token_key().await;
        let token = signed(&key, "alice", now(), now() + 600);
        let mut by_key = world.connects_with(0, &token).await;
        let mut by_backend = world.connects("alice").await;
        let path = format!("/v1/organizations/{}/apps/{}/token-keys/{}", world.organization, world.app, key.id);
        world.backend(&world.organization_key).delete::<()>(&path).await.unwrap();
        assert_eq!(by_key.is_closed().await, 4004);
        world.is_soon_refused(&token).await;
        by_backend.receives_nothing().await;
        by_backend.session.call::<Ping>((), ()).await.unwrap();
    }

    async fn refreshed_session_ends_with_the_key_of_its_new_token(world: Patient) {
        let world = world.0;
        world.people(&["alice"]).await;
        let (old, new) = (world.token_key().await, world.token_key().await);
        let mut alice = world.connects_with(0, &signed(&old, "alice", now(), now() + 600)).await;
        alice.asks("token.refresh", json!({ "token": signed(&new, "alice", now(), now() + 600) })).await;
        let path = |id: &dyn std::fmt::Display| format!("/v1/organizations/{}/apps/{}/token-keys/{id}", world.organization, world.app);
        world.backend(&world.organization_key).delete::<()>(&path(&old.id)).await.unwrap();
        alice.receives_nothing().await;
        alice.session.call::<Ping>((), ()).await.unwrap();
        world.backend(&world.organization_key).delete::<()>(&path(&new.id)).await.unwrap();
        assert_eq!(alice.is_closed().await, 4004);
    }

    async fn a_deleted_user_is_gone_for_good(world: Patient) {
        let world = world.0;
        let general = world.channel("group", "general", &["alice", "bob"]).await;
        let token = world.token("bob").await;
        let (mut alice, mut bob) = (world.connects("alice").await, world.connects_with(0, &token).await);
        world.team().delete::<()>("/v1/users/bob").await.unwrap();
        assert_eq!(bob.is_closed().await, 4004);
        assert_eq!(world.is_refused(&with(token)).await, (ErrorCode::Unauthenticated, 4002));
        let key = world.token_key().await;
        assert_eq!(world.is_refused(&with(signed(&key, "bob", now(), now() + 60))).await, (ErrorCode::Unauthenticated, 4002));
        let removed = alice.receives("participant.removed").await;
        assert_eq!((removed.channel_id.as_ref(), &removed.data["participant"]["user_id"]), (Some(&general), &json!("bob")));
        assert_eq!(refusal(world.team().put::<Value>("/v1/users/bob", &json!({})).await), (409, ErrorCode::Conflict));
        assert_eq!(refusal(world.team().get::<Value>("/v1/users/bob").await), (404, ErrorCode::NotFound));
    }

    async fn a_deleted_app_ends_everything_in_it(world: Patient) {
        let world = world.0;
        world.channel("group", "general", &["alice"]).await;
        let token = world.token("alice").await;
        let mut alice = world.connects_with(0, &token).await;
        let path = format!("/v1/organizations/{}/apps/{}", world.organization, world.app);
        world.backend(&world.organization_key).delete::<()>(&path).await.unwrap();
        assert_eq!(alice.is_closed().await, 4004);
        world.is_soon_refused(&token).await;
        until("the app's key is refused", || async {
            world.team().get::<Value>("/v1/channels").await.is_err_and(|e| e.refusal().is_some_and(|e| e.code == ErrorCode::Unauthenticated))
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revocation_reaches_every_node_within_five_seconds() {
    let world = World::with(
        StoreKind::Redis,
        2,
        &["--limit", "unauthenticated_per_ip=0"],
    )
    .await;
    world.people(&["alice", "watcher"]).await;
    let token = world.token("alice").await;
    let mut sessions = [
        world.connects_with(0, &token).await,
        world.connects_with(1, &token).await,
    ];
    let watcher = world.connects("watcher").await;
    until("the store knows of the sessions", || async {
        watcher
            .asks("presence.watch", json!({ "user_ids": ["alice"] }))
            .await["presence"]["alice"]["online"]
            == true
    })
    .await;
    let began = Instant::now();
    let answer: Disconnected = world
        .team()
        .post("/v1/users/alice/disconnect", &json!({ "revoke": true }))
        .await
        .unwrap();
    assert!(
        (1..=2).contains(&answer.sessions),
        "a node tells the store of its sessions in a moment"
    );
    for session in &mut sessions {
        assert_eq!(session.is_closed().await, 4004);
    }
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
    for node in 0..2 {
        let backend = world.backend_at(node, &token);
        until("the token is refused at every node", || async {
            backend.get::<Value>("/v1/users/alice").await.is_err()
        })
        .await;
    }
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
    world
        .connects("alice")
        .await
        .session
        .call::<Ping>((), ())
        .await
        .unwrap();
}

impl World {
    /// Connects with this token.
    async fn connects_with(&self, node: usize, token: &str) -> Person {
        let connector = client::Connector::new(&self.url(node), Encoding::MessagePack).unwrap();
        let (session, events) = connector.connect(&with(token)).await.unwrap();
        Person {
            name: session.connected().user.id.clone(),
            session,
            events,
            heard: Vec::new(),
        }
    }
}

async fn tokens_between_two_revocations_of_a_second_are_refused(store_kind: StoreKind) {
    let world = World::on(store_kind).await;
    world.people(&["ada"]).await;
    let revoke = async || {
        let _: Disconnected = world
            .team()
            .post("/v1/users/ada/disconnect", &json!({ "revoke": true }))
            .await
            .unwrap();
    };
    for _ in 0..3 {
        revoke().await;
        let between = world.token("ada").await;
        revoke().await;
        assert_eq!(
            world.is_refused(&with(between)).await,
            (ErrorCode::Unauthenticated, 4002)
        );
    }
}

#[tokio::test]
async fn tokens_between_two_revocations_of_a_second_are_refused_on_the_embedded_store() {
    tokens_between_two_revocations_of_a_second_are_refused(StoreKind::Embedded).await;
}

#[tokio::test]
async fn tokens_between_two_revocations_of_a_second_are_refused_on_redis() {
    tokens_between_two_revocations_of_a_second_are_refused(StoreKind::Redis).await;
}
