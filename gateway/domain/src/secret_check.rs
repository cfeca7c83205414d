//! Compares a node's or import's secret key with the one that sealed the store's secrets.

use store::{Commit, Expected, Read, Store};

use crate::{
    credential::SecretKey,
    document::{PutValue, decode},
    error::{Error, Result},
    schema::{self, ONLY, SECRET_KEY},
};

/// Error message for a secret key other than the one that the store was sealed with.
pub const OTHER_SECRET_KEY: &str = "what is secret in the store is sealed under another secret key: give that one by --secret-key-file, or name another store (--data, --redis, --redis-prefix)";

/// Returns whether another key sealed the store's secrets. A new store has no secrets.
pub async fn is_sealed_under_another(store: &dyn Store, key: &SecretKey) -> Result<bool> {
    Ok(fingerprint(store)
        .await?
        .is_some_and(|kept| kept != key.fingerprint()))
}

/// Compares the store's key with this one, and records this one if the store has none yet. Returns
/// whether they are the same.
pub async fn seal_under(store: &dyn Store, key: &SecretKey) -> Result<bool> {
    if let Some(kept) = fingerprint(store).await? {
        return Ok(kept == key.fingerprint());
    }
    let commit = Commit::default()
        .require(SECRET_KEY, ONLY, Expected::Absent)
        .put_value(SECRET_KEY, ONLY, &key.fingerprint());
    match store.commit(&schema::deployment(), commit.frees()).await? {
        Ok(_) => Ok(true),
        // Another node sealed it just now.
        Err(_) => is_sealed_under_another(store, key)
            .await
            .map(|other| !other),
    }
}

/// Reads the fingerprint of the key that sealed the store's secrets.
async fn fingerprint(store: &dyn Store) -> Result<Option<String>> {
    let read = Read {
        partition: schema::deployment(),
        documents: vec![(SECRET_KEY, ONLY.into())],
        newest: None,
    };
    let mut found = store.read(vec![read]).await?;
    let kept = found
        .pop()
        .and_then(|mut snapshot| snapshot.documents.pop())
        .flatten();
    kept.as_ref().map(decode).transpose()
}

/// Returns the sentence for an error that prevented the comparison.
pub fn not_compared(error: &Error) -> String {
    format!("the secret key cannot be compared with the store's: {error}")
}
