//! Looks up credentials.

use std::{hash::Hash, sync::Arc};

use domain::{
    Services,
    apps::app_of,
    credential::{
        Actor, AdminKey, Principal, SecretKind, Who, hash,
        token::{self, Invalid, Verifier},
    },
    document::decode,
    ended::revoked_second,
    ensure,
    error::{Error, Result},
    keys::{Credential, KeyLine},
    schema::{self, ENTITY, KEYS, ONLY, REVOCATION, Scope, TOKEN_KEYS, TOMBSTONE},
    token_keys::StoredTokenKey,
};
use protocol::{ErrorCode, TokenKeyId, UserId};
use store::{Document, Read};

use super::{attempt::Attempt, cache::Cache};

/// Maximum number of cached keys, and of cached token keys.
const CACHE_CAPACITY: usize = 10_000;

/// Authenticates credentials. Caches keys and token keys for at most [`STALE`](super::STALE), users
/// never.
#[derive(Debug)]
pub struct Authenticator {
    services: Services,
    admin: AdminKey,
    keys: Cache<Arc<str>, Arc<KnownKey>>,
    token_keys: Cache<TokenKeyId, Arc<KnownTokenKey>>,
}

/// A key that was listed, and whose owner existed, when it was read.
#[derive(Debug)]
struct KnownKey {
    principal: Principal,
    expires_at: Option<u64>,
}

/// A token key that was listed, and whose app existed, when it was read.
#[derive(Debug)]
struct KnownTokenKey {
    scope: Scope,
    verifier: Verifier,
    create_users: bool,
}

/// A user whose token is valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// The user.
    pub actor: Actor,
    /// The token's `name`.
    pub name: Option<String>,
    /// The token's `exp`, in milliseconds since the Unix epoch. The token is accepted for
    /// [`token::LEEWAY`] longer.
    pub expires_at_ms: u64,
}

/// A token with a valid signature and time, whose user was not looked up yet.
#[derive(Debug)]
pub struct Signed {
    key: Arc<KnownTokenKey>,
    id: TokenKeyId,
    claims: token::Claims,
}

impl Signed {
    /// Returns the app and environment of the key that signed it.
    pub fn scope(&self) -> &Scope {
        &self.key.scope
    }

    /// Returns the user of the token.
    pub fn user(&self) -> &UserId {
        &self.claims.user
    }
}

/// Reason for which a token is not accepted.
#[derive(Debug, Clone)]
pub enum TokenRefused {
    /// It has expired: close code 4003.
    Expired,
    /// Any other reason, as a sentence: close code 4002.
    Other(String),
    /// It was not checked: the store is unavailable, or the address has failed too often.
    Undecided(Error),
}

impl From<Invalid> for TokenRefused {
    fn from(invalid: Invalid) -> Self {
        match invalid {
            Invalid::Expired => Self::Expired,
            Invalid::Other(sentence) => Self::Other(sentence),
        }
    }
}

impl From<Error> for TokenRefused {
    fn from(error: Error) -> Self {
        Self::Undecided(error)
    }
}

impl From<TokenRefused> for Error {
    fn from(refused: TokenRefused) -> Self {
        match refused {
            TokenRefused::Expired => Error::unauthenticated("the token has expired"),
            TokenRefused::Other(sentence) => Error::unauthenticated(sentence),
            TokenRefused::Undecided(error) => error,
        }
    }
}

fn refused(sentence: &str) -> TokenRefused {
    TokenRefused::Other(sentence.to_owned())
}

impl Authenticator {
    /// Creates an authenticator.
    pub fn new(services: Services, admin: AdminKey) -> Self {
        let (keys, token_keys) = (
            Cache::new(CACHE_CAPACITY, services.clock.clone()),
            Cache::new(CACHE_CAPACITY, services.clock.clone()),
        );
        Self {
            services,
            admin,
            keys,
            token_keys,
        }
    }

    /// Authenticates a credential, as it follows `Bearer ` in an HTTP request. Failures are not
    /// counted.
    ///
    /// # Errors
    /// `unauthenticated` if the credential is not valid, `unavailable` if the store does not
    /// answer.
    pub async fn authenticate(&self, bearer: &str) -> Result<Principal> {
        self.principal(bearer, None).await
    }

    /// Like [`authenticate`](Self::authenticate), and counts a failure against the address of
    /// `attempt`. A credential that is not cached is charged before the store is read.
    ///
    /// # Errors
    /// Like `authenticate`, and `rate_limited` if the address has failed too often.
    pub async fn authenticate_attempt(
        &self,
        bearer: &str,
        attempt: &mut Attempt,
    ) -> Result<Principal> {
        match self.principal(bearer, Some(attempt)).await {
            Err(error) if error.code() == ErrorCode::Unauthenticated => {
                Err(attempt.charge().err().unwrap_or(error))
            }
            other => other,
        }
    }

    async fn principal(&self, bearer: &str, attempt: Option<&mut Attempt>) -> Result<Principal> {
        if !SecretKind::is_key(bearer) {
            if !token::is_jwt(bearer) {
                return Err(Error::unauthenticated(
                    "this is neither a key (adm_, ork_, sk_, ak_) nor a user token (a JWT)",
                ));
            }
            return Ok(Principal::Actor(self.user(bearer, attempt).await?.actor));
        }
        if bearer.starts_with(SecretKind::Admin.prefix()) {
            return if self.admin.is(bearer) {
                Ok(Principal::Admin)
            } else {
                Err(no_key())
            };
        }
        let hash = hash(bearer);
        let known = look_up(&self.keys, &hash, self.read_key(&hash), attempt)
            .await?
            .ok_or_else(no_key)?;
        if known
            .expires_at
            .is_some_and(|end| end <= self.services.clock.now_ms())
        {
            return Err(Error::unauthenticated("the key has expired"));
        }
        Ok(known.principal.clone())
    }

    /// Authenticates a user token. Creates an unknown user if the app allows that. Failures are not
    /// counted.
    ///
    /// # Errors
    /// Fails if the token is invalid or its user was deleted, revoked or may not be created, or if
    /// the store does not answer.
    pub async fn verify(&self, token: &str) -> Result<Verified, TokenRefused> {
        self.user(token, None).await
    }

    /// Checks a token's signature and time, without reading its user. A token key that is not
    /// cached is charged before it is read. The caller charges refused tokens.
    ///
    /// # Errors
    /// Fails if the token is invalid or expired, if its address has failed too often, or if the
    /// store does not answer.
    pub async fn check_attempt(
        &self,
        token: &str,
        attempt: &mut Attempt,
    ) -> Result<Signed, TokenRefused> {
        self.check(token, Some(attempt)).await
    }

    /// Returns the user of a checked token. Creates an unknown user if the app allows that.
    ///
    /// # Errors
    /// Fails if the user was deleted, the token revoked, or the user may not be created, or if the
    /// store does not answer.
    pub async fn admit(&self, signed: Signed) -> Result<Verified, TokenRefused> {
        let Signed { key, id, claims } = signed;
        self.admit_user(&key, &claims).await?;
        let who = Who::User {
            id: claims.user,
            token_key: id,
            issued_at: claims.issued_at,
            expires_at: claims.expires_at,
        };
        let actor = Actor {
            scope: key.scope.clone(),
            who,
        };
        Ok(Verified {
            actor,
            name: claims.name,
            expires_at_ms: claims.expires_at * 1000,
        })
    }

    async fn user(
        &self,
        token: &str,
        attempt: Option<&mut Attempt>,
    ) -> Result<Verified, TokenRefused> {
        self.admit(self.check(token, attempt).await?).await
    }

    async fn check(
        &self,
        token: &str,
        attempt: Option<&mut Attempt>,
    ) -> Result<Signed, TokenRefused> {
        let id = token::key_id(token)?;
        let key = look_up(&self.token_keys, &id, self.read_token_key(&id), attempt).await?;
        let key = key.ok_or_else(token::Invalid::bad_signature)?;
        let claims = key.verifier.check(
            token,
            self.services.clock.now_ms(),
            self.services.limits.token_seconds,
        )?;
        Ok(Signed { key, id, claims })
    }

    /// Checks that the user exists, or may be created, and that the token was not revoked.
    async fn admit_user(
        &self,
        key: &KnownTokenKey,
        claims: &token::Claims,
    ) -> Result<(), TokenRefused> {
        let user = &claims.user;
        let wanted = [ENTITY, TOMBSTONE, REVOCATION]
            .map(|table| (table, ONLY.into()))
            .to_vec();
        let snapshot = self.services.snapshot(key.scope.user(user), wanted).await?;
        let [entity, tombstone, revocation] = &snapshot.documents[..] else {
            return Err(Error::internal("a read returned too few documents").into());
        };
        if tombstone.is_some() {
            return Err(refused("the user was deleted"));
        }
        if revocation
            .as_ref()
            .is_some_and(|revocation| claims.issued_at <= revoked_second(&revocation.stamps))
        {
            return Err(refused("the user's tokens of that time were revoked"));
        }
        match entity {
            Some(_) => Ok(()),
            None if !key.create_users => Err(refused(
                "the user does not exist, and this app makes no users from tokens",
            )),
            None => {
                self.create_user(&key.scope, user, claims.name.as_deref())
                    .await
            }
        }
    }

    async fn create_user(
        &self,
        scope: &Scope,
        user: &UserId,
        name: Option<&str>,
    ) -> Result<(), TokenRefused> {
        match ensure::ensure_user(&self.services, scope, user, name).await? {
            true => Ok(()),
            false => Err(refused("the user was deleted")),
        }
    }

    async fn read_key(&self, hash: &str) -> Result<Option<Arc<KnownKey>>> {
        let found = self
            .services
            .snapshot(schema::credential(hash), vec![(ENTITY, ONLY.into())])
            .await?;
        let credential: Credential = match &found.documents[0] {
            Some(document) => decode(document)?,
            None => return Ok(None),
        };
        let line = (KEYS, credential.key.shared());
        let entity = (ENTITY, ONLY.into());
        let organization = schema::organization(&credential.organization);
        let reads = match &credential.app {
            None => vec![Read {
                partition: organization,
                documents: vec![entity, line],
                newest: None,
            }],
            Some((app, _)) => vec![
                Read {
                    partition: schema::app(app),
                    documents: vec![entity.clone(), line],
                    newest: None,
                },
                Read {
                    partition: organization,
                    documents: vec![entity],
                    newest: None,
                },
            ],
        };
        let snapshots = self.services.store.read(reads).await?;
        let Some(documents) = all_present(snapshots.iter().flat_map(|s| &s.documents)) else {
            return Ok(None);
        };
        let line: KeyLine = decode(documents[1])?;
        if *line.hash != *hash {
            return Ok(None);
        }
        let principal = match credential.app {
            None => Principal::Organization {
                id: credential.organization,
                key: credential.key,
            },
            Some((app, environment)) => Principal::Actor(Actor {
                scope: Scope { app, environment },
                who: Who::App {
                    key: credential.key,
                },
            }),
        };
        Ok(Some(Arc::new(KnownKey {
            principal,
            expires_at: line.expires_at,
        })))
    }

    async fn read_token_key(&self, id: &TokenKeyId) -> Result<Option<Arc<KnownTokenKey>>> {
        let found = self
            .services
            .snapshot(schema::token_key(id), vec![(ENTITY, ONLY.into())])
            .await?;
        let stored: StoredTokenKey = match &found.documents[0] {
            Some(document) => decode(document)?,
            None => return Ok(None),
        };
        let line = (TOKEN_KEYS, id.shared());
        let reads = vec![
            Read {
                partition: schema::app(&stored.app),
                documents: vec![(ENTITY, ONLY.into()), line],
                newest: None,
            },
            Read {
                partition: schema::organization(&stored.organization),
                documents: vec![(ENTITY, ONLY.into())],
                newest: None,
            },
        ];
        let snapshots = self.services.store.read(reads).await?;
        let Some(documents) = all_present(snapshots.iter().flat_map(|s| &s.documents)) else {
            return Ok(None);
        };
        Ok(Some(Arc::new(KnownTokenKey {
            verifier: stored.verifier(&self.services.secret, id)?,
            create_users: app_of(documents[0])?.settings.create_users_from_tokens,
            scope: Scope {
                app: stored.app,
                environment: stored.environment,
            },
        })))
    }
}

/// Returns the value of a key from the cache, or else from the store. An attempt is charged before
/// the store is read, unless the cache had the key: so guesses are limited by the address's bucket,
/// while clients with valid credentials at the same address are not.
async fn look_up<K: Eq + Hash + Clone, V: Clone>(
    cache: &Cache<K, V>,
    key: &K,
    read: impl Future<Output = Result<Option<V>>>,
    mut attempt: Option<&mut Attempt>,
) -> Result<Option<V>> {
    let found = cache
        .get(
            key,
            || attempt.as_mut().map_or(Ok(()), |attempt| attempt.charge()),
            read,
        )
        .await;
    if let (Some(attempt), Ok(Some(_)) | Err(_)) = (attempt, &found) {
        attempt.refund();
    }
    found
}

fn no_key() -> Error {
    Error::unauthenticated("the key does not exist or was revoked")
}

/// Returns the documents, or `None` if one is missing.
fn all_present<'a>(
    documents: impl Iterator<Item = &'a Option<Document>>,
) -> Option<Vec<&'a Document>> {
    documents.map(Option::as_ref).collect()
}
