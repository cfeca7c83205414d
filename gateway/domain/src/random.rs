//! Randomness for ids.

/// 64 random bits.
pub fn bits() -> u64 {
    rand::random()
}
