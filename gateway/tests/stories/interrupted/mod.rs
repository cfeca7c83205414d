//! Deletions and revocations that are interrupted between any two of their writes: a repeat
//! completes them, and otherwise the job does. Also what a deletion leaves in the store.

mod cleared;

use std::time::Duration;

use bytes::Bytes;
use client::{Backend, BackendError};
use domain::{
    Services,
    document::PutValue,
    schema::{self, ONLY, Scope, TOMBSTONE, cleared_tables, tables},
};
use hyper::{Method, header::HeaderName};
use protocol::{
    AppId, ChannelId, Encoding, ErrorCode,
    operation::{session::Connect, user::Token},
};
use redis_testing as testing;
use serde_json::{Value, json};
use store::{Append, Commit, EventBody, Order, Partition, Position, Range};

use crate::{
    fragile::Fragile,
    story::{Person, StoreKind, StoreProcess, TIMEOUT, World, refusal, until},
};

/// Maximum time until a revocation takes effect on every node.
const HOLDS_AFTER: Duration = Duration::from_secs(5);

/// An entity that is deleted or revoked, in a tenant of its own, and a session that must end.
struct Doomed {
    backend: Backend,
    path: String,
    method: Method,
    session: Person,
    token: String,
    app: AppId,
}

const KINDS: [&str; 5] = ["token key", "user", "tokens", "app", "organization"];

impl Doomed {
    async fn new(world: &World, kind: &str) -> Self {
        let admin = world.backend(&world.admin_key);
        let made: Value = admin
            .post(
                "/v1/organizations",
                &json!({ "name": "Acme", "email": "a@acme.example" }),
            )
            .await
            .unwrap();
        let organization = made["organization"]["id"].as_str().unwrap().to_owned();
        Self::in_organization(world, kind, format!("/v1/organizations/{organization}")).await
    }

    /// Creates an app of its own in this organization.
    async fn in_organization(world: &World, kind: &str, base: String) -> Self {
        let admin = world.backend(&world.admin_key);
        let app: Value = admin
            .post(&format!("{base}/apps"), &json!({ "name": "shop" }))
            .await
            .unwrap();
        let base_of_app = format!("{base}/apps/{}", app["id"].as_str().unwrap());
        let key: Value = admin
            .post(
                &format!("{base_of_app}/keys"),
                &json!({ "environment": "live" }),
            )
            .await
            .unwrap();
        let team = world.backend(key["secret"].as_str().unwrap());
        let _: Value = team.put("/v1/users/alice", &json!({})).await.unwrap();
        let general = json!({ "id": "general", "type": "group", "creator_id": "alice" });
        let _: Value = team.post("/v1/channels", &general).await.unwrap();
        let token: Token = team
            .post("/v1/users/alice/tokens", &json!({}))
            .await
            .unwrap();
        let token = token.token;
        let connector = client::Connector::new(&world.url(0), Encoding::MessagePack).unwrap();
        let (session, events) = connector
            .connect(&Connect {
                token: token.clone(),
                ..Connect::default()
            })
            .await
            .unwrap();
        let session = Person {
            name: "alice".parse().unwrap(),
            session,
            events,
            heard: Vec::new(),
        };
        let keys: Value = admin
            .get(&format!("{base_of_app}/token-keys"))
            .await
            .unwrap();
        let (backend, path) = match kind {
            "token key" => (
                admin,
                format!(
                    "{base_of_app}/token-keys/{}",
                    keys["items"][0]["id"].as_str().unwrap()
                ),
            ),
            "user" => (team, "/v1/users/alice".to_owned()),
            "tokens" => (team, "/v1/users/alice/disconnect".to_owned()),
            "app" => (admin, base_of_app.clone()),
            _ => (admin, base),
        };
        let method = if kind == "tokens" {
            Method::POST
        } else {
            Method::DELETE
        };
        Self {
            backend,
            path,
            method,
            session,
            token,
            app: app["id"].as_str().unwrap().parse().unwrap(),
        }
    }

    async fn asks(&self) -> u16 {
        let answer = match self.method {
            Method::POST => self
                .backend
                .post::<Value>(&self.path, &json!({ "revoke": true }))
                .await
                .map(drop),
            _ => self.backend.delete::<()>(&self.path).await,
        };
        match answer {
            Ok(()) => 200,
            Err(BackendError::Refused { status, .. }) => status,
            Err(error) => panic!("{} {}: {error}", self.method, self.path),
        }
    }

    async fn is_closed_in_time(&mut self, after: Duration) {
        let closed = tokio::time::timeout(after, self.session.is_closed()).await;
        assert_eq!(
            closed
                .unwrap_or_else(|_| panic!("{} {}: the session lives on", self.method, self.path)),
            4004
        );
    }

    async fn token_is_refused(&self, world: &World) -> bool {
        let answer = world
            .backend(&self.token)
            .get::<Value>("/v1/users/alice")
            .await;
        answer.is_err_and(|error| {
            error
                .refusal()
                .is_some_and(|error| error.code == ErrorCode::Unauthenticated)
        })
    }
}

on_both_stores! {
    async fn repeat_completes_a_deletion_that_stopped_between_any_two_writes(fragile: Fragile) {
        for kind in KINDS {
            for writes in 0.. {
                let mut doomed = Doomed::new(&fragile.world, kind).await;
                fragile.fails_after(writes);
                let first = doomed.asks().await;
                fragile.is_mended();
                assert!([200, 503].contains(&first), "{kind} after {writes} writes: {first}");
                if first == 503 {
                    let again = doomed.asks().await;
                    assert!([200, 404].contains(&again), "{kind} after {writes} writes, again: {again}");
                    if again == 404 {
// The job has completed the deletion by then.
                        doomed.is_closed_in_time(Duration::from_secs(1)).await;
                    } else {
                        doomed.is_closed_in_time(HOLDS_AFTER).await;
                    }
                } else {
                    doomed.is_closed_in_time(HOLDS_AFTER).await;
                }
                until("the token is refused", || doomed.token_is_refused(&fragile.world)).await;
                if first == 200 {
                    assert!(writes > 1, "{kind} fails somewhere");
                    break;
                }
            }
        }
    }

    async fn job_completes_a_deletion_that_nobody_repeats(fragile: Fragile) {
        for kind in KINDS {
            for writes in 1.. {
                let mut doomed = Doomed::new(&fragile.world, kind).await;
                fragile.fails_after(writes);
                let first = doomed.asks().await;
                tokio::time::sleep(Duration::from_millis(50)).await;
                fragile.is_mended();
// The cache of a node.
                tokio::time::sleep(Duration::from_millis(2100)).await;
                if doomed.token_is_refused(&fragile.world).await {
                    doomed.is_closed_in_time(TIMEOUT).await;
                } else {
                    assert_eq!((first, writes), (503, 1), "{kind}: nothing is refused but the job is noted");
                }
                if first == 200 {
                    break;
                }
            }
        }
    }
}

on_both_stores! {
    async fn sessions_of_a_deleted_organization_end_though_one_of_its_apps_cannot_be_written(fragile: Fragile) {
        let first = Doomed::new(&fragile.world, "organization").await;
        let second = Doomed::in_organization(&fragile.world, "organization", first.path.clone()).await;
// Apps are deleted in the order of their ids.
        let (mut stuck, mut other) = if first.app < second.app { (first, second) } else { (second, first) };
        fragile.cannot_write(Some(schema::app(&stuck.app)));
        assert_eq!(stuck.asks().await, 200);
        other.is_closed_in_time(HOLDS_AFTER).await;
        fragile.cannot_write(None);
        stuck.is_closed_in_time(TIMEOUT).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn revocations_are_completed_after_redis_denied_the_log_of_ended_sessions() {
    let world = World::with(
        StoreKind::Redis,
        1,
        &["--limit", "unauthenticated_per_ip=0"],
    )
    .await;
    let StoreProcess::Redis(server, _) = &world.store_process else {
        panic!()
    };
    for kind in KINDS {
        let mut doomed = Doomed::new(&world, kind).await;
        let all_but_the_log = ["~chaos:{[^d]*", "~chaos:{d}:[^l]*"];
        server
            .command(
                &[
                    &["ACL", "SETUSER", "default", "resetkeys"][..],
                    &all_but_the_log,
                ]
                .concat(),
            )
            .await
            .unwrap();
        // Only the job ends an organization's sessions.
        assert_eq!(
            doomed.asks().await,
            if kind == "organization" { 200 } else { 503 },
            "{kind}"
        );
        server
            .command(&["ACL", "SETUSER", "default", "~*"])
            .await
            .unwrap();
        let again = doomed.asks().await;
        assert!([200, 404].contains(&again), "{kind}: {again}");
        doomed.is_closed_in_time(HOLDS_AFTER).await;
        until("the token is refused", || doomed.token_is_refused(&world)).await;
    }
}

on_both_stores! {
    async fn two_requests_with_one_idempotency_key_are_answered_alike(world: World) {
        let asks = async |key: String, path: &str, body: &Value| {
            let team = world.team();
            let call = team.request(Method::POST, path).header(HeaderName::from_static("idempotency-key"), &key).json(body);
            let answer = call.send().await.unwrap();
            (answer.status.as_u16(), serde_json::from_slice::<Value>(&answer.body).unwrap())
        };
        for round in 0..20 {
            for (path, body) in [
                ("/v1/channels", json!({ "id": format!("room{round}"), "type": "group" })),
                ("/v1/users", json!({ "id": format!("user{round}") })),
            ] {
                let key = format!("{path} {round}");
                let (first, second) = tokio::join!(asks(key.clone(), path, &body), asks(key.clone(), path, &body));
                assert_eq!((first.0, second.0), (201, 201), "{first:?} {second:?}");
                assert_eq!(first.1, second.1);
                assert_eq!(asks(key, path, &body).await, first);
            }
        }
// A refusal has no effect, and is not stored.
        let body = json!({ "id": "room0", "type": "group" });
        assert_eq!(asks("later".into(), "/v1/channels", &body).await.0, 409);
        world.team().delete::<()>("/v1/channels/room0").await.unwrap();
        assert_eq!(asks("later".into(), "/v1/channels", &body).await.0, 201);
    }
}
