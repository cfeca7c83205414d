//! Keys: their form, their owners, and their secrecy.

use std::time::Duration;

use domain::{
    credential::{AdminKey, Principal, SecretKey, Who},
    keys, organizations,
};
use protocol::{
    ErrorCode,
    entity::{Algorithm, Environment},
    operation::{
        credential::{CreateAccess, CreateAppKey, CreateOrganizationKey},
        page::ListPage,
    },
};

use crate::story::{ADMIN, Deployment, code, scope, secret};

#[tokio::test]
async fn each_credential_stands_for_its_owner() {
    let deployment = Deployment::start();
    let tenant = deployment.tenant("a").await;
    assert_eq!(
        deployment.auth.authenticate(ADMIN).await.unwrap(),
        Principal::Admin
    );
    let organization = Principal::Organization {
        id: tenant.organization.clone(),
        key: tenant.organization_key.id.clone(),
    };
    assert_eq!(
        deployment
            .auth
            .authenticate(secret(&tenant.organization_key))
            .await
            .unwrap(),
        organization
    );
    for environment in [Environment::Live, Environment::Test] {
        let key = deployment.app_key(&tenant, environment).await;
        assert!(secret(&key).starts_with(&format!("sk_{environment}_")));
        let body = CreateAccess {
            environment,
            expires_in: None,
        };
        let access = keys::create_access(
            &deployment.services,
            &organization,
            &tenant.organization,
            &tenant.app,
            body,
            7,
        )
        .await
        .unwrap();
        assert!(secret(&access).starts_with(&format!("ak_{environment}_")));
        for key in [key, access] {
            assert!(secret(&key).len() >= 8 + 32);
            let principal = deployment.auth.authenticate(secret(&key)).await.unwrap();
            let actor = principal.actor().unwrap();
            assert_eq!(actor.scope, scope(&tenant, environment));
            assert_eq!(
                actor.who,
                Who::App {
                    key: key.id.clone()
                }
            );
            keys::revoke_app_key(
                &deployment.services,
                &organization,
                &tenant.organization,
                &tenant.app,
                &key.id,
            )
            .await
            .unwrap();
        }
    }
}

#[tokio::test]
async fn invalid_key_is_unauthenticated() {
    let deployment = Deployment::start();
    let tenant = deployment.tenant("a").await;
    let good = secret(&tenant.organization_key).to_owned();
    let mut bad: Vec<String> = [
        "",
        "adm_",
        "ork_",
        "sk_live_",
        "ak_test_",
        "adm_wrong",
        "Bearer",
        " ",
    ]
    .map(str::to_owned)
    .into();
    bad.extend([
        format!("{good}x"),
        good[..good.len() - 1].to_owned(),
        good.replace("ork_", "sk_live_"),
        good.to_uppercase(),
    ]);
    bad.extend([format!("{ADMIN}x"), ADMIN[..ADMIN.len() - 1].to_owned()]);
    for bad in bad {
        assert_eq!(
            code(deployment.auth.authenticate(&bad).await),
            ErrorCode::Unauthenticated,
            "{bad}"
        );
    }
}

#[tokio::test]
async fn keys_are_listed_without_their_secrets() {
    let deployment = Deployment::start();
    let tenant = deployment.tenant("a").await;
    let admin = Principal::Admin;
    let mut made = vec![];
    for i in 0..5 {
        let body = CreateAppKey {
            environment: Environment::Test,
            name: Some(format!("key {i}")),
        };
        let mut key = keys::create_app_key(
            &deployment.services,
            &admin,
            &tenant.organization,
            &tenant.app,
            body,
            i,
        )
        .await
        .unwrap();
        assert!(key.secret.take().is_some() && key.created_at > 0);
        made.push(key);
    }
    let list = async |cursor: Option<String>| {
        let page = ListPage {
            cursor,
            limit: Some(2),
        };
        keys::list_app_keys(
            &deployment.services,
            &admin,
            &tenant.organization,
            &tenant.app,
            page,
        )
        .await
        .unwrap()
    };
    let mut listed = vec![];
    let mut cursor = None;
    loop {
        let page = list(cursor).await;
        listed.extend(page.items);
        cursor = page.cursor;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(listed, made);
    let bad = ListPage {
        cursor: Some("{x}".into()),
        limit: None,
    };
    assert_eq!(
        code(
            keys::list_app_keys(
                &deployment.services,
                &admin,
                &tenant.organization,
                &tenant.app,
                bad
            )
            .await
        ),
        ErrorCode::BadRequest
    );
}

#[tokio::test]
async fn keys_rotate_with_an_overlap() {
    let deployment = Deployment::start();
    let tenant = deployment.tenant("a").await;
    let body = CreateOrganizationKey {
        name: Some("next".into()),
    };
    let next = keys::create_organization_key(
        &deployment.services,
        &Principal::Admin,
        &tenant.organization,
        body,
        1,
    )
    .await
    .unwrap();
    for key in [&tenant.organization_key, &next] {
        assert!(deployment.auth.authenticate(secret(key)).await.is_ok());
    }
    let own = deployment.auth.authenticate(secret(&next)).await.unwrap();
    keys::revoke_organization_key(
        &deployment.services,
        &own,
        &tenant.organization,
        &tenant.organization_key.id,
    )
    .await
    .unwrap();
    deployment.later(gateway::auth::STALE);
    assert_eq!(
        code(
            deployment
                .auth
                .authenticate(secret(&tenant.organization_key))
                .await
        ),
        ErrorCode::Unauthenticated
    );
    assert!(deployment.auth.authenticate(secret(&next)).await.is_ok());
    let again = keys::revoke_organization_key(
        &deployment.services,
        &own,
        &tenant.organization,
        &tenant.organization_key.id,
    )
    .await;
    assert_eq!(code(again), ErrorCode::NotFound);
}

#[tokio::test]
async fn making_a_key_again_with_the_same_bits_answers_the_first_without_its_secret() {
    let deployment = Deployment::start();
    let tenant = deployment.tenant("a").await;
    let make = async || {
        let body = CreateAppKey {
            environment: Environment::Live,
            name: Some("n".into()),
        };
        keys::create_app_key(
            &deployment.services,
            &Principal::Admin,
            &tenant.organization,
            &tenant.app,
            body,
            42,
        )
        .await
        .unwrap()
    };
    let first = make().await;
    let again = make().await;
    assert_eq!(
        (again.id.clone(), again.created_at, again.secret),
        (first.id.clone(), first.created_at, None)
    );
    assert!(deployment.auth.authenticate(secret(&first)).await.is_ok());
}

#[tokio::test]
async fn access_key_expires() {
    let deployment = Deployment::start();
    let tenant = deployment.tenant("a").await;
    let access = async |expires_in, bits| {
        let body = CreateAccess {
            environment: Environment::Live,
            expires_in,
        };
        keys::create_access(
            &deployment.services,
            &Principal::Admin,
            &tenant.organization,
            &tenant.app,
            body,
            bits,
        )
        .await
    };
    for bad in [0, 3601, u64::MAX] {
        assert_eq!(code(access(Some(bad), 0).await), ErrorCode::BadRequest);
    }
    let key = access(Some(60), 1).await.unwrap();
    let hour = access(None, 2).await.unwrap();
    assert!(
        hour.expires_at
            .unwrap()
            .abs_diff((deployment.now() + 3600) * 1000)
            < 10_000
    );
    let list = async || {
        keys::list_app_keys(
            &deployment.services,
            &Principal::Admin,
            &tenant.organization,
            &tenant.app,
            Default::default(),
        )
        .await
        .unwrap()
        .items
        .len()
    };
    assert_eq!(list().await, 2);
    assert!(deployment.auth.authenticate(secret(&key)).await.is_ok());
    deployment.later(Duration::from_secs(61));
    assert_eq!(
        code(deployment.auth.authenticate(secret(&key)).await),
        ErrorCode::Unauthenticated
    );
    assert!(deployment.auth.authenticate(secret(&hour)).await.is_ok());
    assert_eq!(list().await, 1);
}

#[tokio::test]
async fn nothing_prints_a_secret() {
    let canary = "adm_canary-canary-canary-canary-canary";
    let printed = format!(
        "{:?} {:?}",
        AdminKey::new(canary),
        SecretKey::new(*b"canary-canary-canary-canary-cana")
    );
    assert!(!printed.contains("canary"), "{printed}");

    let deployment = Deployment::start();
    let tenant = deployment.tenant("a").await;
    let signer = deployment.signer(&tenant, Algorithm::HS256).await;
    let app_key = deployment.app_key(&tenant, Environment::Live).await;
    let token = signer.sign(&deployment.claims("alice"));
    let mut printed = String::new();
    for credential in [
        secret(&tenant.organization_key),
        secret(&app_key),
        token.as_str(),
        ADMIN,
    ] {
        printed += &format!(
            "{:?}",
            deployment.auth.authenticate(credential).await.unwrap()
        );
        let bad = format!("{credential}x");
        let error = deployment.auth.authenticate(&bad).await.unwrap_err();
        printed += &format!("{error:?} {error}");
    }
    printed += &format!(
        "{:?} {:?}",
        deployment.auth.verify(&token).await,
        deployment.auth.verify(&format!("{token}x")).await
    );
    // Including everything that was cached meanwhile.
    printed += &format!("{:?} {:?}", deployment.auth, deployment.services);
    let signature = token.rsplit('.').next().unwrap();
    for secret in [
        secret(&tenant.organization_key),
        secret(&app_key),
        &signer.known,
        ADMIN,
        signature,
    ] {
        assert!(!printed.contains(secret));
    }
    assert!(!printed.contains("canary"));
}

#[tokio::test]
async fn cursor_is_valid_for_an_hour() {
    let deployment = Deployment::start();
    let tenant = deployment.tenant("a").await;
    for _ in 0..3 {
        deployment.tenant("b").await;
    }
    let list = async |cursor| {
        organizations::list_organizations(
            &deployment.services,
            &Principal::Admin,
            ListPage {
                cursor,
                limit: Some(1),
            },
        )
        .await
    };
    let cursor = list(None).await.unwrap().cursor;
    assert!(cursor.is_some(), "{:?} is not alone", tenant.organization);
    deployment.services.clock.advance(Duration::from_mins(59));
    list(cursor.clone()).await.unwrap();
    deployment.services.clock.advance(Duration::from_mins(2));
    assert_eq!(code(list(cursor).await), ErrorCode::BadRequest);
}
