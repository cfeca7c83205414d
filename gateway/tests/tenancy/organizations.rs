//! Organizations and apps: their fields, their lists, their versions, their end.

use gateway::{
    auth::Principal,
    service::{
        document::{Precondition, Versioned},
        random,
        scope::{self, APPS, CHANNELS, ENTITY, JOBS, KEYS, ONLY, TOKEN_KEYS, TOMBSTONE, USERS},
    },
    store::{Commit, Partition, Range, Table},
};
use protocol::{
    ErrorCode, Patch,
    model::{Algorithm, AppSettings, ChannelType, Environment},
    params::{
        CreateApp, CreateChannel, CreateOrganization, ListPage, UpdateApp, UpdateOrganization,
    },
};

use crate::story::{Deployment, code, scope as scope_of, secret};

const ADMIN: Principal = Principal::Admin;

fn body(name: &str, email: &str) -> CreateOrganization {
    CreateOrganization {
        name: name.into(),
        email: email.into(),
        banner: None,
    }
}

#[tokio::test]
async fn an_organization_is_made_with_its_first_key_and_read_again() {
    let deployment = Deployment::start();
    let services = &deployment.services;
    let body = CreateOrganization {
        banner: Some("https://example.org/b.png".into()),
        ..body("Acme", "it@acme.example")
    };
    let Versioned {
        value: made,
        version,
    } = services
        .create_organization(&ADMIN, body.clone(), 5)
        .await
        .unwrap();
    assert!(made.organization.created_at > 0 && made.key.secret.is_some());
    assert_eq!(
        (
            made.organization.name.as_str(),
            made.organization.banner.clone()
        ),
        ("Acme", body.banner.clone())
    );
    let read = services
        .organization(&ADMIN, &made.organization.id)
        .await
        .unwrap();
    assert_eq!((&read.value, read.version), (&made.organization, version));
    let again = services.create_organization(&ADMIN, body, 5).await.unwrap();
    assert_eq!(
        (
            again.value.organization,
            again.value.key.secret,
            again.version
        ),
        (made.organization, None, version)
    );
    assert!(
        deployment
            .auth
            .authenticate(made.key.secret.as_deref().unwrap())
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn fields_are_held_against_their_rules() {
    let deployment = Deployment::start();
    let services = &deployment.services;
    let long = "ä".repeat(201);
    for (name, email, expected) in [
        ("", "a@b.c", ErrorCode::BadRequest),
        ("  ", "a@b.c", ErrorCode::BadRequest),
        (long.as_str(), "a@b.c", ErrorCode::TooLarge),
        ("n", "", ErrorCode::BadRequest),
        ("n", "nobody", ErrorCode::BadRequest),
        ("n", "a b@c", ErrorCode::BadRequest),
        (
            "n",
            &format!("{}@b.c", "x".repeat(320)),
            ErrorCode::TooLarge,
        ),
    ] {
        assert_eq!(
            code(
                services
                    .create_organization(&ADMIN, body(name, email), random::bits())
                    .await
            ),
            expected,
            "{name} {email}"
        );
    }
    assert!(
        services
            .create_organization(&ADMIN, body(&"ä".repeat(200), "a@b.c"), random::bits())
            .await
            .is_ok()
    );
    let listed = services
        .list_organizations(&ADMIN, ListPage::default())
        .await
        .unwrap();
    assert_eq!(listed.items.len(), 1, "a refused one leaves nothing");
    let id = &listed.items[0].id;
    let make = async |name: &str| {
        services
            .create_app(
                &ADMIN,
                id,
                CreateApp {
                    name: name.into(),
                    settings: AppSettings::default(),
                },
                1,
            )
            .await
    };
    assert_eq!(code(make("").await), ErrorCode::BadRequest);
    assert_eq!(code(make(&long).await), ErrorCode::TooLarge);
    let patch = UpdateOrganization {
        email: Some("nobody".into()),
        ..UpdateOrganization::default()
    };
    assert_eq!(
        code(services.update_organization(&ADMIN, id, patch, None).await),
        ErrorCode::BadRequest
    );
}

#[tokio::test]
async fn lists_come_in_pages() {
    let deployment = Deployment::start();
    let services = &deployment.services;
    let mut made = Vec::new();
    for bits in 0..7 {
        made.push(
            services
                .create_organization(&ADMIN, body("n", "a@b.c"), bits)
                .await
                .unwrap()
                .value
                .organization,
        );
    }
    let organization = made[0].id.clone();
    for bits in 0..7 {
        let body = CreateApp {
            name: format!("app {bits}"),
            settings: AppSettings::default(),
        };
        services
            .create_app(&ADMIN, &organization, body, bits)
            .await
            .unwrap();
    }
    let (mut organizations, mut apps, mut cursors) = (Vec::new(), Vec::new(), (None, None));
    for page in 0..3 {
        let next = |cursor: &Option<String>| ListPage {
            cursor: cursor.clone(),
            limit: Some(3),
        };
        let (first, second) = (
            services
                .list_organizations(&ADMIN, next(&cursors.0))
                .await
                .unwrap(),
            services
                .list_apps(&ADMIN, &organization, next(&cursors.1))
                .await
                .unwrap(),
        );
        organizations.extend(first.items);
        apps.extend(second.items.into_iter().map(|app| app.name));
        cursors = (first.cursor, second.cursor);
        assert_eq!(
            (cursors.0.is_some(), cursors.1.is_some()),
            (page < 2, page < 2)
        );
    }
    assert_eq!(organizations, made);
    assert_eq!(apps, (0..7).map(|i| format!("app {i}")).collect::<Vec<_>>());
    let none = ListPage {
        cursor: None,
        limit: Some(0),
    };
    assert_eq!(
        code(services.list_organizations(&ADMIN, none).await),
        ErrorCode::BadRequest
    );
}

#[tokio::test]
async fn a_change_names_the_version_that_it_saw() {
    let deployment = Deployment::start();
    let services = &deployment.services;
    let tenant = deployment.tenant("a").await;
    let before = services
        .organization(&ADMIN, &tenant.organization)
        .await
        .unwrap();
    let patch = UpdateOrganization {
        name: Some("b".into()),
        email: None,
        banner: Patch::Set("x".into()),
    };
    let after = services
        .update_organization(
            &ADMIN,
            &tenant.organization,
            patch.clone(),
            Some(Precondition::Version(before.version)),
        )
        .await
        .unwrap();
    assert_eq!(
        (after.value.name.as_str(), after.value.banner.as_deref()),
        ("b", Some("x"))
    );
    assert_eq!(
        (&after.value.email, after.value.created_at),
        (&before.value.email, before.value.created_at)
    );
    assert_ne!(after.version, before.version);
    let stale = services
        .update_organization(
            &ADMIN,
            &tenant.organization,
            patch,
            Some(Precondition::Version(before.version)),
        )
        .await;
    assert_eq!(code(stale), ErrorCode::PreconditionFailed);
    assert_eq!(
        services
            .organization(&ADMIN, &tenant.organization)
            .await
            .unwrap(),
        after
    );
    let cleared = UpdateOrganization {
        banner: Patch::Clear,
        ..UpdateOrganization::default()
    };
    assert_eq!(
        services
            .update_organization(&ADMIN, &tenant.organization, cleared, None)
            .await
            .unwrap()
            .value
            .banner,
        None
    );

    let app = services
        .app(&ADMIN, &tenant.organization, &tenant.app)
        .await
        .unwrap();
    let rename = UpdateApp {
        name: Some("other".into()),
        settings: None,
    };
    let renamed = services
        .update_app(
            &ADMIN,
            &tenant.organization,
            &tenant.app,
            rename.clone(),
            Some(Precondition::Version(app.version)),
        )
        .await
        .unwrap();
    assert_eq!(
        (renamed.value.name.as_str(), renamed.value.settings),
        ("other", app.value.settings)
    );
    let stale = services
        .update_app(
            &ADMIN,
            &tenant.organization,
            &tenant.app,
            rename,
            Some(Precondition::Version(app.version)),
        )
        .await;
    assert_eq!(code(stale), ErrorCode::PreconditionFailed);
    let stale = services
        .delete_app(
            &ADMIN,
            &tenant.organization,
            &tenant.app,
            Some(Precondition::Version(app.version)),
        )
        .await;
    assert_eq!(code(stale), ErrorCode::PreconditionFailed);
}

#[tokio::test]
async fn a_deleted_app_or_organization_sounds_like_one_that_never_was() {
    let deployment = Deployment::start();
    let services = &deployment.services;
    let tenant = deployment.tenant("a").await;
    let second = deployment.app(&tenant.organization, "second").await;
    let never = code(
        services
            .app(
                &ADMIN,
                &tenant.organization,
                &"app_0123456789abcdef".parse().unwrap(),
            )
            .await,
    );
    services
        .delete_app(&ADMIN, &tenant.organization, &tenant.app, None)
        .await
        .unwrap();
    assert_eq!(
        code(
            services
                .app(&ADMIN, &tenant.organization, &tenant.app)
                .await
        ),
        never
    );
    assert_eq!(
        code(
            services
                .delete_app(&ADMIN, &tenant.organization, &tenant.app, None)
                .await
        ),
        never
    );
    let listed = services
        .list_apps(&ADMIN, &tenant.organization, ListPage::default())
        .await
        .unwrap();
    assert_eq!(
        listed
            .items
            .into_iter()
            .map(|app| app.id)
            .collect::<Vec<_>>(),
        std::slice::from_ref(&second)
    );

    services
        .delete_organization(&ADMIN, &tenant.organization, None)
        .await
        .unwrap();
    assert_eq!(
        code(services.organization(&ADMIN, &tenant.organization).await),
        ErrorCode::NotFound
    );
    assert_eq!(
        code(services.app(&ADMIN, &tenant.organization, &second).await),
        ErrorCode::NotFound
    );
    let body = CreateApp {
        name: "late".into(),
        settings: AppSettings::default(),
    };
    assert_eq!(
        code(
            services
                .create_app(&ADMIN, &tenant.organization, body, 1)
                .await
        ),
        ErrorCode::NotFound
    );
    assert!(
        services
            .list_organizations(&ADMIN, ListPage::default())
            .await
            .unwrap()
            .items
            .is_empty()
    );
}

async fn keys(deployment: &Deployment, partition: &Partition, table: Table) -> Vec<String> {
    let (page, _) = deployment
        .store
        .page(partition, table, Range::Keys { after: None }, 100)
        .await
        .unwrap();
    page.documents
        .into_iter()
        .map(|document| document.key.to_string())
        .collect()
}

async fn exists(deployment: &Deployment, partition: Partition) -> bool {
    deployment
        .services
        .snapshot(partition, vec![(ENTITY, ONLY.into())])
        .await
        .unwrap()
        .documents[0]
        .is_some()
}

#[tokio::test]
async fn a_deletion_that_was_interrupted_is_finished_by_any_node() {
    let deployment = Deployment::start();
    let (tenant, neighbour) = (deployment.tenant("a").await, deployment.tenant("b").await);
    let backend = deployment.backend(&tenant, Environment::Live).await;
    let alice = deployment.user(&backend, "alice").await;
    let signer = deployment.signer(&tenant, Algorithm::HS256).await;
    let hash = gateway::auth::hash(secret(&tenant.organization_key));
    let channel = CreateChannel {
        id: None,
        kind: ChannelType::Group,
        name: None,
        description: None,
        icon: None,
        banner: None,
        creator_id: Some(alice.clone()),
        participant_ids: vec![],
        metadata: Default::default(),
    };
    let channel = deployment
        .services
        .create_channel(backend.actor().unwrap(), channel)
        .await
        .unwrap()
        .0
        .value
        .id;

    // A node puts the tombstone and dies, long ago.
    let partition = scope::organization(&tenant.organization);
    let noted = Commit::default().put(JOBS, partition.name(), &0u64);
    deployment
        .store
        .commit(&scope::deployment(), noted)
        .await
        .unwrap()
        .unwrap();
    let buried = Commit::default()
        .delete(ENTITY, ONLY)
        .put(TOMBSTONE, ONLY, &true);
    deployment
        .store
        .commit(&partition, buried)
        .await
        .unwrap()
        .unwrap();

    let (other, _) = deployment.another_node();
    assert_eq!(other.finish_clearing().await.unwrap(), 1);
    assert!(!exists(&deployment, scope::credential(&hash)).await);
    assert!(!exists(&deployment, scope::app(&tenant.app)).await);
    assert!(keys(&deployment, &partition, KEYS).await.is_empty());
    let listed = keys(&deployment, &scope::deployment(), scope::ORGANIZATIONS).await;
    assert_eq!(listed, [neighbour.organization.to_string()]);
    // Its app is a job of its own, which waits until nobody acts by its keys any more. Here too, the node dies.
    assert_eq!(
        keys(&deployment, &scope::deployment(), JOBS).await,
        [scope::app(&tenant.app).name()]
    );
    let noted = Commit::default().put(JOBS, scope::app(&tenant.app).name(), &0u64);
    deployment
        .store
        .commit(&scope::deployment(), noted)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(other.finish_clearing().await.unwrap(), 1);

    let live = scope_of(&tenant, Environment::Live);
    assert!(!exists(&deployment, live.user(&alice)).await);
    assert!(!exists(&deployment, live.channel(&channel)).await);
    assert!(!exists(&deployment, scope::token_key(&signer.id)).await);
    for table in [KEYS, TOKEN_KEYS] {
        assert!(
            keys(&deployment, &scope::app(&tenant.app), table)
                .await
                .is_empty()
        );
    }
    assert!(
        keys(&deployment, &scope::deployment(), JOBS)
            .await
            .is_empty()
    );
    assert_eq!(other.finish_clearing().await.unwrap(), 0);
    // The indexes stay until the store drops them with their partition, a minute later.
    assert_eq!(keys(&deployment, &live.index(), USERS).await.len(), 1);
    assert_eq!(keys(&deployment, &live.index(), CHANNELS).await.len(), 1);
    assert_eq!(
        keys(
            &deployment,
            &scope::organization(&neighbour.organization),
            APPS
        )
        .await,
        [neighbour.app.to_string()]
    );
}
