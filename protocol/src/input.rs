//! Input of clients: both encodings accept the same values.
//!
//! The deserializers of the encodings accept more than the contract, each in its own way: structs
//! as arrays of their fields, enums as maps or indexes, binary as text, integers as names of
//! fields, duplicate keys. [`ClientInput`] refuses all of this. It accepts a float with an integral
//! value for an integer, because JavaScript's encoders write integers above 2³² as float64.

mod reader;

use std::{cell::Cell, fmt};

use serde::{Deserialize, Deserializer};

use crate::{MAX_INTEGER, decode_error::DecodeError, value::OutOfBounds};

pub use reader::ClientInput;

/// Fields of requests whose keys belong to the client, in alphabetical order. A key may be anything,
/// also a secret.
pub const FIELDS_WITH_CLIENT_KEYS: &[&str] = &["channels", "metadata", "resume"];

/// Input that does not fit its description.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct Misfit {
    /// The field that does not fit, with the fields that it is in: `attachments[0].size`.
    pub field: Option<String>,
    /// The path of the map with the refused key; empty for the outermost map.
    pub parent: String,
    /// The reason. May quote the value.
    pub why: String,
}

/// Decodes input.
///
/// # Errors
/// The field that does not fit, and the reason.
pub fn read<'de, T, D>(reader: D) -> Result<T, Misfit>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
    D::Error: fmt::Display,
{
    serde_path_to_error::deserialize(reader).map_err(|error| {
        let path = error.path().to_string();
        // A key that was refused is a `?` at the end.
        let parent = path.trim_end_matches('?').trim_end_matches('.').to_owned();
        let why = error.into_inner().to_string();
        // For missing and duplicate fields Serde gives the path of their struct.
        let named = ["missing field `", "duplicate field `"]
            .iter()
            .find_map(|start| why.strip_prefix(start))
            .and_then(|rest| rest.split('`').next());
        let field = match named {
            Some(named) if parent.is_empty() => Some(named.to_owned()),
            Some(named) => Some(format!("{parent}.{named}")),
            // The path of a key that cannot be decoded is that of its map.
            None => Some(if path.ends_with('?') { &parent } else { &path })
                .filter(|place| !matches!(place.as_str(), "" | "."))
                .cloned(),
        };
        Misfit { field, parent, why }
    })
}

/// Findings of a [`ClientInput`] besides the value.
#[derive(Debug, Default)]
pub struct Findings {
    has_large_float: Cell<bool>,
}

impl Findings {
    /// Checks that no integer of the free data in this JSON was rounded: the deserializer converts
    /// integers that fit no integer type to floats.
    pub fn check_integers(&self, json: &[u8]) -> Result<(), DecodeError> {
        if self.has_large_float.get() && has_large_integer(json) {
            return Err(DecodeError(OutOfBounds::Integer.to_string()));
        }
        Ok(())
    }
}

/// Returns whether valid JSON has an integer, without fraction and exponent, beyond ±2⁵³.
fn has_large_integer(json: &[u8]) -> bool {
    let (mut in_string, mut escaped) = (false, false);
    let mut rest = json.iter().enumerate();
    while let Some((start, byte)) = rest.next() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'-' | b'0'..=b'9' if !in_string => {
                let length = json[start..]
                    .iter()
                    .take_while(|byte| {
                        matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E')
                    })
                    .count();
                let number = &json[start..start + length];
                let digits = number.strip_prefix(b"-").unwrap_or(number);
                if digits.iter().all(u8::is_ascii_digit) && !is_within_bounds(digits) {
                    return true;
                }
                if length > 1 {
                    rest.nth(length - 2);
                }
            }
            _ => {}
        }
    }
    false
}

fn is_within_bounds(digits: &[u8]) -> bool {
    std::str::from_utf8(digits)
        .ok()
        .and_then(|digits| digits.parse::<u64>().ok())
        .is_some_and(|integer| integer <= MAX_INTEGER)
}

/// Returns the value as an integer of the wire, if it is one.
pub(crate) fn integral(value: f64) -> Option<i64> {
    #[expect(clippy::cast_precision_loss, reason = "2^53 is a float64")]
    let is_integral = value.fract() == 0.0 && value.abs() <= MAX_INTEGER as f64;
    is_integral.then_some(value as i64)
}
