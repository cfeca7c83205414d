//! Tenant isolation: credentials reach their own entities only.

use domain::{
    Services, apps, credential::Principal, error::Result, keys, organizations, random, sessions,
    token_keys, tokens, users,
};
use protocol::{
    AppId, ErrorCode, OrganizationId,
    entity::{Algorithm, AppSettings, Environment},
    operation::{
        app::{CreateApp, UpdateApp},
        credential::{CreateAccess, CreateAppKey, CreateOrganizationKey, CreateTokenKey},
        organization::{CreateOrganization, UpdateOrganization},
        page::ListPage,
        user::{Disconnect, MintToken},
    },
};

use crate::story::{Deployment, code, secret};

/// Returns the answers of every operation on an organization and on its app.
async fn everything(
    services: &Services,
    who: &Principal,
    organization: &OrganizationId,
    app: &AppId,
) -> Vec<Result<()>> {
    let (key, token_key) = (
        "key_0123456789abcdef".parse().unwrap(),
        "tk_0123456789abcdef".parse().unwrap(),
    );
    let (list, environment, bits) = (ListPage::default, Environment::Live, random::bits());
    let token_key_body = CreateTokenKey {
        environment,
        algorithm: Algorithm::HS256,
        public_key: None,
    };
    vec![
        organizations::read_organization(services, who, organization)
            .await
            .map(drop),
        organizations::update_organization(
            services,
            who,
            organization,
            UpdateOrganization::default(),
            None,
        )
        .await
        .map(drop),
        keys::list_organization_keys(services, who, organization, list())
            .await
            .map(drop),
        keys::create_organization_key(
            services,
            who,
            organization,
            CreateOrganizationKey::default(),
            bits,
        )
        .await
        .map(drop),
        keys::revoke_organization_key(services, who, organization, &key).await,
        apps::list_apps(services, who, organization, list())
            .await
            .map(drop),
        apps::create_app(
            services,
            who,
            organization,
            CreateApp {
                name: "n".into(),
                settings: AppSettings::default(),
            },
            bits,
        )
        .await
        .map(drop),
        apps::read_app(services, who, organization, app)
            .await
            .map(drop),
        apps::update_app(services, who, organization, app, UpdateApp::default(), None)
            .await
            .map(drop),
        keys::list_app_keys(services, who, organization, app, list())
            .await
            .map(drop),
        keys::create_app_key(
            services,
            who,
            organization,
            app,
            CreateAppKey {
                environment,
                name: None,
            },
            bits,
        )
        .await
        .map(drop),
        keys::create_access(
            services,
            who,
            organization,
            app,
            CreateAccess {
                environment,
                expires_in: None,
            },
            bits,
        )
        .await
        .map(drop),
        keys::revoke_app_key(services, who, organization, app, &key).await,
        token_keys::list_token_keys(services, who, organization, app, list())
            .await
            .map(drop),
        token_keys::create_token_key(services, who, organization, app, token_key_body, bits)
            .await
            .map(drop),
        token_keys::revoke_token_key(services, who, organization, app, &token_key).await,
        apps::delete_app(services, who, organization, app, None).await,
        organizations::delete_organization(services, who, organization, None).await,
    ]
}

fn told(answers: Vec<Result<()>>) -> Vec<String> {
    answers
        .into_iter()
        .map(|answer| format!("{}", answer.unwrap_err()))
        .collect()
}

#[tokio::test]
async fn organization_of_others_answers_like_a_missing_one() {
    let deployment = Deployment::start();
    let (a, b) = (deployment.tenant("a").await, deployment.tenant("b").await);
    let who = deployment
        .auth
        .authenticate(secret(&a.organization_key))
        .await
        .unwrap();
    let never = (
        "org_00000000000000ff".parse().unwrap(),
        "app_00000000000000ff".parse().unwrap(),
    );
    let others = told(everything(&deployment.services, &who, &b.organization, &b.app).await);
    let unused = told(everything(&deployment.services, &who, &never.0, &never.1).await);
    assert_eq!(others, unused);
    assert!(
        others.iter().all(|answer| answer.starts_with("not_found")),
        "{others:?}"
    );
    // Its own organization, and the other's app.
    for (mine, unused) in [(&b.app, &never.1)] {
        let others = app_operations(&deployment.services, &who, &a.organization, mine).await;
        assert_eq!(
            others,
            app_operations(&deployment.services, &who, &a.organization, unused).await
        );
        assert!(
            others.iter().all(|code| *code == ErrorCode::NotFound),
            "{others:?}"
        );
    }
    // It is unchanged.
    assert!(
        apps::read_app(
            &deployment.services,
            &Principal::Admin,
            &b.organization,
            &b.app
        )
        .await
        .is_ok()
    );
    assert_eq!(
        apps::list_apps(
            &deployment.services,
            &Principal::Admin,
            &b.organization,
            ListPage::default()
        )
        .await
        .unwrap()
        .items
        .len(),
        1
    );
    // The admin key reaches both, but not the one's app through the other.
    assert!(
        apps::read_app(
            &deployment.services,
            &Principal::Admin,
            &a.organization,
            &a.app
        )
        .await
        .is_ok()
    );
    assert_eq!(
        code(
            apps::read_app(
                &deployment.services,
                &Principal::Admin,
                &a.organization,
                &b.app
            )
            .await
        ),
        ErrorCode::NotFound
    );
}

async fn app_operations(
    services: &Services,
    who: &Principal,
    organization: &OrganizationId,
    app: &AppId,
) -> Vec<ErrorCode> {
    let body = CreateAppKey {
        environment: Environment::Live,
        name: None,
    };
    vec![
        code(apps::read_app(services, who, organization, app).await),
        code(keys::list_app_keys(services, who, organization, app, ListPage::default()).await),
        code(keys::create_app_key(services, who, organization, app, body, 1).await),
        code(apps::update_app(services, who, organization, app, UpdateApp::default(), None).await),
        code(apps::delete_app(services, who, organization, app, None).await),
    ]
}

#[tokio::test]
async fn a_wrong_kind_of_credential_is_forbidden() {
    let deployment = Deployment::start();
    let tenant = deployment.tenant("a").await;
    let services = &deployment.services;
    let organization = deployment
        .auth
        .authenticate(secret(&tenant.organization_key))
        .await
        .unwrap();
    let backend = deployment.backend(&tenant, Environment::Live).await;
    let signer = deployment.signer(&tenant, Algorithm::HS256).await;
    let user = deployment
        .auth
        .authenticate(&signer.sign(&deployment.claims("alice")))
        .await
        .unwrap();
    for who in [&backend, &user] {
        for answer in everything(services, who, &tenant.organization, &tenant.app).await {
            assert_eq!(code(answer), ErrorCode::Forbidden);
        }
    }
    for who in [&organization, &backend, &user] {
        let body = CreateOrganization {
            name: "n".into(),
            email: "a@b.c".into(),
            banner: None,
        };
        assert_eq!(
            code(organizations::create_organization(services, who, body, 1).await),
            ErrorCode::Forbidden
        );
        assert_eq!(
            code(organizations::list_organizations(services, who, ListPage::default()).await),
            ErrorCode::Forbidden
        );
    }
    for who in [&organization, &Principal::Admin] {
        assert_eq!(code(who.actor()), ErrorCode::Forbidden);
    }
    let alice = "alice".parse().unwrap();
    let actor = user.actor().unwrap();
    assert_eq!(
        code(tokens::mint_token(services, actor, &alice, MintToken::default()).await),
        ErrorCode::Forbidden
    );
    assert_eq!(
        code(sessions::disconnect_user(services, actor, &alice, Disconnect::default()).await),
        ErrorCode::Forbidden
    );
}

#[tokio::test]
async fn live_and_test_share_no_user() {
    let deployment = Deployment::start();
    let (a, b) = (deployment.tenant("a").await, deployment.tenant("b").await);
    let live = deployment.backend(&a, Environment::Live).await;
    let alice = deployment.user(&live, "alice").await;
    for (tenant, environment) in [(&a, Environment::Test), (&b, Environment::Live)] {
        let stranger = deployment.backend(tenant, environment).await;
        let actor = stranger.actor().unwrap();
        assert_eq!(
            code(users::read_user(&deployment.services, actor, &alice).await),
            ErrorCode::NotFound
        );
        assert_eq!(
            code(
                tokens::mint_token(&deployment.services, actor, &alice, MintToken::default()).await
            ),
            ErrorCode::NotFound
        );
        for revoke in [false, true] {
            let body = Disconnect { revoke };
            assert_eq!(
                code(sessions::disconnect_user(&deployment.services, actor, &alice, body).await),
                ErrorCode::NotFound
            );
        }
        // The same id is another user there, whose deletion has no effect here.
        deployment.user(&stranger, "alice").await;
        sessions::disconnect_user(
            &deployment.services,
            actor,
            &alice,
            Disconnect { revoke: true },
        )
        .await
        .unwrap();
        users::delete_user(&deployment.services, actor, &alice, None)
            .await
            .unwrap();
        let signer = deployment
            .signer_in(tenant, Algorithm::HS256, environment)
            .await;
        assert!(
            deployment
                .auth
                .verify(&signer.sign(&deployment.claims("alice")))
                .await
                .is_err()
        );
    }
    let signer = deployment.signer(&a, Algorithm::HS256).await;
    assert!(
        deployment
            .auth
            .verify(&signer.sign(&deployment.claims("alice")))
            .await
            .is_ok()
    );
}
