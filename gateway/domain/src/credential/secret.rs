//! Secrets of keys: their form, their generation, and the hashes by which they are stored.

use std::{fmt, sync::Arc};

use protocol::entity::Environment;
use rand::{TryRng, rngs::SysRng};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::redacted::Secret;

/// Number of characters after a secret's prefix: 43 of base62 hold 256 bits.
const SECRET_LENGTH: usize = 43;
const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// The purpose of a secret, encoded in its prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecretKind {
    /// `adm_`: the operator.
    Admin,
    /// `ork_`: an organization.
    Organization,
    /// `sk_live_`, `sk_test_`: an app's backend.
    App(Environment),
    /// `ak_live_`, `ak_test_`: an app's backend, for a limited time.
    Access(Environment),
    /// Without a key's prefix: the shared secret of a token key.
    Shared,
}

impl SecretKind {
    /// Returns the prefix.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Admin => "adm_",
            Self::Organization => "ork_",
            Self::App(Environment::Live) => "sk_live_",
            Self::App(Environment::Test) => "sk_test_",
            Self::Access(Environment::Live) => "ak_live_",
            Self::Access(Environment::Test) => "ak_test_",
            Self::Shared => "tks_",
        }
    }

    /// Returns whether a credential has the prefix of a key, so that it is not a token.
    pub fn is_key(credential: &str) -> bool {
        ["adm_", "ork_", "sk_", "ak_"]
            .iter()
            .any(|prefix| credential.starts_with(prefix))
    }
}

/// Generates a secret from the operating system's random bytes.
pub fn random(kind: SecretKind) -> Secret {
    let mut text = String::with_capacity(kind.prefix().len() + SECRET_LENGTH);
    text.push_str(kind.prefix());
    let end = text.len() + SECRET_LENGTH;
    while text.len() < end {
        // Bytes from 248 on would make the first characters more likely than the others.
        let fresh = random_bytes::<64>();
        let characters = fresh
            .iter()
            .filter(|byte| **byte < 248)
            .map(|byte| char::from(BASE62[usize::from(byte % 62)]));
        text.extend(characters.take(end - text.len()));
    }
    Secret::new(text)
}

/// Returns the hash by which a secret is found: SHA-256 in hex. Secrets are random, so no slow hash
/// is needed.
pub fn hash(secret: &str) -> Arc<str> {
    hex(&Sha256::digest(secret)).into()
}

/// Formats bytes as lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    use fmt::Write;
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SysRng
        .try_fill_bytes(&mut bytes)
        .expect("the operating system gives random bytes");
    bytes
}

/// The operator's key, of which only the hash is held.
#[derive(Clone)]
pub struct AdminKey([u8; 32]);

impl AdminKey {
    /// Hashes the configured key.
    pub fn new(key: &str) -> Self {
        Self(Sha256::digest(key).into())
    }

    /// Returns whether a credential is this key, in constant time.
    pub fn is(&self, credential: &str) -> bool {
        let other: [u8; 32] = Sha256::digest(credential).into();
        self.0.ct_eq(&other).into()
    }
}

impl fmt::Debug for AdminKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AdminKey(***)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_have_their_prefix_and_256_random_bits() {
        for (kind, prefix) in [
            (SecretKind::Admin, "adm_"),
            (SecretKind::Organization, "ork_"),
            (SecretKind::App(Environment::Live), "sk_live_"),
            (SecretKind::App(Environment::Test), "sk_test_"),
            (SecretKind::Access(Environment::Live), "ak_live_"),
            (SecretKind::Access(Environment::Test), "ak_test_"),
        ] {
            let secret = random(kind);
            let rest = secret.expose().strip_prefix(prefix).unwrap_or_default();
            assert_eq!(rest.len(), SECRET_LENGTH);
            assert!(rest.bytes().all(|b| b.is_ascii_alphanumeric()));
            assert!(SecretKind::is_key(secret.expose()));
            assert_ne!(secret.expose(), random(kind).expose());
            assert_eq!(format!("{secret} {secret:?}"), "*** ***");
        }
    }

    #[test]
    fn the_admin_key_is_compared_whole() {
        let key = AdminKey::new("adm_canary");
        assert!(key.is("adm_canary"));
        assert!(!key.is("adm_canar"));
        assert!(!key.is("adm_canary "));
        assert_eq!(format!("{key:?}"), "AdminKey(***)");
    }
}
