//! Apps of an organization.

mod operations;

use protocol::{
    AppId, ErrorCode, OrganizationId,
    entity::App,
    operation::{
        app::{CreateApp, UpdateApp},
        page::{List, ListPage},
    },
};
use store::{Commit, Document, Expected};

use crate::{
    Services, check, commit,
    credential::Principal,
    document::{IfMatch, PutValue, Versioned, check_version, decode, parse_key},
    error::{Error, Result},
    jobs::{self, Task},
    retry::retry,
    schema::{self, APPS, ENTITY, ONLY, TOMBSTONE},
    tenants,
};

/// Decodes a stored app.
pub fn app_of(document: &Document) -> Result<App> {
    Ok(App {
        created_at: document.stamps.created_at,
        ..decode(document)?
    })
}

/// Creates an app with the id that `bits` make. Returns the app that has this id if there is one.
pub async fn create_app(
    services: &Services,
    principal: &Principal,
    organization: &OrganizationId,
    body: CreateApp,
    bits: u64,
) -> Result<Versioned<App>> {
    principal.organization(organization)?;
    let id = AppId::from_bits(bits);
    let app = App {
        id: id.clone(),
        organization_id: organization.clone(),
        name: body.name,
        settings: body.settings,
        created_at: 0,
    };
    check::required_line("name", &app.name, check::NAME)?;
    // Written before the app: a line without an app is harmless, but an app without a line would
    // outlive its organization.
    let listed = Commit::default()
        .require(ENTITY, ONLY, Expected::Present)
        .put_value(APPS, id.shared(), &());
    if services
        .commit(&schema::organization(organization), listed)
        .await?
        .is_err()
    {
        return Err(Error::not_found("organization"));
    }
    let mut commit = Commit::default()
        .require(ENTITY, ONLY, Expected::Absent)
        .require(TOMBSTONE, ONLY, Expected::Absent);
    let entity = commit.add_value(ENTITY, ONLY, &app);
    match services.commit(&schema::app(&id), commit).await? {
        Ok(outcome) => Ok(Versioned {
            value: App {
                created_at: outcome.stamps(entity).created_at,
                ..app
            },
            version: outcome.version(entity),
        }),
        Err(_) => read_app(services, principal, organization, &id).await,
    }
}

/// Lists an organization's apps, by id.
pub async fn list_apps(
    services: &Services,
    principal: &Principal,
    organization: &OrganizationId,
    page: ListPage,
) -> Result<List<App>> {
    tenants::permit_organization(services, principal, organization).await?;
    let (lines, cursor) = tenants::page_of(
        services,
        principal,
        &schema::organization(organization),
        APPS,
        page,
    )
    .await?;
    let ids: Vec<AppId> = lines
        .iter()
        .map(|line| parse_key(&line.key))
        .collect::<Result<_>>()?;
    let found = services.entities(ids.iter().map(schema::app)).await?;
    Ok(List {
        items: found.iter().flatten().map(app_of).collect::<Result<_>>()?,
        cursor,
    })
}

/// Changes some of an app's fields.
pub async fn update_app(
    services: &Services,
    principal: &Principal,
    organization: &OrganizationId,
    id: &AppId,
    patch: UpdateApp,
    if_match: IfMatch,
) -> Result<Versioned<App>> {
    retry(|| async {
        let Versioned {
            value: mut app,
            version,
        } = read_app(services, principal, organization, id).await?;
        check_version(if_match, version)?;
        let made_users = app.settings.create_users_from_tokens;
        app.name = patch.name.clone().unwrap_or(app.name);
        if let Some(create) = patch
            .settings
            .as_ref()
            .and_then(|settings| settings.create_users_from_tokens)
        {
            app.settings.create_users_from_tokens = create;
        }
        check::required_line("name", &app.name, check::NAME)?;
        let mut commit = Commit::default().require(ENTITY, ONLY, Expected::Version(version));
        let entity = commit.add_value(ENTITY, ONLY, &app);
        // Rights can be revoked while the store is full.
        if made_users && !app.settings.create_users_from_tokens {
            commit = commit.frees();
        }
        let committed = services.commit(&schema::app(id), commit).await?;
        Ok(committed.ok().map(|outcome| Versioned {
            value: app,
            version: outcome.version(entity),
        }))
    })
    .await
}

/// Deletes an app. Within seconds its keys and tokens are refused and its sessions end. A job
/// clears its users and channels.
pub async fn delete_app(
    services: &Services,
    principal: &Principal,
    organization: &OrganizationId,
    id: &AppId,
    if_match: IfMatch,
) -> Result<()> {
    let task = Task::App {
        organization: organization.clone(),
        id: id.clone(),
    };
    retry(|| async {
        let version = match read_app(services, principal, organization, id).await {
            Ok(app) => app.version,
            // An earlier attempt may have stopped after the tombstone. The task of the job names
            // the organization, too.
            Err(error) if error.code() == ErrorCode::NotFound => {
                jobs::pending_job(services, &task).await?.ok_or(error)?;
                return Ok(Some(()));
            }
            Err(error) => return Err(error),
        };
        check_version(if_match, version)?;
        let is_deleted = commit::delete_entity(services, &schema::app(id), &task, version).await?;
        Ok(is_deleted.then_some(()))
    })
    .await?;
    end_deleted_app(services, &task, organization, id).await
}

async fn end_deleted_app(
    services: &Services,
    task: &Task,
    organization: &OrganizationId,
    id: &AppId,
) -> Result<()> {
    // The job runs whether or not this request succeeds.
    jobs::wake_jobs(services);
    jobs::end_sessions_of(services, task).await?;
    commit::delete_documents(
        services,
        &schema::organization(organization),
        APPS,
        vec![id.shared()],
    )
    .await
}

/// Reads an app.
///
/// # Errors
/// `not_found` if the organization or app does not exist or is not the caller's, `forbidden` for an
/// app key or user token.
pub async fn read_app(
    services: &Services,
    principal: &Principal,
    organization: &OrganizationId,
    id: &AppId,
) -> Result<Versioned<App>> {
    principal.organization(organization)?;
    let partitions = [schema::organization(organization), schema::app(id)];
    let mut found = services.entities(partitions).await?.into_iter();
    let document = match (found.next().flatten(), found.next().flatten()) {
        (None, _) => return Err(Error::not_found("organization")),
        (Some(_), None) => return Err(Error::not_found("app")),
        (Some(_), Some(document)) => document,
    };
    let app = app_of(&document)?;
    if app.organization_id != *organization {
        return Err(Error::not_found("app"));
    }
    Ok(Versioned {
        value: app,
        version: document.version,
    })
}

/// Checks that a caller may act in an app, and that the app and its organization exist.
///
/// # Errors
/// Those of [`read_app`].
pub(super) async fn permit_app(
    services: &Services,
    principal: &Principal,
    organization: &OrganizationId,
    app: &AppId,
) -> Result<()> {
    read_app(services, principal, organization, app)
        .await
        .map(|_| ())
}
