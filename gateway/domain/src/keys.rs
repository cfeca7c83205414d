//! Keys of organizations and apps. [`crate::credential`] describes their storage.

mod operations;

use std::time::Duration;

use protocol::{
    AppId, KeyId, OrganizationId,
    entity::{Environment, Key},
    operation::{
        credential::{CreateAccess, CreateAppKey, CreateOrganizationKey},
        page::{List, ListPage},
    },
};
use serde::{Deserialize, Serialize};
use store::{Commit, Document, Expected, Partition, Range, Table};

use crate::{
    Services, apps, check, commit,
    credential::{self, Principal, SecretKind},
    document::{PutValue, decode, encode, parse_key},
    error::{Error, Result},
    redacted::Secret,
    schema::{self, ENTITY, KEYS, NEW_CREDENTIALS, ONLY, PartitionKind},
    tenants,
};

/// Maximum and default lifetime of an access key, in seconds.
const ACCESS_SECONDS: u64 = protocol::bounds::ACCESS_KEY_SECONDS;

/// Number of lines that are read at once to delete them.
const LINES_PER_PIECE: usize = 200;

/// The key and owner that the hash of a secret leads to.
#[derive(Debug, Serialize, Deserialize)]
pub struct Credential {
    /// The organization of the key or of its app.
    pub organization: OrganizationId,
    /// The app and environment of an app's key.
    pub app: Option<(AppId, Environment)>,
    /// The key.
    pub key: KeyId,
}

impl Credential {
    /// Returns the partition of its owner, an app or organization.
    fn owner(&self) -> Partition {
        match &self.app {
            Some((app, _)) => schema::app(app),
            None => schema::organization(&self.organization),
        }
    }
}

/// A key in the list of its owner.
#[derive(Debug, Serialize, Deserialize)]
pub struct KeyLine {
    /// Hash of the secret.
    pub hash: String,
    name: Option<String>,
    environment: Option<Environment>,
    /// Expiry of an access key, in milliseconds since the Unix epoch.
    pub expires_at: Option<u64>,
}

/// A key that is being created: its credential is stored, its line is not.
pub(super) struct NewKey {
    secret: Secret,
    id: KeyId,
    line: KeyLine,
}

impl NewKey {
    /// Returns the partition of its credential.
    pub(super) fn partition(&self) -> Partition {
        schema::credential(&self.line.hash)
    }

    /// Adds the key's line to a commit of its owner. The line makes the key valid.
    pub(super) fn line(&self, commit: Commit) -> Commit {
        commit
            .require(KEYS, self.id.shared(), Expected::Absent)
            .put_value(KEYS, self.id.shared(), &self.line)
            .delete(NEW_CREDENTIALS, self.partition().name())
    }

    /// Returns the answer that shows the secret.
    pub(super) fn shown(self, created_at: u64) -> Key {
        let secret = Some(self.secret.expose().to_owned());
        Key {
            id: self.id,
            name: self.line.name,
            environment: self.line.environment,
            secret,
            created_at,
            expires_at: self.line.expires_at,
        }
    }
}

/// Creates an organization key with the id that `bits` make. If it exists, returns it without its
/// secret.
pub async fn create_organization_key(
    services: &Services,
    principal: &Principal,
    organization: &OrganizationId,
    body: CreateOrganizationKey,
    bits: u64,
) -> Result<Key> {
    tenants::permit_organization(services, principal, organization).await?;
    let credential = Credential {
        organization: organization.clone(),
        app: None,
        key: KeyId::from_bits(bits),
    };
    create_key(services, credential, body.name, None).await
}

/// Creates an app key with the id that `bits` make. If it exists, returns it without its secret.
pub async fn create_app_key(
    services: &Services,
    principal: &Principal,
    organization: &OrganizationId,
    app: &AppId,
    body: CreateAppKey,
    bits: u64,
) -> Result<Key> {
    apps::permit_app(services, principal, organization, app).await?;
    let credential = Credential {
        organization: organization.clone(),
        app: Some((app.clone(), body.environment)),
        key: KeyId::from_bits(bits),
    };
    create_key(services, credential, body.name, None).await
}

/// Creates an access key: an app key that expires within an hour.
pub async fn create_access(
    services: &Services,
    principal: &Principal,
    organization: &OrganizationId,
    app: &AppId,
    body: CreateAccess,
    bits: u64,
) -> Result<Key> {
    apps::permit_app(services, principal, organization, app).await?;
    let seconds = body.expires_in.unwrap_or(ACCESS_SECONDS);
    if !(1..=ACCESS_SECONDS).contains(&seconds) {
        return Err(Error::bad_request(format!(
            "`expires_in` is 1 to {ACCESS_SECONDS} seconds"
        )));
    }
    forget_expired(services, &schema::app(app)).await?;
    let credential = Credential {
        organization: organization.clone(),
        app: Some((app.clone(), body.environment)),
        key: KeyId::from_bits(bits),
    };
    create_key(services, credential, None, Some(seconds)).await
}

/// Lists an organization's keys, by id.
pub async fn list_organization_keys(
    services: &Services,
    principal: &Principal,
    organization: &OrganizationId,
    page: ListPage,
) -> Result<List<Key>> {
    tenants::permit_organization(services, principal, organization).await?;
    list_keys(
        services,
        principal,
        &schema::organization(organization),
        page,
    )
    .await
}

/// Lists an app's keys, access keys included, by id.
pub async fn list_app_keys(
    services: &Services,
    principal: &Principal,
    organization: &OrganizationId,
    app: &AppId,
    page: ListPage,
) -> Result<List<Key>> {
    apps::permit_app(services, principal, organization, app).await?;
    list_keys(services, principal, &schema::app(app), page).await
}

/// Revokes an organization key. Every node refuses it within seconds.
pub async fn revoke_organization_key(
    services: &Services,
    principal: &Principal,
    organization: &OrganizationId,
    key: &KeyId,
) -> Result<()> {
    tenants::permit_organization(services, principal, organization).await?;
    revoke_key(services, &schema::organization(organization), key).await
}

/// Revokes an app key or access key. Every node refuses it within seconds.
pub async fn revoke_app_key(
    services: &Services,
    principal: &Principal,
    organization: &OrganizationId,
    app: &AppId,
    key: &KeyId,
) -> Result<()> {
    apps::permit_app(services, principal, organization, app).await?;
    revoke_key(services, &schema::app(app), key).await
}

/// Stores the credential of a new key, and notes it with its owner. The key is valid once its line
/// is written.
pub(super) async fn new_key(
    services: &Services,
    credential: Credential,
    name: Option<String>,
    seconds: Option<u64>,
) -> Result<NewKey> {
    check::line("name", name.as_ref(), check::NAME)?;
    let environment = credential.app.as_ref().map(|(_, environment)| *environment);
    let kind = match (environment, seconds) {
        (None, _) => SecretKind::Organization,
        (Some(environment), None) => SecretKind::App(environment),
        (Some(environment), Some(_)) => SecretKind::Access(environment),
    };
    let expires_at = match seconds {
        Some(seconds) => Some(services.store.now().await? + seconds * 1000),
        None => None,
    };
    let secret = credential::random(kind);
    let hash = credential::hash(secret.expose());
    // An expired credential is not read again. The additional time covers differences of clocks.
    let expire = seconds.map(|seconds| Duration::from_secs(seconds + 60));
    let commit = Commit {
        expire,
        ..Commit::default().put(ENTITY, ONLY, encode(&credential))
    };
    let partition = schema::credential(&hash);
    note_new_credential(services, &credential.owner(), &partition).await?;
    services.commit_or_busy(&partition, commit).await?;
    Ok(NewKey {
        secret,
        id: credential.key,
        line: KeyLine {
            hash: hash.to_string(),
            name,
            environment,
            expires_at,
        },
    })
}

/// Creates a key, which expires after `seconds` if given.
async fn create_key(
    services: &Services,
    credential: Credential,
    name: Option<String>,
    seconds: Option<u64>,
) -> Result<Key> {
    let owner = credential.owner();
    let owner_kind = if credential.app.is_some() {
        "app"
    } else {
        "organization"
    };
    let new = new_key(services, credential, name, seconds).await?;
    let mut commit = Commit::default();
    let owner_exists = commit.add_require(ENTITY, ONLY, Expected::Present);
    let commit = new.line(commit);
    match services.commit(&owner, commit).await? {
        Ok(outcome) => Ok(new.shown(outcome.at)),
        Err(conflict) => {
            forget_new_credential(services, &owner, &new.partition()).await?;
            if conflict.failed(owner_exists) {
                return Err(Error::not_found(owner_kind));
            }
            existing_key(services, &owner, &new.id).await
        }
    }
}

/// Deletes the credential of a new key or token key whose line could not be written.
pub(super) async fn forget_new_credential(
    services: &Services,
    owner: &Partition,
    credential: &Partition,
) -> Result<()> {
    drop_credential(services, credential).await?;
    let noted = vec![credential.name().into()];
    commit::delete_documents(services, owner, NEW_CREDENTIALS, noted).await
}

/// Returns a key that an earlier attempt created, without its secret.
pub(super) async fn existing_key(
    services: &Services,
    owner: &Partition,
    id: &KeyId,
) -> Result<Key> {
    key_line(services, owner, id).await?.ok_or_else(Error::busy)
}

/// Reads a key without its secret. Returns `None` if it was revoked.
pub(super) async fn key_line(
    services: &Services,
    owner: &Partition,
    id: &KeyId,
) -> Result<Option<Key>> {
    let line = services.document(owner.clone(), KEYS, id.shared()).await?;
    line.as_ref().map(key_of).transpose()
}

async fn list_keys(
    services: &Services,
    principal: &Principal,
    owner: &Partition,
    page: ListPage,
) -> Result<List<Key>> {
    let now = services.clock.now_ms();
    let (documents, cursor) = tenants::page_of(services, principal, owner, KEYS, page).await?;
    let keys: Vec<Key> = documents.iter().map(key_of).collect::<Result<_>>()?;
    Ok(List {
        items: keys
            .into_iter()
            .filter(|key| key.expires_at.is_none_or(|end| end > now))
            .collect(),
        cursor,
    })
}

async fn revoke_key(services: &Services, owner: &Partition, id: &KeyId) -> Result<()> {
    let line = services.document(owner.clone(), KEYS, id.shared()).await?;
    let line: KeyLine = decode(&line.ok_or_else(|| Error::not_found("key"))?)?;
    // The credential first: without it the key is refused, and while the line exists a repeat
    // completes the revocation.
    drop_credential(services, &schema::credential(&line.hash)).await?;
    commit::delete_documents(services, owner, KEYS, vec![id.shared()]).await
}

/// Deletes the lines of expired access keys. Their credentials expire by themselves.
async fn forget_expired(services: &Services, owner: &Partition) -> Result<()> {
    let now = services.store.now().await?;
    let mut after = None;
    loop {
        let (page, _) = services
            .store
            .page(owner, KEYS, Range::Keys { after }, LINES_PER_PIECE)
            .await?;
        let mut commit = Commit::default();
        for document in &page.documents {
            let line: KeyLine = decode(document)?;
            if line.expires_at.is_some_and(|end| end < now) {
                commit = commit.delete(KEYS, document.key.clone());
            }
        }
        if !commit.write.is_empty() {
            services.commit_or_busy(owner, commit).await?;
        }
        match page.documents.last() {
            Some(last) if page.more => after = Some(last.key.clone()),
            _ => return Ok(()),
        }
    }
}

/// Notes a credential with its owner before it is stored, so that it does not outlive its owner if
/// its creation is interrupted.
pub(super) async fn note_new_credential(
    services: &Services,
    owner: &Partition,
    credential: &Partition,
) -> Result<()> {
    let noted = Commit::default().put_value(NEW_CREDENTIALS, credential.name(), &());
    services.commit_or_busy(owner, noted).await?;
    Ok(())
}

/// Deletes the credentials of a deleted owner whose creation was interrupted.
pub(super) async fn clear_new_credentials(services: &Services, owner: &Partition) -> Result<()> {
    loop {
        let (page, _) = services
            .store
            .page(
                owner,
                NEW_CREDENTIALS,
                Range::Keys { after: None },
                LINES_PER_PIECE,
            )
            .await?;
        if page.documents.is_empty() {
            return Ok(());
        }
        let noted: Vec<store::DocumentKey> =
            page.documents.into_iter().map(|note| note.key).collect();
        for name in &noted {
            // A damaged line may name any partition.
            if let Some(PartitionKind::Credential | PartitionKind::TokenKey) =
                PartitionKind::of(name)
            {
                drop_credential(services, &Partition::new(&**name)).await?;
            }
        }
        commit::delete_documents(services, owner, NEW_CREDENTIALS, noted).await?;
    }
}

/// Deletes every key of a deleted owner.
pub(super) async fn clear_keys(services: &Services, owner: &Partition) -> Result<()> {
    clear_credentials(services, owner, KEYS, |document| {
        let line: KeyLine = decode(document)?;
        Ok(schema::credential(&line.hash))
    })
    .await
}

/// Deletes the lines in a table of a deleted owner, and the credential that belongs to each.
pub(super) async fn clear_credentials(
    services: &Services,
    owner: &Partition,
    lines: Table,
    credential_of: fn(&Document) -> Result<Partition>,
) -> Result<()> {
    loop {
        let (page, _) = services
            .store
            .page(owner, lines, Range::Keys { after: None }, LINES_PER_PIECE)
            .await?;
        if page.documents.is_empty() {
            return Ok(());
        }
        let mut cleared = Vec::with_capacity(page.documents.len());
        for document in page.documents {
            drop_credential(services, &credential_of(&document)?).await?;
            cleared.push(document.key);
        }
        commit::delete_documents(services, owner, lines, cleared).await?;
    }
}

/// Deletes the partition of a key or token key.
pub(super) async fn drop_credential(services: &Services, partition: &Partition) -> Result<()> {
    let commit = Commit {
        expire: Some(Duration::ZERO),
        ..Commit::default().delete(ENTITY, ONLY).frees()
    };
    services.commit_or_busy(partition, commit).await?;
    Ok(())
}

fn key_of(document: &Document) -> Result<Key> {
    let line: KeyLine = decode(document)?;
    let id = parse_key(&document.key)?;
    let created_at = document.stamps.created_at;
    Ok(Key {
        id,
        name: line.name,
        environment: line.environment,
        secret: None,
        created_at,
        expires_at: line.expires_at,
    })
}
