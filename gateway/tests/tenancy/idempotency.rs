//! Requests with an `Idempotency-Key`.

use std::time::Duration;

use domain::{
    channels::{self, create::Made},
    credential::Principal,
    idempotency::{self, Answer, Begun, Once},
    users,
};
use protocol::{
    ErrorCode,
    entity::{Algorithm, Environment},
    operation::{channel::CreateChannel, user::PutUser},
};
use serde_json::{Value, json};

use crate::story::{Deployment, code, secret};

const ROUTE: &str = "POST /v1/organizations";
const TAG: &str = "\"7\"";

fn answered(status: u16, body: Value) -> Answer {
    Answer {
        status,
        etag: (status == 201).then(|| TAG.to_owned()),
        body,
    }
}

fn first(begun: Begun) -> Once {
    match begun {
        Begun::First(once) => once,
        other => panic!("not the first: {other:?}"),
    }
}

fn again(begun: Begun) -> Once {
    match begun {
        Begun::Again(once) => once,
        other => panic!("not an unanswered one: {other:?}"),
    }
}

fn answer(begun: Begun) -> (u16, Value) {
    match begun {
        Begun::Answer {
            answer: Answer { status, body, etag },
            ..
        } => {
            assert_eq!(etag.as_deref(), (status == 201).then_some(TAG));
            (status, body)
        }
        other => panic!("not an answered one: {other:?}"),
    }
}

#[tokio::test]
async fn repeat_is_answered_like_the_first_request_without_secrets() {
    let deployment = Deployment::start();
    let begin = async |body: &[u8]| {
        idempotency::begin_once(&deployment.services, &Principal::Admin, ROUTE, "k", body)
            .await
            .unwrap()
    };
    let once = first(begin(b"body").await);
    assert!(matches!(begin(b"other").await, Begun::Mismatch));
    let told = json!({
        "organization": { "id": "org_1", "secret": "of the app" }, "key": { "id": "key_1", "secret": "ork_canary" },
        "secret": "sk_canary", "token": "canary", "metadata": { "secret": "stays" }
    });
    idempotency::finish_once(&deployment.services, once.clone(), answered(201, told))
        .await
        .unwrap();
    let kept = json!({
        "organization": { "id": "org_1", "secret": "of the app" }, "key": { "id": "key_1" }, "metadata": { "secret": "stays" }
    });
    assert_eq!(answer(begin(b"body").await), (201, kept.clone()));
    assert!(matches!(begin(b"other").await, Begun::Mismatch));
    idempotency::finish_once(&deployment.services, once, answered(200, json!({})))
        .await
        .unwrap();
    assert_eq!(
        answer(begin(b"body").await),
        (201, kept),
        "the first answer stays"
    );
}

#[tokio::test]
async fn repeated_request_uses_the_same_ids() {
    let deployment = Deployment::start();
    let begin = async || {
        idempotency::begin_once(&deployment.services, &Principal::Admin, ROUTE, "k", b"").await
    };
    let once = first(begin().await.unwrap());
    idempotency::release_once(&deployment.services, once.clone())
        .await
        .unwrap();
    let second = again(begin().await.unwrap());
    assert_eq!(second.bits, once.bits);
    assert_eq!(
        code(begin().await),
        ErrorCode::Unavailable,
        "somebody is at it"
    );
    deployment.later(Duration::from_secs(16));
    let third = again(begin().await.unwrap());
    assert_eq!(third.bits, once.bits);
    // A request that lost its claim records no answer.
    idempotency::finish_once(&deployment.services, second, answered(201, json!("late")))
        .await
        .unwrap();
    idempotency::finish_once(&deployment.services, third, answered(201, json!("in time")))
        .await
        .unwrap();
    assert_eq!(answer(begin().await.unwrap()), (201, json!("in time")));
}

#[tokio::test]
async fn repeated_request_recognizes_its_own_entity_with_a_chosen_id() {
    let deployment = Deployment::start();
    let tenant = deployment.tenant("a").await;
    let backend = deployment.backend(&tenant, Environment::Live).await;
    let (services, actor) = (&deployment.services, backend.actor().unwrap());
    let body: CreateChannel =
        serde_json::from_value(json!({ "id": "room0", "type": "group" })).unwrap();
    let (made, _) = channels::create::create_channel_as(services, actor, body.clone(), 7)
        .await
        .unwrap();
    assert_eq!(
        channels::create::create_channel_as(services, actor, body.clone(), 7)
            .await
            .unwrap(),
        (made, Made::ByThisCall)
    );
    assert_eq!(
        code(channels::create::create_channel_as(services, actor, body, 8).await),
        ErrorCode::Conflict
    );
    let body: PutUser = serde_json::from_value(json!({ "id": "ann" })).unwrap();
    let made = users::create_user_as(services, actor, body.clone(), 7)
        .await
        .unwrap();
    assert_eq!(
        users::create_user_as(services, actor, body.clone(), 7)
            .await
            .unwrap(),
        made
    );
    assert_eq!(
        code(users::create_user_as(services, actor, body, 8).await),
        ErrorCode::Conflict
    );
}

#[tokio::test]
async fn keys_of_other_credentials_and_routes_are_other_keys() {
    let deployment = Deployment::start();
    let tenant = deployment.tenant("a").await;
    let signer = deployment.signer(&tenant, Algorithm::HS256).await;
    let mut claims = deployment.claims("alice");
    let alice = deployment
        .auth
        .authenticate(&signer.sign(&claims))
        .await
        .unwrap();
    claims["exp"] = (deployment.now() + 700).into();
    let alice_later = deployment
        .auth
        .authenticate(&signer.sign(&claims))
        .await
        .unwrap();
    let bob = deployment
        .auth
        .authenticate(&signer.sign(&deployment.claims("bob")))
        .await
        .unwrap();
    let organization = deployment
        .auth
        .authenticate(secret(&tenant.organization_key))
        .await
        .unwrap();
    let backends = [
        deployment.backend(&tenant, Environment::Live).await,
        deployment.backend(&tenant, Environment::Live).await,
    ];
    for who in [
        &Principal::Admin,
        &organization,
        &backends[0],
        &backends[1],
        &alice,
        &bob,
    ] {
        for route in [ROUTE, "POST /v1/users"] {
            let once = first(
                idempotency::begin_once(&deployment.services, who, route, "k", b"")
                    .await
                    .unwrap(),
            );
            idempotency::release_once(&deployment.services, once)
                .await
                .unwrap();
        }
    }
    again(
        idempotency::begin_once(&deployment.services, &alice_later, ROUTE, "k", b"")
            .await
            .unwrap(),
    );
    for bad in [String::new(), "x".repeat(256)] {
        assert_eq!(
            code(idempotency::begin_once(&deployment.services, &bob, ROUTE, &bad, b"").await),
            ErrorCode::BadRequest
        );
    }
}

#[tokio::test]
async fn concurrent_requests_with_one_key_share_the_first_answer() {
    let deployment = Deployment::start();
    let begin = || {
        let services = deployment.services.clone();
        tokio::spawn(async move {
            match idempotency::begin_once(&services, &Principal::Admin, ROUTE, "k", b"")
                .await
                .unwrap()
            {
                Begun::First(once) => {
                    idempotency::finish_once(&services, once, answered(201, json!("done")))
                        .await
                        .unwrap();
                    1
                }
                begun => {
                    assert_eq!(answer(begun), (201, json!("done")));
                    0
                }
            }
        })
    };
    let begun: Vec<_> = (0..16).map(|_| begin()).collect();
    let mut firsts = 0;
    for begun in begun {
        firsts += begun.await.unwrap();
    }
    assert_eq!(firsts, 1);
}
