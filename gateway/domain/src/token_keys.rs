//! Token keys. [`crate::credential`] describes their storage.

mod operations;

use protocol::{
    AppId, OrganizationId, TokenKeyId,
    entity::{Algorithm, Environment, TokenKey},
    operation::{
        credential::CreateTokenKey,
        page::{List, ListPage},
    },
};
use serde::{Deserialize, Serialize};
use store::{Commit, Document, Expected, Partition};

use crate::{
    Services, apps, commit,
    credential::{self, Principal, SecretKey, SecretKind, token::Verifier},
    document::{PutValue, decode, parse_key},
    error::{Error, Result},
    jobs::{self, Task},
    keys,
    redacted::Secret,
    schema::{self, ENTITY, NEW_CREDENTIALS, ONLY, TOKEN_KEYS},
    tenants,
};

/// Maximum length of a PEM in bytes. One of an RSA key of 8,192 bits has fewer than 1,500.
const MAX_PEM_BYTES: usize = 8192;

/// A token key, found by its id. It is valid while its app has its line.
#[derive(Debug, Serialize, Deserialize)]
pub struct StoredTokenKey {
    /// Organization of the app.
    pub organization: OrganizationId,
    /// The app.
    pub app: AppId,
    /// The environment of its tokens.
    pub environment: Environment,
    /// The algorithm of its tokens.
    pub algorithm: Algorithm,
    material: Material,
}

#[derive(Debug, Serialize, Deserialize)]
enum Material {
    /// A shared secret, sealed under the deployment's secret key with the token key's id as its
    /// name.
    Sealed(#[serde(with = "serde_bytes")] Vec<u8>),
    /// A public key in PEM.
    Public(String),
}

/// A token key in the list of its app.
#[derive(Debug, Serialize, Deserialize)]
struct TokenKeyLine {
    environment: Environment,
    algorithm: Algorithm,
}

impl StoredTokenKey {
    /// Returns a verifier of its tokens.
    ///
    /// # Errors
    /// `internal` if the stored key cannot be read.
    pub fn verifier(&self, key: &SecretKey, id: &TokenKeyId) -> Result<Verifier> {
        match &self.material {
            Material::Sealed(_) => Ok(Verifier::shared(&self.secret(key, id)?)),
            Material::Public(pem) => Verifier::public(self.algorithm, pem).map_err(Error::internal),
        }
    }

    /// Returns its shared secret.
    pub(super) fn secret(&self, key: &SecretKey, id: &TokenKeyId) -> Result<Vec<u8>> {
        match &self.material {
            Material::Sealed(sealed) => key.open(id.as_str(), sealed).map_err(Error::internal),
            Material::Public(_) => Err(Error::internal(
                "a token key with a public key has no secret",
            )),
        }
    }
}

/// A token key with a shared secret that is being created: stored, without a line.
pub(super) struct NewSharedKey {
    pub(super) id: TokenKeyId,
    pub(super) secret: Secret,
}

/// Creates a token key with the id that `bits` make. If it exists, returns it without its secret.
pub async fn create_token_key(
    services: &Services,
    principal: &Principal,
    organization: &OrganizationId,
    app: &AppId,
    body: CreateTokenKey,
    bits: u64,
) -> Result<TokenKey> {
    apps::permit_app(services, principal, organization, app).await?;
    let id = TokenKeyId::from_bits(bits);
    let CreateTokenKey {
        environment,
        algorithm,
        public_key,
    } = body;
    let (secret, material) = match (algorithm, public_key) {
        (Algorithm::HS256, None) => {
            let (secret, material) = shared_material(services, &id);
            (Some(secret), material)
        }
        (Algorithm::HS256, Some(_)) => {
            return Err(Error::bad_request(
                "HS256 takes no `public_key`: its secret is made here",
            ));
        }
        (_, None) => {
            return Err(Error::bad_request(
                "`public_key` is missing: the PEM (SPKI) of the key that verifies the tokens",
            ));
        }
        (_, Some(pem)) if pem.len() > MAX_PEM_BYTES => {
            return Err(Error::too_large(format!(
                "`public_key` is longer than {MAX_PEM_BYTES} bytes"
            )));
        }
        (_, Some(pem)) => {
            Verifier::public(algorithm, &pem).map_err(Error::bad_request)?;
            (None, Material::Public(pem))
        }
    };
    let (organization, owner) = (organization.clone(), schema::app(app));
    let stored = StoredTokenKey {
        organization,
        app: app.clone(),
        environment,
        algorithm,
        material,
    };
    let secret = if store_token_key(services, &id, &stored).await? {
        secret
    } else {
        // An earlier attempt stored the key. If it did not list it, its secret was never
        // returned, so it is returned now.
        let line = services
            .document(owner.clone(), TOKEN_KEYS, id.shared())
            .await?;
        if let Some(line) = &line {
            let noted = schema::token_key(&id).name().into();
            commit::delete_documents(services, &owner, NEW_CREDENTIALS, vec![noted]).await?;
            return token_key_of(line);
        }
        let kept = services.entity(schema::token_key(&id)).await?;
        let kept: StoredTokenKey = decode(&kept.ok_or_else(Error::busy)?)?;
        let secret = matches!(kept.material, Material::Sealed(_))
            .then(|| kept.secret(&services.secret, &id))
            .transpose()?;
        secret.map(|secret| Secret::new(String::from_utf8_lossy(&secret)))
    };
    match services
        .commit(
            &owner,
            token_key_line(Commit::default(), &id, environment, algorithm),
        )
        .await?
    {
        Ok(outcome) => {
            let secret = secret.map(|secret| secret.expose().to_owned());
            Ok(TokenKey {
                id,
                environment,
                algorithm,
                secret,
                created_at: outcome.at,
            })
        }
        Err(_) => {
            keys::forget_new_credential(services, &owner, &schema::token_key(&id)).await?;
            Err(Error::not_found("app"))
        }
    }
}

/// Lists an app's token keys, by id.
pub async fn list_token_keys(
    services: &Services,
    principal: &Principal,
    organization: &OrganizationId,
    app: &AppId,
    page: ListPage,
) -> Result<List<TokenKey>> {
    apps::permit_app(services, principal, organization, app).await?;
    let (lines, cursor) =
        tenants::page_of(services, principal, &schema::app(app), TOKEN_KEYS, page).await?;
    Ok(List {
        items: lines.iter().map(token_key_of).collect::<Result<_>>()?,
        cursor,
    })
}

/// Revokes a token key. Within seconds every node refuses its tokens and ends the sessions that
/// they opened.
pub async fn revoke_token_key(
    services: &Services,
    principal: &Principal,
    organization: &OrganizationId,
    app: &AppId,
    id: &TokenKeyId,
) -> Result<()> {
    apps::permit_app(services, principal, organization, app).await?;
    let task = Task::TokenKey {
        app: app.clone(),
        id: id.clone(),
    };
    let line = services
        .document(schema::app(app), TOKEN_KEYS, id.shared())
        .await?;
    match line {
        Some(_) => {
            jobs::note_job(services, &task).await?;
            keys::drop_credential(services, &schema::token_key(id)).await?;
        }
        // An earlier attempt may have stopped after it deleted the line.
        None => drop(
            jobs::pending_job(services, &task)
                .await?
                .ok_or_else(|| Error::not_found("token key"))?,
        ),
    }
    let done = finish_token_key_revocation(services, app, id).await;
    if done.is_err() {
        jobs::wake_jobs(services);
    }
    done
}

/// Deletes the line of a revoked token key, and ends the sessions that its tokens opened.
pub(super) async fn finish_token_key_revocation(
    services: &Services,
    app: &AppId,
    id: &TokenKeyId,
) -> Result<()> {
    let task = Task::TokenKey {
        app: app.clone(),
        id: id.clone(),
    };
    commit::delete_documents(services, &schema::app(app), TOKEN_KEYS, vec![id.shared()]).await?;
    jobs::end_sessions_of(services, &task).await
}

/// Stores a token key with a shared secret. It is valid once its line is written.
pub(super) async fn new_shared_key(
    services: &Services,
    organization: &OrganizationId,
    app: &AppId,
    environment: Environment,
    id: TokenKeyId,
) -> Result<NewSharedKey> {
    let (secret, material) = shared_material(services, &id);
    let (organization, app) = (organization.clone(), app.clone());
    let stored = StoredTokenKey {
        organization,
        app,
        environment,
        algorithm: Algorithm::HS256,
        material,
    };
    match store_token_key(services, &id, &stored).await? {
        true => Ok(NewSharedKey { id, secret }),
        false => Err(Error::busy()),
    }
}

fn shared_material(services: &Services, id: &TokenKeyId) -> (Secret, Material) {
    let secret = credential::random(SecretKind::Shared);
    let sealed = services
        .secret
        .seal(id.as_str(), secret.expose().as_bytes());
    (secret, Material::Sealed(sealed))
}

/// Stores a token key, and notes it with its app. Returns false if it exists.
async fn store_token_key(
    services: &Services,
    id: &TokenKeyId,
    stored: &StoredTokenKey,
) -> Result<bool> {
    keys::note_new_credential(services, &schema::app(&stored.app), &schema::token_key(id)).await?;
    let commit = Commit::default()
        .require(ENTITY, ONLY, Expected::Absent)
        .put_value(ENTITY, ONLY, stored);
    Ok(services
        .commit(&schema::token_key(id), commit)
        .await?
        .is_ok())
}

/// Deletes every token key of a deleted app.
pub(super) async fn clear_token_keys(services: &Services, owner: &Partition) -> Result<()> {
    keys::clear_credentials(services, owner, TOKEN_KEYS, |document| {
        Ok(schema::token_key(&parse_key(&document.key)?))
    })
    .await
}

/// Adds a token key's line to a commit of its app. The line makes the key valid.
pub(super) fn token_key_line(
    commit: Commit,
    id: &TokenKeyId,
    environment: Environment,
    algorithm: Algorithm,
) -> Commit {
    let line = TokenKeyLine {
        environment,
        algorithm,
    };
    commit
        .require(ENTITY, ONLY, Expected::Present)
        .put_value(TOKEN_KEYS, id.shared(), &line)
        .delete(NEW_CREDENTIALS, schema::token_key(id).name())
}

fn token_key_of(document: &Document) -> Result<TokenKey> {
    let TokenKeyLine {
        environment,
        algorithm,
    } = decode(document)?;
    let id = parse_key(&document.key)?;
    Ok(TokenKey {
        id,
        environment,
        algorithm,
        secret: None,
        created_at: document.stamps.created_at,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use std::sync::Arc;

    use fanout::bus::{Local, conformance::Recorder};
    use protocol::Limits;
    use store::{Keep, embedded::Embedded};

    use super::*;

    #[tokio::test]
    async fn token_key_whose_creation_stopped_half_way_is_completed_by_a_repeat() {
        let folder = tempfile::tempdir().unwrap();
        let store = Embedded::open(
            folder.path(),
            Keep {
                events: 0,
                bytes: 0,
            },
            Local::new(Recorder::new()),
        )
        .unwrap();
        let services = Services::new(
            Arc::new(store),
            Limits::default(),
            SecretKey::new([7; 32]),
            "node",
        );
        let (organization, app, bits) = (OrganizationId::from_bits(1), AppId::from_bits(2), 3);
        let ours = Commit::default().put_value(
            ENTITY,
            ONLY,
            &protocol::entity::App {
                id: app.clone(),
                organization_id: organization.clone(),
                name: "Chat".into(),
                settings: protocol::entity::AppSettings::default(),
                created_at: 0,
            },
        );
        services
            .commit(&schema::app(&app), ours)
            .await
            .unwrap()
            .unwrap();
        let theirs = Commit::default().put_value(ENTITY, ONLY, &true);
        services
            .commit(&schema::organization(&organization), theirs)
            .await
            .unwrap()
            .unwrap();
        let id = TokenKeyId::from_bits(bits);
        let (secret, material) = shared_material(&services, &id);
        let stored = StoredTokenKey {
            organization: organization.clone(),
            app: app.clone(),
            environment: Environment::Live,
            algorithm: Algorithm::HS256,
            material,
        };
        assert!(store_token_key(&services, &id, &stored).await.unwrap());

        let body = || CreateTokenKey {
            environment: Environment::Live,
            algorithm: Algorithm::HS256,
            public_key: None,
        };
        let owner = Principal::Organization {
            id: organization.clone(),
            key: protocol::KeyId::from_bits(4),
        };
        let create = async || {
            create_token_key(&services, &owner, &organization, &app, body(), bits)
                .await
                .unwrap()
        };
        let completed = create().await;
        assert_eq!(
            (completed.id, completed.secret.as_deref()),
            (id.clone(), Some(secret.expose()))
        );
        assert_eq!(
            (create().await.id, create().await.secret),
            (id, None),
            "what is complete is not told again"
        );
    }
}
