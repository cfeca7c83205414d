//! Requests with an `Idempotency-Key`.

use gateway::{
    auth::Principal,
    service::idempotency::{Begun, Once},
};
use protocol::{
    ErrorCode,
    model::{Algorithm, Environment},
};
use serde_json::{Value, json};

use crate::story::{Deployment, code, secret};

const ROUTE: &str = "POST /v1/organizations";

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
        Begun::Answer { status, body } => (status, body),
        other => panic!("not an answered one: {other:?}"),
    }
}

#[tokio::test]
async fn a_repeat_is_told_the_first_answer_without_secrets() {
    let deployment = Deployment::start();
    let begin = async |body: &[u8]| {
        deployment
            .services
            .begin_once(&Principal::Admin, ROUTE, "k", body)
            .await
            .unwrap()
    };
    let once = first(begin(b"body").await);
    let bits = once.bits;
    assert_eq!(
        again(begin(b"body").await).bits,
        bits,
        "until there is an answer, it is done with the same ids"
    );
    assert!(matches!(begin(b"other").await, Begun::Mismatch));
    let told = json!({
        "organization": { "id": "org_1", "secret": "of the app" }, "key": { "id": "key_1", "secret": "ork_canary" },
        "secret": "sk_canary", "token": "canary", "metadata": { "secret": "stays" }
    });
    deployment
        .services
        .finish_once(once.clone(), 201, &told)
        .await
        .unwrap();
    let kept = json!({
        "organization": { "id": "org_1", "secret": "of the app" }, "key": { "id": "key_1" }, "metadata": { "secret": "stays" }
    });
    assert_eq!(answer(begin(b"body").await), (201, kept.clone()));
    assert!(matches!(begin(b"other").await, Begun::Mismatch));
    deployment
        .services
        .finish_once(once, 404, &json!({}))
        .await
        .unwrap();
    assert_eq!(
        answer(begin(b"body").await),
        (201, kept),
        "the first answer stays"
    );
}

#[tokio::test]
async fn answers_that_may_be_other_ones_next_time_are_not_kept() {
    let deployment = Deployment::start();
    let begin = async || {
        deployment
            .services
            .begin_once(&Principal::Admin, ROUTE, "k", b"")
            .await
            .unwrap()
    };
    let once = first(begin().await);
    for status in [429, 500, 503] {
        deployment
            .services
            .finish_once(once.clone(), status, &json!({}))
            .await
            .unwrap();
        assert_eq!(again(begin().await).bits, once.bits);
    }
    deployment
        .services
        .finish_once(once, 422, &Value::Null)
        .await
        .unwrap();
    assert_eq!(answer(begin().await), (422, Value::Null));
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
            first(
                deployment
                    .services
                    .begin_once(who, route, "k", b"")
                    .await
                    .unwrap(),
            );
        }
    }
    again(
        deployment
            .services
            .begin_once(&alice_later, ROUTE, "k", b"")
            .await
            .unwrap(),
    );
    for bad in [String::new(), "x".repeat(256)] {
        assert_eq!(
            code(deployment.services.begin_once(&bob, ROUTE, &bad, b"").await),
            ErrorCode::BadRequest
        );
    }
}

#[tokio::test]
async fn of_many_at_once_one_is_the_first() {
    let deployment = Deployment::start();
    let begin = || {
        let services = deployment.services.clone();
        tokio::spawn(async move {
            services
                .begin_once(&Principal::Admin, ROUTE, "k", b"")
                .await
                .unwrap()
        })
    };
    let begun: Vec<_> = (0..16).map(|_| begin()).collect();
    let (mut firsts, mut bits) = (0, std::collections::HashSet::new());
    for begun in begun {
        match begun.await.unwrap() {
            Begun::First(once) => {
                firsts += 1;
                bits.insert(once.bits);
            }
            begun => {
                bits.insert(again(begun).bits);
            }
        }
    }
    assert_eq!((firsts, bits.len()), (1, 1));
}
