//! Input of clients: what is accepted does not depend on the encoding.
//!
//! The readers of both encodings accept more than the contract says, each something else: structs as
//! arrays of their fields, enums as maps or indexes, binary as text, integers as names of fields, a
//! key twice. [`ClientInput`] refuses all of it. It accepts a float with an integral value where an
//! integer is expected: JavaScript's encoders write integers above 2³² as float64.

mod reader;

use std::{cell::Cell, fmt};

use serde::{Deserialize, Deserializer};

use crate::{MAX_INTEGER, decode_error::DecodeError, value::OutOfBounds};

pub use reader::ClientInput;

/// Input that does not fit its description.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct Misfit {
    /// The field that does not fit, with the fields that it is in: `attachments[0].size`.
    pub field: Option<String>,
    /// Where a refused key stands: empty, or the path of its map.
    pub parent: String,
    /// What is wrong with it. May quote the value.
    pub why: String,
}

/// Reads input, or says which field does not fit, and why.
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
        // Serde names the place of a missing field and of one that stands twice, not the field.
        let named = ["missing field `", "duplicate field `"]
            .iter()
            .find_map(|start| why.strip_prefix(start))
            .and_then(|rest| rest.split('`').next());
        let field = match named {
            Some(named) if parent.is_empty() => Some(named.to_owned()),
            Some(named) => Some(format!("{parent}.{named}")),
            // The place of a key that cannot be read is its object's.
            None => Some(if path.ends_with('?') { &parent } else { &path })
                .filter(|place| !matches!(place.as_str(), "" | "."))
                .cloned(),
        };
        Misfit { field, parent, why }
    })
}

/// What a [`ClientInput`] found out beside the value.
#[derive(Debug, Default)]
pub struct Findings {
    has_large_float: Cell<bool>,
}

impl Findings {
    /// Checks that no integer of the free data that was read from this JSON was rounded: the reader
    /// makes floats of those that fit no integer type.
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

/// The value as an integer of the wire, if it is one.
pub(crate) fn integral(value: f64) -> Option<i64> {
    #[expect(clippy::cast_precision_loss, reason = "2^53 is a float64")]
    let is_integral = value.fract() == 0.0 && value.abs() <= MAX_INTEGER as f64;
    is_integral.then_some(value as i64)
}
