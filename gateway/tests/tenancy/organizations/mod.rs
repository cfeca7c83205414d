//! Organizations and apps: fields, lists, versions and deletion.

mod deletion;

use std::time::Duration;

use domain::{
    apps,
    credential::Principal,
    document::PutValue,
    document::{Precondition, Versioned},
    jobs::{Job, Task, run::JobsPass},
    organizations, random,
    schema::{self, APPS, CHANNELS, ENTITY, JOBS, KEYS, ONLY, TOKEN_KEYS, TOMBSTONE, USERS},
};
use protocol::{
    ErrorCode, Patch,
    entity::{Algorithm, AppSettings, ChannelType, Environment},
    operation::{
        app::{CreateApp, UpdateApp},
        channel::CreateChannel,
        organization::{CreateOrganization, UpdateOrganization},
        page::ListPage,
    },
};
use store::{Commit, Partition, Range, Table};

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
    } = organizations::create_organization(services, &ADMIN, body.clone(), 5)
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
    let read = organizations::read_organization(services, &ADMIN, &made.organization.id)
        .await
        .unwrap();
    assert_eq!((&read.value, read.version), (&made.organization, version));
    let again = organizations::create_organization(services, &ADMIN, body, 5)
        .await
        .unwrap();
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
                organizations::create_organization(
                    services,
                    &ADMIN,
                    body(name, email),
                    random::bits()
                )
                .await
            ),
            expected,
            "{name} {email}"
        );
    }
    assert!(
        organizations::create_organization(
            services,
            &ADMIN,
            body(&"ä".repeat(200), "a@b.c"),
            random::bits()
        )
        .await
        .is_ok()
    );
    let listed = organizations::list_organizations(services, &ADMIN, ListPage::default())
        .await
        .unwrap();
    assert_eq!(listed.items.len(), 1, "a refused one leaves nothing");
    let id = &listed.items[0].id;
    let make = async |name: &str| {
        apps::create_app(
            services,
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
        code(organizations::update_organization(services, &ADMIN, id, patch, None).await),
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
            organizations::create_organization(services, &ADMIN, body("n", "a@b.c"), bits)
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
        apps::create_app(services, &ADMIN, &organization, body, bits)
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
            organizations::list_organizations(services, &ADMIN, next(&cursors.0))
                .await
                .unwrap(),
            apps::list_apps(services, &ADMIN, &organization, next(&cursors.1))
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
        code(organizations::list_organizations(services, &ADMIN, none).await),
        ErrorCode::BadRequest
    );
}

#[tokio::test]
async fn a_change_names_the_version_that_it_saw() {
    let deployment = Deployment::start();
    let services = &deployment.services;
    let tenant = deployment.tenant("a").await;
    let before = organizations::read_organization(services, &ADMIN, &tenant.organization)
        .await
        .unwrap();
    let patch = UpdateOrganization {
        name: Some("b".into()),
        email: None,
        banner: Patch::Set("https://example.org/x".into()),
    };
    let after = organizations::update_organization(
        services,
        &ADMIN,
        &tenant.organization,
        patch.clone(),
        Some(Precondition::Version(before.version)),
    )
    .await
    .unwrap();
    assert_eq!(
        (after.value.name.as_str(), after.value.banner.as_deref()),
        ("b", Some("https://example.org/x"))
    );
    assert_eq!(
        (&after.value.email, after.value.created_at),
        (&before.value.email, before.value.created_at)
    );
    assert_ne!(after.version, before.version);
    let stale = organizations::update_organization(
        services,
        &ADMIN,
        &tenant.organization,
        patch,
        Some(Precondition::Version(before.version)),
    )
    .await;
    assert_eq!(code(stale), ErrorCode::PreconditionFailed);
    assert_eq!(
        organizations::read_organization(services, &ADMIN, &tenant.organization)
            .await
            .unwrap(),
        after
    );
    let cleared = UpdateOrganization {
        banner: Patch::Clear,
        ..UpdateOrganization::default()
    };
    assert_eq!(
        organizations::update_organization(services, &ADMIN, &tenant.organization, cleared, None)
            .await
            .unwrap()
            .value
            .banner,
        None
    );

    let app = apps::read_app(services, &ADMIN, &tenant.organization, &tenant.app)
        .await
        .unwrap();
    let rename = UpdateApp {
        name: Some("other".into()),
        settings: None,
    };
    let renamed = apps::update_app(
        services,
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
    let stale = apps::update_app(
        services,
        &ADMIN,
        &tenant.organization,
        &tenant.app,
        rename,
        Some(Precondition::Version(app.version)),
    )
    .await;
    assert_eq!(code(stale), ErrorCode::PreconditionFailed);
    let stale = apps::delete_app(
        services,
        &ADMIN,
        &tenant.organization,
        &tenant.app,
        Some(Precondition::Version(app.version)),
    )
    .await;
    assert_eq!(code(stale), ErrorCode::PreconditionFailed);
}
