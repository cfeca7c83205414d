//! Apps of an organization: making, reading, changing, listing, deleting.

use protocol::{
    AppId, OrganizationId,
    model::App,
    params::{CreateApp, ListPage, UpdateApp},
    results::List,
};

use super::{
    ATTEMPTS, Services, check,
    document::{IfMatch, Versioned, check_version, decode},
    entries::parse_key,
    scope::{self, APPS, ENTITY, ONLY, TOMBSTONE},
    tenants::OVER,
};
use crate::{
    auth::Principal,
    error::{Error, Result},
    store::{Commit, Document, Expected, Read},
};

/// An app as it stands in the store.
pub(crate) fn app_of(document: &Document) -> Result<App> {
    Ok(App {
        created_at: document.stamps.created_at,
        ..decode(document)?
    })
}

impl Services {
    /// Makes an app. `bits` make its id; if that app exists, it is answered.
    pub async fn create_app(
        &self,
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
        check::present("name", &app.name, check::NAME)?;
        // Before the app: a line without an app harms nobody, and an app without one would outlive its organization.
        let listed = Commit::default()
            .require(ENTITY, ONLY, Expected::Present)
            .put(APPS, id.shared(), &());
        if self
            .store
            .commit(&scope::organization(organization), listed)
            .await?
            .is_err()
        {
            return Err(Error::not_found("organization"));
        }
        let commit = Commit::default()
            .require(ENTITY, ONLY, Expected::Absent)
            .require(TOMBSTONE, ONLY, Expected::Absent)
            .put(ENTITY, ONLY, &app);
        match self.store.commit(&scope::app(&id), commit).await? {
            Ok(outcome) => {
                let written = outcome.written[0];
                Ok(Versioned {
                    value: App {
                        created_at: written.stamps.created_at,
                        ..app
                    },
                    version: written.version,
                })
            }
            Err(_) => self.app(principal, organization, &id).await,
        }
    }

    /// Reads an app.
    pub async fn app(
        &self,
        principal: &Principal,
        organization: &OrganizationId,
        id: &AppId,
    ) -> Result<Versioned<App>> {
        principal.organization(organization)?;
        let reads = [scope::organization(organization), scope::app(id)];
        let read = |partition| Read {
            partition,
            documents: vec![(ENTITY, ONLY.into())],
            newest: None,
        };
        let mut found = self
            .store
            .read(reads.into_iter().map(read).collect())
            .await?
            .into_iter()
            .map(|mut s| s.documents.pop().flatten());
        if found.next().flatten().is_none() {
            return Err(Error::not_found("organization"));
        }
        let document = found
            .next()
            .flatten()
            .ok_or_else(|| Error::not_found("app"))?;
        let app = app_of(&document)?;
        if app.organization_id != *organization {
            return Err(Error::not_found("app"));
        }
        Ok(Versioned {
            value: app,
            version: document.version,
        })
    }

    /// Lists an organization's apps, by id.
    pub async fn list_apps(
        &self,
        principal: &Principal,
        organization: &OrganizationId,
        page: ListPage,
    ) -> Result<List<App>> {
        self.permit_organization(principal, organization).await?;
        let (lines, cursor) = self
            .page_of(&scope::organization(organization), APPS, page)
            .await?;
        let ids: Vec<AppId> = lines
            .iter()
            .map(|line| parse_key(&line.key))
            .collect::<Result<_>>()?;
        let found = self.entities(ids.iter().map(scope::app).collect()).await?;
        Ok(List {
            items: found.iter().map(app_of).collect::<Result<_>>()?,
            cursor,
        })
    }

    /// Changes some of an app's fields.
    pub async fn update_app(
        &self,
        principal: &Principal,
        organization: &OrganizationId,
        id: &AppId,
        patch: UpdateApp,
        if_match: IfMatch,
    ) -> Result<Versioned<App>> {
        for _ in 0..ATTEMPTS {
            let Versioned {
                value: mut app,
                version,
            } = self.app(principal, organization, id).await?;
            check_version(if_match, version)?;
            app.name = patch.name.clone().unwrap_or(app.name);
            if let Some(create) = patch
                .settings
                .as_ref()
                .and_then(|settings| settings.create_users_from_tokens)
            {
                app.settings.create_users_from_tokens = create;
            }
            check::present("name", &app.name, check::NAME)?;
            let commit = Commit::default()
                .require(ENTITY, ONLY, Expected::Version(version))
                .put(ENTITY, ONLY, &app);
            if let Ok(outcome) = self.store.commit(&scope::app(id), commit).await? {
                return Ok(Versioned {
                    value: app,
                    version: outcome.written[0].version,
                });
            }
        }
        Err(Error::busy())
    }

    /// Deletes an app: within seconds none of its keys and tokens is accepted and its sessions end; its users and channels
    /// are cleared away afterwards.
    pub async fn delete_app(
        &self,
        principal: &Principal,
        organization: &OrganizationId,
        id: &AppId,
        if_match: IfMatch,
    ) -> Result<()> {
        let partition = scope::app(id);
        for _ in 0..ATTEMPTS {
            let Versioned { version, .. } = self.app(principal, organization, id).await?;
            check_version(if_match, version)?;
            if self.entomb(&partition, version).await? {
                self.end_sessions_of_app(id).await?;
                self.unlist(&scope::organization(organization), APPS, id.shared())
                    .await?;
                self.clear_soon(partition, OVER);
                return Ok(());
            }
        }
        Err(Error::busy())
    }
}
