//! User tokens: which are accepted, and every way to be refused.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use gateway::auth::{Principal, TokenRefused, Who};
use jsonwebtoken::{EncodingKey, Header};
use protocol::{
    ErrorCode, Limits,
    model::{Algorithm, Environment},
    params::{CreateTokenKey, MintToken},
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
        // What everybody knows of the key, as a secret.
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
async fn what_is_no_token_is_refused() {
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
async fn an_unknown_user_is_made_unless_the_app_says_no() {
    let deployment = Deployment::start();
    let tenant = deployment.tenant("a").await;
    let backend = deployment.backend(&tenant, Environment::Live).await;
    let signer = deployment.signer(&tenant, Algorithm::HS256).await;
    let mut claims = deployment.claims("alice");
    claims["name"] = "Alice".into();
    deployment.auth.verify(&signer.sign(&claims)).await.unwrap();
    let alice = deployment
        .services
        .user(backend.actor().unwrap(), &"alice".parse().unwrap())
        .await
        .unwrap()
        .value;
    assert_eq!(alice.username.as_deref(), Some("Alice"));
    assert!(alice.created_at > 0);
    let listed = deployment
        .services
        .list_users(backend.actor().unwrap(), None, None)
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
async fn a_deleted_user_is_refused_at_once_and_never_made_again() {
    let deployment = Deployment::start();
    let tenant = deployment.tenant("a").await;
    let backend = deployment.backend(&tenant, Environment::Live).await;
    let signer = deployment.signer(&tenant, Algorithm::HS256).await;
    let token = signer.sign(&deployment.claims("alice"));
    deployment.auth.verify(&token).await.unwrap();
    deployment
        .services
        .delete_user(backend.actor().unwrap(), &"alice".parse().unwrap(), None)
        .await
        .unwrap();
    assert!(sentence(deployment.auth.verify(&token).await).contains("deleted"));
    assert_eq!(
        code(deployment.auth.authenticate(&token).await),
        ErrorCode::Unauthenticated
    );
}

#[tokio::test]
async fn a_public_key_must_be_a_pem_of_its_algorithm() {
    let deployment = Deployment::start();
    let tenant = deployment.tenant("a").await;
    let mut pems = Vec::new();
    for algorithm in [Algorithm::EdDSA, Algorithm::ES256, Algorithm::RS256] {
        pems.push((algorithm, deployment.signer(&tenant, algorithm).await.known));
    }
    let make = async |algorithm, public_key: Option<&str>| {
        let body = CreateTokenKey {
            environment: Environment::Live,
            algorithm,
            public_key: public_key.map(str::to_owned),
        };
        let made = deployment
            .services
            .create_token_key(
                &Principal::Admin,
                &tenant.organization,
                &tenant.app,
                body,
                1,
            )
            .await;
        code(made)
    };
    let ed = &pems[0].1;
    let (p384, rsa_1024) = (include_str!("p384.pem"), include_str!("rsa1024.pem"));
    for algorithm in [Algorithm::EdDSA, Algorithm::ES256, Algorithm::RS256] {
        for (other, pem) in &pems {
            if algorithm != *other {
                assert_eq!(
                    make(algorithm, Some(pem)).await,
                    ErrorCode::BadRequest,
                    "{algorithm:?} with {other:?}"
                );
            }
        }
        let garbled = ed.replace("PUBLIC", "PRIVATE");
        let certificate = ed.replace("PUBLIC KEY", "CERTIFICATE");
        let cut: String = ed
            .lines()
            .filter(|line| !line.starts_with("MC"))
            .collect::<Vec<_>>()
            .join("\n");
        for bad in [
            None,
            Some(""),
            Some("x"),
            Some(p384),
            Some(rsa_1024),
            Some(&garbled),
            Some(&certificate),
            Some(&cut),
        ] {
            assert_eq!(
                make(algorithm, bad).await,
                ErrorCode::BadRequest,
                "{algorithm:?}: {bad:?}"
            );
        }
        assert_eq!(
            make(algorithm, Some(&"x".repeat(9000))).await,
            ErrorCode::TooLarge
        );
    }
    assert_eq!(
        make(Algorithm::HS256, Some(ed)).await,
        ErrorCode::BadRequest
    );
    let listed = deployment
        .services
        .list_token_keys(
            &Principal::Admin,
            &tenant.organization,
            &tenant.app,
            Default::default(),
        )
        .await;
    assert_eq!(
        listed.unwrap().items.len(),
        3,
        "a refused one leaves nothing"
    );
}

#[tokio::test]
async fn a_backend_has_tokens_minted_for_its_users() {
    let deployment = Deployment::start();
    let tenant = deployment.tenant("a").await;
    let backend = deployment.backend(&tenant, Environment::Test).await;
    let alice = deployment.user(&backend, "alice").await;
    let actor = backend.actor().unwrap();
    let mint = async |expires_in| {
        deployment
            .services
            .mint_token(actor, &alice, MintToken { expires_in })
            .await
    };
    let first = mint(None).await.unwrap();
    assert_eq!(first.expires_at, (deployment.now() + 3600) * 1000);
    let verified = deployment.auth.verify(&first.token).await.unwrap();
    assert_eq!(verified.actor.scope, scope(&tenant, Environment::Test));
    assert_eq!(
        (verified.actor.user(), verified.expires_at_ms),
        (Some(&alice), first.expires_at)
    );
    let day = mint(Some(86_400)).await.unwrap();
    assert!(deployment.auth.verify(&day.token).await.is_ok());
    for bad in [0, 86_401, u64::MAX] {
        assert_eq!(code(mint(Some(bad)).await), ErrorCode::BadRequest);
    }
    let nobody = "nobody".parse().unwrap();
    assert_eq!(
        code(
            deployment
                .services
                .mint_token(actor, &nobody, MintToken::default())
                .await
        ),
        ErrorCode::NotFound
    );
    assert_eq!(
        code(
            deployment
                .services
                .mint_token(&verified.actor, &alice, MintToken::default())
                .await
        ),
        ErrorCode::Forbidden
    );
    let keys = deployment
        .services
        .list_token_keys(
            &Principal::Admin,
            &tenant.organization,
            &tenant.app,
            Default::default(),
        )
        .await
        .unwrap();
    assert_eq!(keys.items.len(), 1, "one signing key serves all");
    assert_eq!(keys.items[0].environment, Environment::Test);
}

#[tokio::test]
async fn nodes_that_mint_at_once_agree_on_one_signing_key() {
    let deployment = Deployment::start();
    let tenant = deployment.tenant("a").await;
    let backend = deployment.backend(&tenant, Environment::Live).await;
    let alice = deployment.user(&backend, "alice").await;
    let actor = backend.actor().unwrap();
    let (other, _) = deployment.another_node();
    let mint = |services: &gateway::service::Services| {
        let (services, actor, alice) = (services.clone(), actor.clone(), alice.clone());
        tokio::spawn(async move {
            services
                .mint_token(&actor, &alice, MintToken::default())
                .await
                .unwrap()
        })
    };
    let minting: Vec<_> = (0..16)
        .map(|i| {
            mint(if i % 2 == 0 {
                &deployment.services
            } else {
                &other
            })
        })
        .collect();
    for token in minting {
        assert!(
            deployment
                .auth
                .verify(&token.await.unwrap().token)
                .await
                .is_ok()
        );
    }
    let keys = deployment
        .services
        .list_token_keys(
            &Principal::Admin,
            &tenant.organization,
            &tenant.app,
            Default::default(),
        )
        .await
        .unwrap();
    assert_eq!(keys.items.len(), 1);
}
