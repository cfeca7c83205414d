//! Every error code, provoked over HTTP and over the WebSocket.

use axum::http::{Method as Verb, header};
use client::Backend;
use protocol::{Encoding, ErrorCode, error::ErrorAnswer, operation::session::Ping};
use serde_json::{Value, json};

use crate::story::{StoreKind, StoreProcess, World, has_exactly, refusal, until};

/// A world with low limits.
struct Strict(World);

impl Strict {
    async fn on(store_kind: StoreKind) -> Self {
        let mut flags = Vec::new();
        for limit in [
            "participants=3",
            "reactions=2",
            "requests_per_second=20",
            "unauthenticated_per_ip=0",
        ] {
            flags.extend(["--limit", limit]);
        }
        Self(World::with(store_kind, 1, &flags).await)
    }
}

async fn send(backend: &Backend, verb: Verb, path: &str, body: &Value) -> (u16, ErrorCode) {
    let answer = backend.request(verb, path).json(body).send().await.unwrap();
    let whole: Value = serde_json::from_slice(&answer.body).unwrap();
    has_exactly(&whole, "error");
    let fields = whole["error"].as_object().unwrap();
    assert!(
        fields
            .keys()
            .all(|key| ["code", "message", "retry_after_ms", "details"].contains(&key.as_str())),
        "{whole}"
    );
    assert!(
        fields["message"].as_str().unwrap().len() > 5,
        "a sentence for a person"
    );
    let ErrorAnswer { error } = serde_json::from_value(whole).unwrap();
    assert_eq!(error.code.status(), answer.status.as_u16());
    (answer.status.as_u16(), error.code)
}

on_both_stores! {
    async fn a_misfit_names_its_field_over_both_transports(world: World) {
        let general = world.channel("group", "general", &["alice"]).await;
        let alice = world.connects("alice").await;
        let by_http = world.backend(&world.token("alice").await);
        let path = format!("/v1/channels/{general}/messages");
        for (body, field) in [
            (json!({ "text": 7 }), "text"),
            (json!({ "attachments": [{ "url": "https://example.org" }] }), "attachments[0].type"),
            (json!({ "attachments": [["image", null, "https://example.org"]] }), "attachments[0]"),
        ] {
            let answer = by_http.request(Verb::POST, &path).json(&body).send().await.unwrap();
            let ErrorAnswer { error: told } = serde_json::from_slice(&answer.body).unwrap();
            let mut params = body;
            params["channel_id"] = json!(general);
            let client::RequestError::Refused(error) = alice.session.request::<_, Value>("message.send", &params).await.unwrap_err() else {
                panic!("{params} is not refused");
            };
            assert_eq!((error.code, told.code), (ErrorCode::BadRequest, ErrorCode::BadRequest), "{params}");
            assert_eq!(error.details.unwrap(), json!({ "field": field, "in": "params" }));
            assert_eq!(told.details.unwrap(), json!({ "field": field, "in": "body" }));
        }
    }

    async fn every_error_code_over_http(world: Strict) {
        let world = world.0;
        world.channel("group", "general", &["alice", "bob", "carol"]).await;
        world.people(&["dora"]).await;
        let team = world.team();
        let nothing = json!({});
        let user = world.backend(&world.token("bob").await);
        assert_eq!(send(&team, Verb::POST, "/v1/channels", &json!({ "type": 3 })).await, (400, ErrorCode::BadRequest));
        assert_eq!(send(&world.backend(""), Verb::GET, "/v1/channels", &nothing).await, (401, ErrorCode::Unauthenticated));
        assert_eq!(send(&world.backend("sk_live_wrong"), Verb::GET, "/v1/channels", &nothing).await, (401, ErrorCode::Unauthenticated));
        assert_eq!(send(&user, Verb::DELETE, "/v1/channels/general", &nothing).await, (403, ErrorCode::Forbidden));
        assert_eq!(send(&world.backend(&world.organization_key), Verb::GET, "/v1/channels", &nothing).await, (403, ErrorCode::Forbidden));
        assert_eq!(send(&team, Verb::GET, "/v1/organizations", &nothing).await, (403, ErrorCode::Forbidden));
        assert_eq!(send(&team, Verb::GET, "/v1/channels/unused", &nothing).await, (404, ErrorCode::NotFound));
        assert_eq!(send(&team, Verb::GET, "/v1/nonsense", &nothing).await, (404, ErrorCode::NotFound));
        assert_eq!(send(&team, Verb::PUT, "/v1/channels", &nothing).await, (405, ErrorCode::MethodNotAllowed));
        assert_eq!(send(&team, Verb::POST, "/v1/channels", &json!({ "id": "general", "type": "group" })).await, (409, ErrorCode::Conflict));
        let stale = team.request(Verb::PATCH, "/v1/channels/general").header(header::IF_MATCH, "\"nonsense\"").json(&json!({ "name": "x" }));
        assert_eq!(refusal(stale.send().await.unwrap().json::<Value>()), (412, ErrorCode::PreconditionFailed));
        let body = json!({ "type": "group", "name": "x".repeat(201) });
        assert_eq!(send(&team, Verb::POST, "/v1/channels", &body).await, (413, ErrorCode::TooLarge));
        let body = json!({ "type": "group", "description": "x".repeat(70_000) });
        assert_eq!(send(&team, Verb::POST, "/v1/channels", &body).await, (413, ErrorCode::TooLarge));
        let text = team.request(Verb::POST, "/v1/channels").header(header::CONTENT_TYPE, "text/plain").body("{}");
        assert_eq!(refusal(text.send().await.unwrap().json::<Value>()), (415, ErrorCode::Unsupported));
        let body = json!({ "user_id": "dora" });
        assert_eq!(send(&team, Verb::POST, "/v1/channels/general/participants", &body).await, (422, ErrorCode::LimitReached));

// A user has the same rate over HTTP as in a session.
        let mut limited = None;
        for _ in 0..200 {
            let answer = user.request(Verb::GET, "/v1/users/bob").send().await.unwrap();
            if answer.status.as_u16() != 200 {
                limited = Some(answer);
                break;
            }
        }
        let limited = limited.expect("a limit is met");
        let ErrorAnswer { error } = serde_json::from_slice(&limited.body).unwrap();
        assert_eq!((limited.status.as_u16(), error.code), (429, ErrorCode::RateLimited));
        assert!(error.retry_after_ms.is_some_and(|wait| wait >= 1));
        assert!(limited.header(&header::RETRY_AFTER).unwrap().parse::<u64>().unwrap() >= 1);
    }

    async fn every_error_code_over_the_websocket(world: Strict) {
        let world = world.0;
        let general = world.channel("group", "general", &["alice", "bob", "carol"]).await;
        world.people(&["dora"]).await;
        let alice = world.connects("alice").await;
        let bob = world.connects("bob").await;
        let sent = alice.sends(&general, "hi").await;
        let general = json!(general);
        assert_eq!(alice.is_refused("message.send", json!({ "channel_id": general })).await, ErrorCode::BadRequest);
        assert_eq!(alice.is_refused("token.refresh", json!({ "token": "x" })).await, ErrorCode::Unauthenticated);
        assert_eq!(bob.is_refused("channel.delete", json!({ "channel_id": general })).await, ErrorCode::Forbidden);
        assert_eq!(bob.is_refused("channel.delete", json!({ "channel_id": "unused" })).await, ErrorCode::NotFound);
        let params = json!({ "channel_id": general, "text": "x", "message_id": sent.id });
        assert_eq!(bob.is_refused("message.send", params).await, ErrorCode::Conflict);
        let params = json!({ "channel_id": general, "text": "x".repeat(16_385) });
        assert_eq!(bob.is_refused("message.send", params).await, ErrorCode::TooLarge);
        let params = json!({ "channel_id": general, "user_id": "dora" });
        assert_eq!(alice.is_refused("participant.add", params).await, ErrorCode::LimitReached);
        let react = |emoji: &str| json!({ "channel_id": general, "message_id": sent.id, "emoji": emoji });
        for emoji in ["1", "2"] {
            alice.asks("reaction.add", react(emoji)).await;
        }
        assert_eq!(bob.is_refused("reaction.add", react("3")).await, ErrorCode::LimitReached, "of kinds");
        bob.asks("reaction.add", react("2")).await;
        alice.asks("reaction.remove", react("1")).await;
        bob.asks("reaction.add", react("3")).await;

        for encoding in Encoding::ALL {
            let mut by_hand = world.opens(encoding).await;
            by_hand.asks("connect", json!({ "token": world.token("alice").await })).await;
            let reply = by_hand.asks("message.forget", json!({})).await;
            has_exactly(&reply, "id error");
            has_exactly(&reply["error"], "code message");
            assert_eq!(reply["error"]["code"], "unsupported");
            let reply = by_hand.asks("connect", json!({ "token": world.token("alice").await })).await;
            assert_eq!(reply["error"]["code"], "bad_request", "one connection, one session");
            let reply = by_hand.asks("message.send", json!({ "channel_id": 7 })).await;
            assert_eq!(reply["error"]["code"], "bad_request");
            assert!(by_hand.asks("ping", json!({})).await["result"]["at"].is_u64(), "it goes on");
        }

        let mut limited = None;
        for _ in 0..200 {
            if let Err(error) = bob.session.call::<Ping>((), ()).await {
                limited = error.refusal().cloned();
                break;
            }
        }
        let limited = limited.expect("a limit is met");
        assert_eq!(limited.code, ErrorCode::RateLimited);
        assert!(limited.retry_after_ms.is_some_and(|wait| wait <= 1000));
        until("it goes on after a while", || async { bob.session.call::<Ping>((), ()).await.is_ok() }).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_survives_an_outage_of_its_store() {
    let mut world = World::on(StoreKind::Redis).await;
    let general = world.channel("group", "general", &["alice", "bob"]).await;
    let alice = world.connects("alice").await;
    let mut bob = world.connects("bob").await;
    alice.sends(&general, "before").await;
    bob.sees("before").await;
    let StoreProcess::Redis(server, _) = &mut world.store_process else {
        panic!("another store")
    };
    server.kill9();
    let params = json!({ "channel_id": general, "message_id": "msg_00000000000000aa", "text": "in the dark" });
    assert_eq!(
        alice.is_refused("message.send", params.clone()).await,
        ErrorCode::Unavailable
    );
    assert_eq!(
        refusal(world.team().get::<Value>("/v1/channels/general").await),
        (503, ErrorCode::Unavailable)
    );
    // The result of the last probe is cached for half a second.
    until("the node is not ready", || async {
        let ready = world.team().request(Verb::GET, "/readyz").send().await;
        ready.unwrap().status.as_u16() == 503
    })
    .await;
    let StoreProcess::Redis(server, _) = &mut world.store_process else {
        panic!("another store")
    };
    server.restart().await;
    // Sending again with the same id is safe.
    until("the node goes on", || async {
        alice
            .session
            .request::<_, Value>("message.send", &params)
            .await
            .is_ok()
    })
    .await;
    assert_eq!(bob.sees("in the dark").await.number, 2);
    alice.sends(&general, "after").await;
    assert_eq!(bob.sees("after").await.number, 3);
}
