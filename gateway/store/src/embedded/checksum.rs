//! The checksum of each value in LMDB, over its tree, key and value.

use super::{fault::Fault, tree::Tree};

const CHECKSUM_BYTES: usize = 4;

/// Returns a value as it is stored: followed by its checksum.
pub(super) fn sealed(tree: Tree, key: &[u8], value: &[u8]) -> Vec<u8> {
    let mut stored = Vec::with_capacity(value.len() + CHECKSUM_BYTES);
    stored.extend(value);
    stored.extend(checksum(tree, key, value).to_le_bytes());
    stored
}

/// Returns the value of a stored one.
///
/// # Errors
/// Key or value are not as they were written.
pub(super) fn verified<'t>(tree: Tree, key: &[u8], stored: &'t [u8]) -> Result<&'t [u8], Fault> {
    stored
        .split_last_chunk::<CHECKSUM_BYTES>()
        .filter(|(value, sum)| checksum(tree, key, value) == u32::from_le_bytes(**sum))
        .map(|(value, _)| value)
        .ok_or_else(|| Fault::Damaged {
            tree: tree.name(),
            key: key.escape_ascii().to_string(),
        })
}

fn checksum(tree: Tree, key: &[u8], value: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&[tree as u8]);
    hasher.update(&(key.len() as u32).to_le_bytes());
    hasher.update(key);
    hasher.update(value);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_changed_byte_of_key_or_value_is_detected() {
        let stored = sealed(Tree::Entries, b"key", b"value");
        assert_eq!(
            verified(Tree::Entries, b"key", &stored).ok(),
            Some(&b"value"[..])
        );
        for at in 0..stored.len() {
            for bit in 0..8 {
                let mut damaged = stored.clone();
                damaged[at] ^= 1 << bit;
                assert!(verified(Tree::Entries, b"key", &damaged).is_err());
            }
        }
        assert!(verified(Tree::Entries, b"kez", &stored).is_err());
        assert!(verified(Tree::Meta, b"key", &stored).is_err());
        assert!(verified(Tree::Entries, b"key", &stored[..3]).is_err());
    }
}
