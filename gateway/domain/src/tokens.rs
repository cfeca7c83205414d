//! Tokens that nodes sign themselves, for backends that do not sign their own.
//!
//! They are signed with a token key of the app. The first token creates it, one for each
//! environment. It is listed like the others. If it was revoked, the next token creates another.

use std::time::Duration;

use protocol::{
    TokenKeyId, UserId,
    entity::Algorithm,
    operation::user::{MintToken, Token},
};
use serde::{Deserialize, Serialize};
use store::{Commit, Expected};

use crate::{
    Services,
    apps::app_of,
    credential::{Actor, token},
    document::{PutValue, decode},
    ended::revoked_second,
    error::{Error, Result},
    keys, random,
    retry::retry,
    schema::{self, ENTITY, ONLY, REVOCATION, SIGNING, Scope, TOKEN_KEYS},
    token_keys::{self, StoredTokenKey, token_key_line},
};

/// Default lifetime of a token, in seconds.
const DEFAULT_LIFETIME_SECONDS: u64 = 3600;
/// Maximum lifetime of a token where `token_seconds` sets no limit, in seconds: ten years.
const MAX_LIFETIME_SECONDS: u64 = 10 * 365 * 86_400;

/// Maximum time that a token waits for the second after a revocation. More would mean that the
/// clocks disagree.
const MAX_WAIT: Duration = Duration::from_secs(2);

/// The document of [`SIGNING`].
#[derive(Debug, Serialize, Deserialize)]
pub struct Signing {
    /// The token key with which nodes sign.
    pub key: TokenKeyId,
}

/// Returns the maximum lifetime of a minted token in seconds: the limit `token_seconds` (0: none),
/// but at most [`MAX_LIFETIME_SECONDS`].
fn max_lifetime(token_seconds: u64) -> u64 {
    match token_seconds {
        0 => MAX_LIFETIME_SECONDS,
        limited => limited.min(MAX_LIFETIME_SECONDS),
    }
}

/// Signs a token for a user. App keys only.
///
/// # Errors
/// `forbidden` for a user; `bad_request` if the lifetime is out of range; `not_found` if the user
/// does not exist.
pub async fn mint_token(
    services: &Services,
    actor: &Actor,
    user: &UserId,
    body: MintToken,
) -> Result<Token> {
    let scope = actor.backend()?;
    let longest = max_lifetime(services.limits.token_seconds);
    let seconds = body
        .expires_in
        .unwrap_or(DEFAULT_LIFETIME_SECONDS.min(longest));
    if !(1..=longest).contains(&seconds) {
        return Err(Error::bad_request(format!(
            "`expires_in` is 1 to {longest} seconds"
        )));
    }
    let wanted = [(ENTITY, ONLY.into()), (REVOCATION, ONLY.into())];
    let [entity, revocation] = services.documents(scope.user(user), wanted).await?;
    if entity.is_none() {
        return Err(Error::not_found("user"));
    }
    let revoked = revocation.map(|revocation| revoked_second(&revocation.stamps));
    // A token issued in the second of a revocation would be refused, and one issued in a later
    // second would escape another revocation now.
    let usable_from = revoked.map_or(0, |second| second + 1);
    let wait = (usable_from * 1000).saturating_sub(services.store.now().await?);
    if wait > 0 {
        tokio::time::sleep(Duration::from_millis(wait).min(MAX_WAIT)).await;
    }
    // By the store's clock, like revocations: a token of a node whose clock is ahead would escape
    // them.
    let issued_at = (services.store.now().await? / 1000).max(usable_from);
    let expires_at = issued_at + seconds;
    let (id, secret) = signing_key(services, scope).await?;
    Ok(Token {
        token: token::sign(&id, &secret, user, issued_at, expires_at),
        expires_at: expires_at * 1000,
    })
}

/// Returns the key with which nodes sign for an app and environment. Creates it if there is none.
async fn signing_key(services: &Services, scope: &Scope) -> Result<(TokenKeyId, Vec<u8>)> {
    let owner = schema::app(&scope.app);
    let slot = scope.environment.as_str();
    retry(|| async {
        let wanted = [(ENTITY, ONLY.into()), (SIGNING, slot.into())];
        let [app, signing] = services.documents(owner.clone(), wanted).await?;
        let app = app_of(&app.ok_or_else(|| Error::not_found("app"))?)?;
        if let Some(document) = &signing {
            let Signing { key } = decode(document)?;
            if let Some(secret) = signing_secret(services, scope, &key).await? {
                return Ok(Some((key, secret)));
            }
        }
        let before = Expected::unchanged(signing.as_ref());
        let id = TokenKeyId::from_bits(random::bits());
        let new = token_keys::new_shared_key(
            services,
            &app.organization_id,
            &scope.app,
            scope.environment,
            id,
        )
        .await?;
        let commit = token_key_line(
            Commit::default(),
            &new.id,
            scope.environment,
            Algorithm::HS256,
        );
        let commit = commit.require(SIGNING, slot, before).put_value(
            SIGNING,
            slot,
            &Signing {
                key: new.id.clone(),
            },
        );
        match services.commit(&owner, commit).await? {
            Ok(_) => return Ok(Some((new.id, new.secret.expose().as_bytes().to_vec()))),
            // Another node was first: its key is the one.
            Err(_) => {
                let credential = schema::token_key(&new.id);
                keys::forget_new_credential(services, &owner, &credential).await?;
            }
        }
        Ok(None)
    })
    .await
}

/// Reads the secret of a signing key; `None` if the key was revoked.
async fn signing_secret(
    services: &Services,
    scope: &Scope,
    id: &TokenKeyId,
) -> Result<Option<Vec<u8>>> {
    let line = services
        .document(schema::app(&scope.app), TOKEN_KEYS, id.shared())
        .await?;
    let stored = services.entity(schema::token_key(id)).await?;
    match (line, &stored) {
        (Some(_), Some(document)) => {
            let key: StoredTokenKey = decode(document)?;
            if (&key.app, key.environment) != (&scope.app, scope.environment) {
                return Err(Error::internal(
                    "the signing key of an app is another app's",
                ));
            }
            Ok(Some(key.secret(&services.secret, id)?))
        }
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_live_ten_years_at_most_whatever_the_limit() {
        assert_eq!(max_lifetime(60), 60);
        assert_eq!(max_lifetime(0), MAX_LIFETIME_SECONDS);
        assert_eq!(max_lifetime((1 << 53) - 1), MAX_LIFETIME_SECONDS);
    }
}
