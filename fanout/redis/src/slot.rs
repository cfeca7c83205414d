//! The slots of a Cluster.

/// Returns the slot of a key or channel on a Cluster.
pub fn slot(name: &str) -> u16 {
    // Cluster specification: the hash tag is the text between the first `{` and the next `}`,
    // unless that is empty.
    let hashed = name
        .split_once('{')
        .and_then(|(_, rest)| rest.split_once('}'))
        .map(|(tag, _)| tag)
        .filter(|tag| !tag.is_empty())
        .unwrap_or(name);
    // CRC16/XMODEM, as in the specification.
    let crc = hashed.bytes().fold(0u16, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(byte) << 8), |crc, _| {
            if crc & 0x8000 != 0 {
                (crc << 1) ^ 0x1021
            } else {
                crc << 1
            }
        })
    });
    crc % SLOTS
}

/// Number of slots of a Cluster.
pub const SLOTS: u16 = 16_384;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_the_specification() {
        assert_eq!(slot("123456789"), 0x31c3);
        assert_eq!(slot("foo{hash_tag}"), slot("hash_tag"));
        assert_eq!(slot("{}whole"), slot("{}whole"));
        assert_ne!(slot("{}whole"), 0, "an empty tag is no tag");
    }
}
