//! Public keys of token keys, and tokens that the app mints.

use super::*;
use domain::{token_keys, tokens};

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
        let made = token_keys::create_token_key(
            &deployment.services,
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
    let (p384, rsa_1024) = (include_str!("../p384.pem"), include_str!("../rsa1024.pem"));
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
    let listed = token_keys::list_token_keys(
        &deployment.services,
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
        tokens::mint_token(
            &deployment.services,
            actor,
            &alice,
            MintToken { expires_in },
        )
        .await
    };
    let store_second = async || deployment.services.store.now().await.unwrap() / 1000;
    let before = store_second().await;
    let first = mint(None).await.unwrap();
    let issued_at = first.expires_at / 1000 - 3600;
    assert!((before..=store_second().await).contains(&issued_at));
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
        code(tokens::mint_token(&deployment.services, actor, &nobody, MintToken::default()).await),
        ErrorCode::NotFound
    );
    assert_eq!(
        code(
            tokens::mint_token(
                &deployment.services,
                &verified.actor,
                &alice,
                MintToken::default()
            )
            .await
        ),
        ErrorCode::Forbidden
    );
    let keys = token_keys::list_token_keys(
        &deployment.services,
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
    let mint = |services: &domain::Services| {
        let (services, actor, alice) = (services.clone(), actor.clone(), alice.clone());
        tokio::spawn(async move {
            tokens::mint_token(&services, &actor, &alice, MintToken::default())
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
    let keys = token_keys::list_token_keys(
        &deployment.services,
        &Principal::Admin,
        &tenant.organization,
        &tenant.app,
        Default::default(),
    )
    .await
    .unwrap();
    assert_eq!(keys.items.len(), 1);
}
