//! Revocation, and how soon every node applies it.

use std::time::Duration;

use domain::{
    Services, apps, credential::Principal, keys, organizations, sessions, token_keys, tokens,
};
use gateway::auth::{Authenticator, STALE};
use protocol::{
    ErrorCode,
    entity::{Algorithm, Environment},
    operation::user::{Disconnect, MintToken},
};
use serde_json::json;

use crate::story::{Deployment, code, secret, sentence};

const ADMIN: Principal = Principal::Admin;

/// Authenticates on both nodes now, and after the maximum age of their
/// caches.
async fn refused_soon(
    deployment: &Deployment,
    other: &(Services, Authenticator),
    credential: &str,
) {
    deployment.later(STALE);
    other.0.clock.advance(STALE);
    for auth in [&deployment.auth, &other.1] {
        assert_eq!(
            code(auth.authenticate(credential).await),
            ErrorCode::Unauthenticated
        );
    }
}

async fn accepted(deployment: &Deployment, other: &(Services, Authenticator), credential: &str) {
    for auth in [&deployment.auth, &other.1] {
        auth.authenticate(credential).await.unwrap();
    }
}

#[test]
fn cached_credential_expires_within_5_seconds() {
    assert!(STALE <= Duration::from_secs(2));
}

#[tokio::test]
async fn a_revoked_key_is_refused_on_every_node() {
    let deployment = Deployment::start();
    let other = deployment.another_node();
    let tenant = deployment.tenant("a").await;
    let key = deployment.app_key(&tenant, Environment::Live).await;
    accepted(&deployment, &other, secret(&key)).await;
    keys::revoke_app_key(
        &deployment.services,
        &ADMIN,
        &tenant.organization,
        &tenant.app,
        &key.id,
    )
    .await
    .unwrap();
    refused_soon(&deployment, &other, secret(&key)).await;
    accepted(&deployment, &other, secret(&tenant.organization_key)).await;
    keys::revoke_organization_key(
        &deployment.services,
        &ADMIN,
        &tenant.organization,
        &tenant.organization_key.id,
    )
    .await
    .unwrap();
    refused_soon(&deployment, &other, secret(&tenant.organization_key)).await;
}

#[tokio::test]
async fn a_revoked_token_keys_tokens_are_refused_on_every_node() {
    let deployment = Deployment::start();
    let other = deployment.another_node();
    let tenant = deployment.tenant("a").await;
    let (first, second) = (
        deployment.signer(&tenant, Algorithm::HS256).await,
        deployment.signer(&tenant, Algorithm::EdDSA).await,
    );
    let tokens = [&first, &second].map(|signer| signer.sign(&deployment.claims("alice")));
    for token in &tokens {
        accepted(&deployment, &other, token).await;
    }
    let services = &deployment.services;
    token_keys::revoke_token_key(
        services,
        &ADMIN,
        &tenant.organization,
        &tenant.app,
        &first.id,
    )
    .await
    .unwrap();
    refused_soon(&deployment, &other, &tokens[0]).await;
    accepted(&deployment, &other, &tokens[1]).await;
    let again = token_keys::revoke_token_key(
        services,
        &ADMIN,
        &tenant.organization,
        &tenant.app,
        &first.id,
    )
    .await;
    assert_eq!(code(again), ErrorCode::NotFound);
}

#[tokio::test]
async fn a_revoked_signing_key_is_replaced_by_the_next_token() {
    let deployment = Deployment::start();
    let other = deployment.another_node();
    let tenant = deployment.tenant("a").await;
    let backend = deployment.backend(&tenant, Environment::Live).await;
    let alice = deployment.user(&backend, "alice").await;
    let services = &deployment.services;
    let mint = async || {
        tokens::mint_token(
            services,
            backend.actor().unwrap(),
            &alice,
            MintToken::default(),
        )
        .await
        .unwrap()
        .token
    };
    let before = mint().await;
    let keys = token_keys::list_token_keys(
        services,
        &ADMIN,
        &tenant.organization,
        &tenant.app,
        Default::default(),
    )
    .await
    .unwrap();
    token_keys::revoke_token_key(
        services,
        &ADMIN,
        &tenant.organization,
        &tenant.app,
        &keys.items[0].id,
    )
    .await
    .unwrap();
    let after = mint().await;
    refused_soon(&deployment, &other, &before).await;
    accepted(&deployment, &other, &after).await;
}

#[tokio::test]
async fn a_users_tokens_are_refused_at_once_up_to_the_second_of_their_revocation() {
    let deployment = Deployment::start();
    let tenant = deployment.tenant("a").await;
    let backend = deployment.backend(&tenant, Environment::Live).await;
    let actor = backend.actor().unwrap();
    let (alice, bob) = (
        deployment.user(&backend, "alice").await,
        deployment.user(&backend, "bob").await,
    );
    let signer = deployment.signer(&tenant, Algorithm::HS256).await;
    let of =
        |user: &str, iat: u64| signer.sign(&json!({ "sub": user, "iat": iat, "exp": iat + 600 }));
    let minted = tokens::mint_token(&deployment.services, actor, &alice, MintToken::default())
        .await
        .unwrap()
        .token;
    deployment.auth.verify(&minted).await.unwrap();

    let before = deployment.store.now().await.unwrap() / 1000;
    sessions::disconnect_user(
        &deployment.services,
        actor,
        &alice,
        Disconnect { revoke: true },
    )
    .await
    .unwrap();
    let after = deployment.store.now().await.unwrap() / 1000;
    assert!(sentence(deployment.auth.verify(&minted).await).contains("revoked"));
    for iat in [before - 500, before] {
        assert!(sentence(deployment.auth.verify(&of("alice", iat)).await).contains("revoked"));
    }
    assert!(
        deployment
            .auth
            .verify(&of("alice", after + 1))
            .await
            .is_ok()
    );
    assert!(deployment.auth.verify(&of("bob", before)).await.is_ok());

    let fresh = tokens::mint_token(&deployment.services, actor, &alice, MintToken::default())
        .await
        .unwrap()
        .token;
    assert!(
        deployment.auth.verify(&fresh).await.is_ok(),
        "what is minted in the same second carries the next one"
    );
    sessions::disconnect_user(
        &deployment.services,
        actor,
        &alice,
        Disconnect { revoke: false },
    )
    .await
    .unwrap();
    assert!(
        deployment.auth.verify(&fresh).await.is_ok(),
        "a disconnection revokes nothing"
    );
    // A second revocation moves the time forwards.
    sessions::disconnect_user(
        &deployment.services,
        actor,
        &alice,
        Disconnect { revoke: true },
    )
    .await
    .unwrap();
    assert!(sentence(deployment.auth.verify(&of("alice", after)).await).contains("revoked"));
    assert!(
        deployment
            .auth
            .verify(&of(bob.as_str(), before))
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn token_of_a_node_whose_clock_is_ahead_does_not_escape_a_revocation() {
    let deployment = Deployment::start();
    let tenant = deployment.tenant("a").await;
    let backend = deployment.backend(&tenant, Environment::Live).await;
    let actor = backend.actor().unwrap();
    let alice = deployment.user(&backend, "alice").await;
    deployment.later(Duration::from_secs(60));
    let services = &deployment.services;
    let minted = tokens::mint_token(services, actor, &alice, MintToken::default())
        .await
        .unwrap()
        .token;
    deployment.auth.verify(&minted).await.unwrap();
    sessions::disconnect_user(services, actor, &alice, Disconnect { revoke: true })
        .await
        .unwrap();
    assert!(sentence(deployment.auth.verify(&minted).await).contains("revoked"));
}

#[tokio::test]
async fn deleting_an_app_or_its_organization_ends_all_its_credentials() {
    let deployment = Deployment::start();
    let other = deployment.another_node();
    for whole in [false, true] {
        let (tenant, neighbour) = (deployment.tenant("a").await, deployment.tenant("b").await);
        let key = deployment.app_key(&tenant, Environment::Test).await;
        let signer = deployment.signer(&tenant, Algorithm::ES256).await;
        let token = signer.sign(&deployment.claims("alice"));
        let safe = [
            secret(&neighbour.organization_key).to_owned(),
            secret(&deployment.app_key(&neighbour, Environment::Live).await).to_owned(),
        ];
        for credential in [
            secret(&key),
            secret(&tenant.organization_key),
            &token,
            &safe[0],
            &safe[1],
        ] {
            accepted(&deployment, &other, credential).await;
        }
        if whole {
            organizations::delete_organization(
                &deployment.services,
                &ADMIN,
                &tenant.organization,
                None,
            )
            .await
            .unwrap();
        } else {
            apps::delete_app(
                &deployment.services,
                &ADMIN,
                &tenant.organization,
                &tenant.app,
                None,
            )
            .await
            .unwrap();
        }
        refused_soon(&deployment, &other, secret(&key)).await;
        refused_soon(&deployment, &other, &token).await;
        match whole {
            true => refused_soon(&deployment, &other, secret(&tenant.organization_key)).await,
            false => accepted(&deployment, &other, secret(&tenant.organization_key)).await,
        }
        for credential in &safe {
            accepted(&deployment, &other, credential).await;
        }
    }
}
