//! User tokens: accepted ones, and every reason of refusal.

mod minting;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use domain::{
    credential::{Principal, Who},
    users,
};
use gateway::auth::TokenRefused;
use jsonwebtoken::{EncodingKey, Header};
use protocol::{
    ErrorCode, Limits,
    entity::{Algorithm, Environment},
    operation::{credential::CreateTokenKey, page::ListPage, user::MintToken},
};
use serde_json::{Value, json};

use crate::story::{Deployment, code, scope, sentence};

const ALGORITHMS: [Algorithm; 4] = [
    Algorithm::HS256,
    Algorithm::EdDSA,
    Algorithm::ES256,
    Algorithm::RS256,
];

#[tokio::test]
async fn a_token_of_each_algorithm_stands_for_its_user() {
    let deployment = Deployment::start();
    let tenant = deployment.tenant("a").await;
    for algorithm in ALGORITHMS {
        let signer = deployment.signer(&tenant, algorithm).await;
        let mut claims = deployment.claims("alice");
        claims["name"] = "Alice".into();
        let token = signer.sign(&claims);
        let verified = deployment.auth.verify(&token).await.unwrap();
        assert_eq!(verified.actor.scope, scope(&tenant, Environment::Live));
        assert_eq!(verified.name.as_deref(), Some("Alice"));
        assert_eq!(verified.expires_at_ms, (deployment.now() + 600) * 1000);
        let Who::User {
            id,
            token_key,
            issued_at,
            expires_at,
        } = &verified.actor.who
        else {
            panic!("{verified:?}")
        };
        assert_eq!((id.as_str(), token_key), ("alice", &signer.id));
        assert_eq!(
            (*issued_at, *expires_at),
            (deployment.now(), deployment.now() + 600)
        );
        assert_eq!(
            deployment.auth.authenticate(&token).await.unwrap(),
            Principal::Actor(verified.actor)
        );
    }
}

#[tokio::test]
async fn a_token_of_another_algorithm_than_its_keys_is_refused() {
    let deployment = Deployment::start();
    let tenant = deployment.tenant("a").await;
    let mut signers = Vec::new();
    for algorithm in ALGORITHMS {
        signers.push(deployment.signer(&tenant, algorithm).await);
    }
    let claims = deployment.claims("alice");
    for named in &signers {
        for signing in &signers {
            let header = Header {
                kid: Some(named.id.to_string()),
                ..Header::new(signing.algorithm)
            };
            let token = jsonwebtoken::encode(&header, &claims, &signing.key).unwrap();
            assert_eq!(
                deployment.auth.verify(&token).await.is_ok(),
                named.id == signing.id
            );
        }
        // The public part of the key, used as a secret.
        for algorithm in [
            jsonwebtoken::Algorithm::HS256,
            jsonwebtoken::Algorithm::HS384,
            jsonwebtoken::Algorithm::HS512,
        ] {
            if algorithm == named.algorithm {
                continue;
            }
            let header = Header {
                kid: Some(named.id.to_string()),
                ..Header::new(algorithm)
            };
            for secret in [
                named.known.as_bytes(),
                named.known.trim_end().as_bytes(),
                b"",
            ] {
                let token =
                    jsonwebtoken::encode(&header, &claims, &EncodingKey::from_secret(secret))
                        .unwrap();
                sentence(deployment.auth.verify(&token).await);
            }
        }
        // No signature at all.
        for none in ["none", "None", "NONE", "nOnE"] {
            let header = json!({ "alg": none, "typ": "JWT", "kid": named.id });
            let [header, claims] = [&header, &claims].map(|part| BASE64.encode(part.to_string()));
            let signed = named.sign(&deployment.claims("alice"));
            let signature = signed.rsplit('.').next().unwrap();
            for signature in ["", signature] {
                sentence(
                    deployment
                        .auth
                        .verify(&format!("{header}.{claims}.{signature}"))
                        .await,
                );
            }
        }
    }
}

#[tokio::test]
async fn a_token_with_a_wrong_kid_is_refused() {
    let deployment = Deployment::start();
    let (tenant, other) = (deployment.tenant("a").await, deployment.tenant("b").await);
    let signer = deployment.signer(&tenant, Algorithm::HS256).await;
    let stranger = deployment.signer(&other, Algorithm::HS256).await;
    let claims = deployment.claims("alice");
    let sign = |kid: Option<String>| {
        let header = Header {
            kid,
            ..Header::new(signer.algorithm)
        };
        jsonwebtoken::encode(&header, &claims, &signer.key).unwrap()
    };
    assert!(
        deployment
            .auth
            .verify(&sign(Some(signer.id.to_string())))
            .await
            .is_ok()
    );
    for kid in [
        Some(stranger.id.to_string()),
        Some("tk_0123456789abcdef".into()),
        Some("../x".into()),
        Some("".into()),
        None,
    ] {
        sentence(deployment.auth.verify(&sign(kid)).await);
    }
    let header = Header {
        kid: Some(signer.id.to_string()),
        crit: Some(vec!["x".into()]),
        ..Header::new(signer.algorithm)
    };
    let critical = jsonwebtoken::encode(&header, &claims, &signer.key).unwrap();
    assert!(sentence(deployment.auth.verify(&critical).await).contains("crit"));
}

#[tokio::test]
async fn invalid_token_is_refused() {
    let deployment = Deployment::start();
    let tenant = deployment.tenant("a").await;
    let signer = deployment.signer(&tenant, Algorithm::HS256).await;
    let good = signer.sign(&deployment.claims("alice"));
    let mut bad = vec![
        String::new(),
        ".".into(),
        "..".into(),
        "a.b.c".into(),
        format!("{good}."),
        format!("{good}x"),
        "ä".repeat(100),
    ];
    bad.push(format!("{good}{}", "A".repeat(20_000)));
    let changed = |part: usize| {
        let mut parts: Vec<String> = good.split('.').map(str::to_owned).collect();
        let mut bytes = BASE64.decode(&parts[part]).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        parts[part] = BASE64.encode(bytes);
        parts.join(".")
    };
    bad.extend((0..3).map(changed));
    bad.push(good.rsplit_once('.').unwrap().0.to_owned());
    for bad in bad {
        sentence(deployment.auth.verify(&bad).await);
        assert_eq!(
            code(deployment.auth.authenticate(&bad).await),
            ErrorCode::Unauthenticated
        );
    }
}

#[tokio::test]
async fn every_claim_is_held_against_its_rule() {
    let deployment = Deployment::start();
    let tenant = deployment.tenant("a").await;
    let signer = deployment.signer(&tenant, Algorithm::HS256).await;
    let now = deployment.now();
    let with = |claim: &str, value: Value| {
        let mut claims = deployment.claims("alice");
        claims[claim] = value;
        signer.sign(&claims)
    };
    let without = |claim: &str| {
        let mut claims = deployment.claims("alice");
        claims.as_object_mut().unwrap().remove(claim);
        signer.sign(&claims)
    };
    for claim in ["sub", "exp", "iat"] {
        assert!(sentence(deployment.auth.verify(&without(claim)).await).contains(claim));
    }
    let refused = [
        ("sub", json!("")),
        ("sub", json!("a b")),
        ("sub", json!("msg_0123456789abcdef")),
        ("sub", json!(5)),
        ("sub", json!(null)),
        ("iat", json!("now")),
        ("iat", json!(-1)),
        ("iat", json!(1e300)),
        ("iat", json!(now + 31)),
        ("iat", json!(now + 600)),
        ("exp", json!(now)),
        ("exp", json!(true)),
        ("exp", json!(null)),
        ("exp", json!(u64::MAX)),
        ("exp", json!(now + 86_401)),
        ("nbf", json!(now + 31)),
        ("nbf", json!("soon")),
        ("name", json!(5)),
        ("name", json!("x".repeat(201))),
        ("chaos_role", json!("admin")),
        ("chaos_", json!(null)),
    ];
    for (claim, value) in refused {
        assert!(
            sentence(deployment.auth.verify(&with(claim, value.clone())).await).contains(claim),
            "{claim}: {value}"
        );
    }
    let accepted = [
        ("iat", json!(now + 30)),
        ("iat", json!(now as f64 - 0.5)),
        ("exp", json!(now + 86_400)),
        ("exp", json!(now as f64 + 60.25)),
        ("nbf", json!(now + 30)),
        ("nbf", json!(0)),
        ("name", json!("x".repeat(200))),
        ("name", json!("")),
        ("aud", json!("somebody")),
        ("iss", json!(["x"])),
        ("chaos", json!(1)),
        ("role", json!({ "any": "thing" })),
    ];
    for (claim, value) in accepted {
        let verified = deployment.auth.verify(&with(claim, value.clone())).await;
        assert!(verified.is_ok(), "{claim}: {value}: {verified:?}");
    }
}

#[tokio::test]
async fn an_expired_token_is_told_apart_and_has_30_seconds_of_leeway() {
    let deployment = Deployment::start();
    let tenant = deployment.tenant("a").await;
    let signer = deployment.signer(&tenant, Algorithm::EdDSA).await;
    let now = deployment.now();
    let expired =
        |ago: u64| signer.sign(&json!({ "sub": "alice", "iat": now - 600, "exp": now - ago }));
    assert!(deployment.auth.verify(&expired(29)).await.is_ok());
    for ago in [30, 31, 500] {
        assert!(
            matches!(
                deployment.auth.verify(&expired(ago)).await,
                Err(TokenRefused::Expired)
            ),
            "{ago}"
        );
    }
    let error = deployment
        .auth
        .authenticate(&expired(31))
        .await
        .unwrap_err();
    assert_eq!(
        (error.code(), error.body.message.as_str()),
        (ErrorCode::Unauthenticated, "the token has expired")
    );
    let forged = jsonwebtoken::encode(
        &Header {
            kid: Some(signer.id.to_string()),
            ..Header::new(jsonwebtoken::Algorithm::HS256)
        },
        &json!({ "sub": "alice", "iat": now - 600, "exp": now - 500 }),
        &EncodingKey::from_secret(b"x"),
    );
    sentence(deployment.auth.verify(&forged.unwrap()).await);
}

#[tokio::test]
async fn without_a_limit_tokens_may_be_valid_for_years() {
    let deployment = Deployment::with(Limits {
        token_seconds: 0,
        ..Limits::default()
    });
    let tenant = deployment.tenant("a").await;
    let signer = deployment.signer(&tenant, Algorithm::HS256).await;
    let now = deployment.now();
    let token = signer.sign(&json!({ "sub": "alice", "iat": now, "exp": now + 100_000_000 }));
    assert!(deployment.auth.verify(&token).await.is_ok());
}

#[tokio::test]
async fn unknown_user_is_created_unless_the_app_forbids_it() {
    let deployment = Deployment::start();
    let tenant = deployment.tenant("a").await;
    let backend = deployment.backend(&tenant, Environment::Live).await;
    let signer = deployment.signer(&tenant, Algorithm::HS256).await;
    let mut claims = deployment.claims("alice");
    claims["name"] = "Alice".into();
    deployment.auth.verify(&signer.sign(&claims)).await.unwrap();
    let alice = users::read_user(
        &deployment.services,
        backend.actor().unwrap(),
        &"alice".parse().unwrap(),
    )
    .await
    .unwrap()
    .value;
    assert_eq!(alice.username.as_deref(), Some("Alice"));
    assert!(alice.created_at > 0);
    let listed = users::lists::list_users(
        &deployment.services,
        backend.actor().unwrap(),
        ListPage::default(),
    )
    .await
    .unwrap();
    assert_eq!(listed.items, [alice]);

    deployment.make_no_users(&tenant).await;
    deployment.later(gateway::auth::STALE);
    let unknown = signer.sign(&deployment.claims("bob"));
    assert!(sentence(deployment.auth.verify(&unknown).await).contains("does not exist"));
    assert!(
        deployment
            .auth
            .verify(&signer.sign(&deployment.claims("alice")))
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn deleted_user_is_refused_and_never_created_again() {
    let deployment = Deployment::start();
    let tenant = deployment.tenant("a").await;
    let backend = deployment.backend(&tenant, Environment::Live).await;
    let signer = deployment.signer(&tenant, Algorithm::HS256).await;
    let token = signer.sign(&deployment.claims("alice"));
    deployment.auth.verify(&token).await.unwrap();
    users::delete_user(
        &deployment.services,
        backend.actor().unwrap(),
        &"alice".parse().unwrap(),
        None,
    )
    .await
    .unwrap();
    assert!(sentence(deployment.auth.verify(&token).await).contains("deleted"));
    assert_eq!(
        code(deployment.auth.authenticate(&token).await),
        ErrorCode::Unauthenticated
    );
}
