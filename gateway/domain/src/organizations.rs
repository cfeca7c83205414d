//! Organizations.

mod operations;

use std::time::Duration;

use protocol::{
    ErrorCode, KeyId, OrganizationId,
    entity::{Key, Organization},
    operation::{
        organization::{CreateOrganization, OrganizationCreated, UpdateOrganization},
        page::{List, ListPage},
    },
};
use store::{Commit, Document, Expected};
use tokio::time::Instant;

use crate::{
    Services, check, clearing, commit,
    credential::Principal,
    document::{IfMatch, PutValue, Versioned, check_version, decode, parse_key},
    error::{Error, Result},
    jobs::{self, Task},
    keys::{self, Credential},
    retry::retry,
    schema::{self, ENTITY, ONLY, ORGANIZATIONS, TOMBSTONE},
    tenants,
};

/// Maximum time that a request spends on clearing the organization that it deletes. The job does
/// the rest.
const MAX_CLEARING: Duration = Duration::from_secs(1);

/// Creates an organization and its first key, with ids derived from `bits`. If the organization
/// exists, returns it and the key without its secret. The version is the organization's.
pub async fn create_organization(
    services: &Services,
    principal: &Principal,
    body: CreateOrganization,
    bits: u64,
) -> Result<Versioned<OrganizationCreated>> {
    principal.admin()?;
    let id = OrganizationId::from_bits(bits);
    let organization = Organization {
        id: id.clone(),
        name: body.name,
        email: body.email,
        banner: body.banner,
        created_at: 0,
    };
    check_organization(&organization, None)?;
    // Written before the organization: a line without an organization is harmless.
    let listed = Commit::default().put_value(ORGANIZATIONS, id.shared(), &());
    services
        .commit_or_busy(&schema::deployment(), listed)
        .await?;
    let first = Credential {
        organization: id.clone(),
        app: None,
        key: KeyId::from_bits(bits),
    };
    let key = keys::new_key(services, first, None, None).await?;
    let mut commit = Commit::default()
        .require(ENTITY, ONLY, Expected::Absent)
        .require(TOMBSTONE, ONLY, Expected::Absent);
    let entity = commit.add_value(ENTITY, ONLY, &organization);
    let partition = schema::organization(&id);
    match services.commit(&partition, key.line(commit)).await? {
        Ok(outcome) => {
            let organization = Organization {
                created_at: outcome.stamps(entity).created_at,
                ..organization
            };
            let value = OrganizationCreated {
                organization,
                key: key.shown(outcome.at),
            };
            Ok(Versioned {
                value,
                version: outcome.version(entity),
            })
        }
        Err(_) => {
            // The organization has its first key already, or is deleted.
            keys::forget_new_credential(services, &partition, &key.partition()).await?;
            let there = read_organization(services, principal, &id).await?;
            let key = keys::existing_key(services, &partition, &KeyId::from_bits(bits)).await?;
            Ok(Versioned {
                value: OrganizationCreated {
                    organization: there.value,
                    key,
                },
                version: there.version,
            })
        }
    }
}

/// Returns the current state of the organization that a request with these bits created, and its
/// first key without the secret, revoked or not.
pub async fn organization_made_by(
    services: &Services,
    principal: &Principal,
    bits: u64,
) -> Result<Versioned<OrganizationCreated>> {
    let there = read_organization(services, principal, &OrganizationId::from_bits(bits)).await?;
    let partition = schema::organization(&there.value.id);
    let id = KeyId::from_bits(bits);
    let key = keys::key_line(services, &partition, &id)
        .await?
        .unwrap_or(Key {
            id,
            name: None,
            environment: None,
            secret: None,
            created_at: there.value.created_at,
            expires_at: None,
        });
    Ok(Versioned {
        value: OrganizationCreated {
            organization: there.value,
            key,
        },
        version: there.version,
    })
}

/// Reads an organization.
pub async fn read_organization(
    services: &Services,
    principal: &Principal,
    id: &OrganizationId,
) -> Result<Versioned<Organization>> {
    principal.organization(id)?;
    match services.entity(schema::organization(id)).await? {
        Some(document) => Ok(Versioned {
            value: organization_of(&document)?,
            version: document.version,
        }),
        None => Err(Error::not_found("organization")),
    }
}

/// Lists all organizations, by id.
pub async fn list_organizations(
    services: &Services,
    principal: &Principal,
    page: ListPage,
) -> Result<List<Organization>> {
    principal.admin()?;
    let (lines, cursor) = tenants::page_of(
        services,
        principal,
        &schema::deployment(),
        ORGANIZATIONS,
        page,
    )
    .await?;
    let ids: Vec<OrganizationId> = lines
        .iter()
        .map(|line| parse_key(&line.key))
        .collect::<Result<_>>()?;
    let found = services
        .entities(ids.iter().map(schema::organization))
        .await?;
    Ok(List {
        items: found
            .iter()
            .flatten()
            .map(organization_of)
            .collect::<Result<_>>()?,
        cursor,
    })
}

/// Changes some of an organization's fields.
pub async fn update_organization(
    services: &Services,
    principal: &Principal,
    id: &OrganizationId,
    patch: UpdateOrganization,
    if_match: IfMatch,
) -> Result<Versioned<Organization>> {
    retry(|| async {
        let Versioned {
            value: mut organization,
            version,
        } = read_organization(services, principal, id).await?;
        check_version(if_match, version)?;
        let patch = patch.clone();
        organization.name = patch.name.unwrap_or(organization.name);
        organization.email = patch.email.unwrap_or(organization.email);
        let banner_before = organization.banner.clone();
        patch.banner.apply(&mut organization.banner);
        check_organization(&organization, banner_before.as_ref())?;
        let mut commit = Commit::default().require(ENTITY, ONLY, Expected::Version(version));
        let entity = commit.add_value(ENTITY, ONLY, &organization);
        let committed = services.commit(&schema::organization(id), commit).await?;
        Ok(committed.ok().map(|outcome| Versioned {
            value: organization,
            version: outcome.version(entity),
        }))
    })
    .await
}

/// Deletes an organization with its apps. Within seconds its keys and tokens are refused. A job
/// clears its data.
pub async fn delete_organization(
    services: &Services,
    principal: &Principal,
    id: &OrganizationId,
    if_match: IfMatch,
) -> Result<()> {
    #[derive(PartialEq, Eq)]
    enum Deleted {
        Now,
        Before,
    }
    let task = Task::Organization { id: id.clone() };
    let deleted = retry(|| async {
        let version = match read_organization(services, principal, id).await {
            Ok(organization) => organization.version,
            Err(error) if error.code() == ErrorCode::NotFound => {
                jobs::pending_job(services, &task).await?.ok_or(error)?;
                return Ok(Some(Deleted::Before));
            }
            Err(error) => return Err(error),
        };
        check_version(if_match, version)?;
        let partition = schema::organization(id);
        let is_deleted = commit::delete_entity(services, &partition, &task, version).await?;
        Ok(is_deleted.then_some(Deleted::Now))
    })
    .await?;
    if deleted == Deleted::Now {
        // Ends the sessions of its apps now, without waiting for the job.
        let until = Instant::now() + MAX_CLEARING;
        if let Err(error) = clearing::clear_organization(services, id, until).await {
            tracing::warn!(organization = %id, %error, "cannot end the sessions of a deleted organization, its job will retry");
        }
    }
    jobs::wake_jobs(services);
    Ok(())
}

/// Decodes a stored organization.
pub fn organization_of(document: &Document) -> Result<Organization> {
    Ok(Organization {
        created_at: document.stamps.created_at,
        ..decode(document)?
    })
}

/// Checks an organization's fields. `banner_before` is the stored one.
fn check_organization(organization: &Organization, banner_before: Option<&String>) -> Result<()> {
    check::required_line("name", &organization.name, check::NAME)?;
    check::required_line("email", &organization.email, protocol::bounds::EMAIL_CHARS)?;
    if !is_plausible(&organization.email) {
        return Err(Error::bad_request("`email` is no e-mail address"));
    }
    check::url("banner", organization.banner.as_ref(), banner_before)
}

/// Returns whether a text has the parts of an e-mail address.
fn is_plausible(email: &str) -> bool {
    let Some((local, domain)) = email.rsplit_once('@') else {
        return false;
    };
    let clean = |part: &str| {
        !part.is_empty()
            && !part.contains(|c: char| c.is_whitespace() || c.is_control() || c == '@')
    };
    clean(local) && clean(domain) && domain.split('.').all(|label| !label.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_something_on_both_sides_of_one_at() {
        for good in ["a@b", "first.last+tag@mail.example.org", "ü@exämple.org"] {
            assert!(is_plausible(good), "{good}");
        }
        for bad in [
            "", "a", "@b", "a@", "a b@c", "a@b c", "a@b@c", "a@b..c", "a@.b", "a\n@b",
        ] {
            assert!(!is_plausible(bad), "{bad}");
        }
    }
}
