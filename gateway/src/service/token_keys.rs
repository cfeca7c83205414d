//! Token keys: making, listing, revoking. [`crate::auth`] says how they are kept.

use protocol::{
    AppId, OrganizationId, TokenKeyId,
    model::{Algorithm, Environment, TokenKey},
    params::{CreateTokenKey, ListPage},
    results::List,
};
use serde::{Deserialize, Serialize};

use super::{
    Services,
    document::decode,
    ended::Ending,
    entries::parse_key,
    scope::{self, ENTITY, ONLY, TOKEN_KEYS},
};
use crate::{
    auth::{self, Principal, SecretKey, SecretKind, token::Verifier},
    config::Secret,
    error::{Error, Result},
    store::{Commit, Document, Expected, Range},
};

/// The longest PEM, in bytes: one of an RSA key of 8,192 bits has fewer than 1,500.
const LONGEST_PEM: usize = 8192;

/// A token key, found by its id. It counts while its line stands among its app's.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct StoredTokenKey {
    pub(crate) organization: OrganizationId,
    pub(crate) app: AppId,
    pub(crate) environment: Environment,
    pub(crate) algorithm: Algorithm,
    material: Material,
}

#[derive(Debug, Serialize, Deserialize)]
enum Material {
    /// A shared secret, sealed under the deployment's secret key with the token key's id as its name.
    Sealed(#[serde(with = "serde_bytes")] Vec<u8>),
    /// A public key in PEM.
    Public(String),
}

/// A token key as it stands among the others of its app.
#[derive(Debug, Serialize, Deserialize)]
struct TokenKeyLine {
    environment: Environment,
    algorithm: Algorithm,
}

impl StoredTokenKey {
    /// What checks its tokens.
    pub(crate) fn verifier(&self, key: &SecretKey, id: &TokenKeyId) -> Result<Verifier> {
        match &self.material {
            Material::Sealed(_) => Ok(Verifier::shared(&self.secret(key, id)?)),
            Material::Public(pem) => Verifier::public(self.algorithm, pem).map_err(Error::internal),
        }
    }

    /// Its shared secret.
    pub(super) fn secret(&self, key: &SecretKey, id: &TokenKeyId) -> Result<Vec<u8>> {
        match &self.material {
            Material::Sealed(sealed) => key.open(id.as_str(), sealed).map_err(Error::internal),
            Material::Public(_) => Err(Error::internal(
                "a token key with a public key has no secret",
            )),
        }
    }
}

/// A shared secret that is being made: stored by id, without a line.
pub(super) struct NewSharedKey {
    pub(super) id: TokenKeyId,
    pub(super) secret: Secret,
}

impl Services {
    /// Makes a token key. `bits` make its id; if that key exists, it is answered without its secret.
    pub async fn create_token_key(
        &self,
        principal: &Principal,
        organization: &OrganizationId,
        app: &AppId,
        body: CreateTokenKey,
        bits: u64,
    ) -> Result<TokenKey> {
        self.permit_app(principal, organization, app).await?;
        let id = TokenKeyId::from_bits(bits);
        let CreateTokenKey {
            environment,
            algorithm,
            public_key,
        } = body;
        let (secret, material) = match (algorithm, public_key) {
            (Algorithm::HS256, None) => {
                let (secret, material) = self.shared_material(&id);
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
            (_, Some(pem)) if pem.len() > LONGEST_PEM => {
                return Err(Error::too_large(format!(
                    "`public_key` is longer than {LONGEST_PEM} bytes"
                )));
            }
            (_, Some(pem)) => {
                Verifier::public(algorithm, &pem).map_err(Error::bad_request)?;
                (None, Material::Public(pem))
            }
        };
        let (organization, owner) = (organization.clone(), scope::app(app));
        let stored = StoredTokenKey {
            organization,
            app: app.clone(),
            environment,
            algorithm,
            material,
        };
        if !self.store_token_key(&id, &stored).await? {
            let snapshot = self
                .snapshot(owner, vec![(TOKEN_KEYS, id.shared())])
                .await?;
            return snapshot.documents[0]
                .as_ref()
                .map_or_else(|| Err(Error::busy()), token_key_of);
        }
        match self
            .store
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
                self.forget_token_key(&id).await?;
                Err(Error::not_found("app"))
            }
        }
    }

    /// Lists an app's token keys, by id.
    pub async fn list_token_keys(
        &self,
        principal: &Principal,
        organization: &OrganizationId,
        app: &AppId,
        page: ListPage,
    ) -> Result<List<TokenKey>> {
        self.permit_app(principal, organization, app).await?;
        let (lines, cursor) = self.page_of(&scope::app(app), TOKEN_KEYS, page).await?;
        Ok(List {
            items: lines.iter().map(token_key_of).collect::<Result<_>>()?,
            cursor,
        })
    }

    /// Revokes a token key: within seconds every node refuses its tokens and ends the sessions that they opened.
    pub async fn revoke_token_key(
        &self,
        principal: &Principal,
        organization: &OrganizationId,
        app: &AppId,
        id: &TokenKeyId,
    ) -> Result<()> {
        self.permit_app(principal, organization, app).await?;
        let owner = scope::app(app);
        let commit = Commit::default()
            .require(TOKEN_KEYS, id.shared(), Expected::Present)
            .delete(TOKEN_KEYS, id.shared());
        if self.store.commit(&owner, commit).await?.is_err() {
            return Err(Error::not_found("token key"));
        }
        self.end(Ending::TokenKey { id: id.clone() }).await?;
        self.forget_token_key(id).await
    }

    /// Stores a shared key for signing. It counts once its line stands.
    pub(super) async fn new_shared_key(
        &self,
        organization: &OrganizationId,
        app: &AppId,
        environment: Environment,
        id: TokenKeyId,
    ) -> Result<NewSharedKey> {
        let (secret, material) = self.shared_material(&id);
        let (organization, app) = (organization.clone(), app.clone());
        let stored = StoredTokenKey {
            organization,
            app,
            environment,
            algorithm: Algorithm::HS256,
            material,
        };
        match self.store_token_key(&id, &stored).await? {
            true => Ok(NewSharedKey { id, secret }),
            false => Err(Error::busy()),
        }
    }

    fn shared_material(&self, id: &TokenKeyId) -> (Secret, Material) {
        let secret = auth::random(SecretKind::Shared);
        let sealed = self.secret.seal(id.as_str(), secret.expose().as_bytes());
        (secret, Material::Sealed(sealed))
    }

    async fn store_token_key(&self, id: &TokenKeyId, stored: &StoredTokenKey) -> Result<bool> {
        let commit = Commit::default()
            .require(ENTITY, ONLY, Expected::Absent)
            .put(ENTITY, ONLY, stored);
        Ok(self
            .store
            .commit(&scope::token_key(id), commit)
            .await?
            .is_ok())
    }

    pub(super) async fn forget_token_key(&self, id: &TokenKeyId) -> Result<()> {
        self.unlist(&scope::token_key(id), ENTITY, ONLY.into())
            .await
    }

    /// Deletes every token key of an app that is no more.
    pub(super) async fn clear_token_keys(&self, owner: &crate::store::Partition) -> Result<()> {
        loop {
            let (page, _) = self
                .store
                .page(owner, TOKEN_KEYS, Range::Keys { after: None }, 200)
                .await?;
            let mut commit = Commit::default();
            for document in &page.documents {
                self.forget_token_key(&parse_key(&document.key)?).await?;
                commit = commit.delete(TOKEN_KEYS, document.key.clone());
            }
            if commit.write.is_empty() {
                return Ok(());
            }
            self.store
                .commit(owner, commit)
                .await?
                .map_err(|_| Error::busy())?;
        }
    }
}

/// Adds a token key's line to a commit of its app; with it, the key counts.
pub(super) fn token_key_line(
    commit: Commit,
    id: &TokenKeyId,
    environment: Environment,
    algorithm: Algorithm,
) -> Commit {
    commit.require(ENTITY, ONLY, Expected::Present).put(
        TOKEN_KEYS,
        id.shared(),
        &TokenKeyLine {
            environment,
            algorithm,
        },
    )
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
