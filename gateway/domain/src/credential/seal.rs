//! The deployment's secret key: seals stored secrets and cursors, and derives names and ids.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, AES_256_GCM_SIV, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// The deployment's secret key: 32 bytes, the same on every node.
pub struct SecretKey {
    seal: RandomizedNonceKey,
    /// Seals cursors. There are so many that a random nonce may repeat: with GCM-SIV this reveals
    /// only which cursors are equal.
    cursors: RandomizedNonceKey,
    derive: Hmac<Sha256>,
}

/// The error of sealed bytes that were altered, or sealed with another key or name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a stored secret cannot be opened: the secret key is not the one that sealed it, or it was changed"
)]
pub struct NotOpened;

impl SecretKey {
    /// Returns a fingerprint that identifies this key without revealing it.
    pub fn fingerprint(&self) -> String {
        super::hex(&self.derive(&[b"fingerprint"])[..16])
    }

    /// Derives the keys of all purposes from the 32 bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        let part = |purpose: &[u8]| mac(&bytes).chain_update(purpose).finalize().into_bytes();
        Self {
            seal: RandomizedNonceKey::new(&AES_256_GCM, &part(b"chaos seal 1"))
                .expect("AES-256 takes 32 bytes"),
            cursors: RandomizedNonceKey::new(&AES_256_GCM_SIV, &part(b"chaos cursors 1"))
                .expect("AES-256 takes 32 bytes"),
            derive: mac(&part(b"chaos derive 1")),
        }
    }

    /// Seals bytes: the nonce, then AES-256-GCM's ciphertext and tag. `name` must be given again to
    /// open them.
    pub fn seal(&self, name: &str, plain: &[u8]) -> Vec<u8> {
        seal(&self.seal, name, plain)
    }

    /// Opens bytes that [`seal`](Self::seal) sealed with the same name.
    pub fn open(&self, name: &str, sealed: &[u8]) -> Result<Vec<u8>, NotOpened> {
        open(&self.seal, name, sealed)
    }

    /// Seals the content of a cursor: the nonce, then AES-256-GCM-SIV's ciphertext and tag. `query`
    /// must be given again to open it.
    pub fn seal_cursor(&self, query: &str, plain: &[u8]) -> Vec<u8> {
        seal(&self.cursors, query, plain)
    }

    /// Opens bytes that [`seal_cursor`](Self::seal_cursor) sealed for the same query.
    pub fn open_cursor(&self, query: &str, sealed: &[u8]) -> Result<Vec<u8>, NotOpened> {
        open(&self.cursors, query, sealed)
    }

    /// Returns the HMAC-SHA256 of the parts, each with its length, so that different lists of parts
    /// have different inputs.
    pub fn derive(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut mac = self.derive.clone();
        for part in parts {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    }
}

fn seal(key: &RandomizedNonceKey, name: &str, plain: &[u8]) -> Vec<u8> {
    let mut sealed = plain.to_vec();
    let nonce = key
        .seal_in_place_append_tag(Aad::from(name), &mut sealed)
        .expect("a short secret can be sealed");
    let mut out = nonce.as_ref().to_vec();
    out.append(&mut sealed);
    out
}

fn open(key: &RandomizedNonceKey, name: &str, sealed: &[u8]) -> Result<Vec<u8>, NotOpened> {
    let (nonce, rest) = sealed.split_at_checked(NONCE_LEN).ok_or(NotOpened)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| NotOpened)?;
    let mut rest = rest.to_vec();
    let length = key
        .open_in_place(nonce, Aad::from(name), &mut rest)
        .map_err(|_| NotOpened)?
        .len();
    rest.truncate(length);
    Ok(rest)
}

fn mac(key: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("HMAC takes a key of any length")
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey(***)")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    #[test]
    fn sealed_bytes_open_under_the_same_key_and_name_only() {
        type Seal = fn(&SecretKey, &str, &[u8]) -> Vec<u8>;
        type Open = fn(&SecretKey, &str, &[u8]) -> Result<Vec<u8>, NotOpened>;
        let purposes: [(Seal, Open); 2] = [
            (SecretKey::seal, SecretKey::open),
            (SecretKey::seal_cursor, SecretKey::open_cursor),
        ];
        for (index, (seal, open)) in purposes.into_iter().enumerate() {
            let key = SecretKey::new([7; 32]);
            let sealed = seal(&key, "tk_1", b"canary");
            assert!(!sealed.windows(6).any(|w| w == b"canary"));
            assert_eq!(open(&key, "tk_1", &sealed).unwrap(), b"canary");
            assert_eq!(
                open(&SecretKey::new([7; 32]), "tk_1", &sealed).unwrap(),
                b"canary"
            );
            assert_eq!(open(&key, "tk_2", &sealed), Err(NotOpened));
            assert_eq!(
                open(&SecretKey::new([8; 32]), "tk_1", &sealed),
                Err(NotOpened)
            );
            assert_eq!(
                purposes[1 - index].1(&key, "tk_1", &sealed),
                Err(NotOpened),
                "each purpose has a key of its own"
            );
            for i in 0..sealed.len() {
                let mut changed = sealed.clone();
                changed[i] ^= 1;
                assert_eq!(open(&key, "tk_1", &changed), Err(NotOpened), "byte {i}");
                assert_eq!(
                    open(&key, "tk_1", &sealed[..i]),
                    Err(NotOpened),
                    "cut at {i}"
                );
            }
            assert_ne!(
                seal(&key, "tk_1", b"canary"),
                sealed,
                "each seal has a nonce of its own"
            );
        }
    }

    #[test]
    fn derived_bytes_depend_on_where_the_parts_end() {
        let key = SecretKey::new([7; 32]);
        assert_ne!(key.derive(&[b"ab", b"c"]), key.derive(&[b"a", b"bc"]));
        assert_ne!(
            key.derive(&[b"ab"]),
            SecretKey::new([8; 32]).derive(&[b"ab"])
        );
        assert_eq!(key.derive(&[b"ab"]), key.derive(&[b"ab"]));
        assert_eq!(format!("{key:?}"), "SecretKey(***)");
    }
}
