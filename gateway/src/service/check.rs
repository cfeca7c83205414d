//! Lengths of fields, checked in one place.

use crate::error::{Error, Result};

/// The most characters of a name.
pub const NAME: usize = 200;
/// The most characters of a description, a biography or an address.
pub const TEXT: usize = 2048;

/// An optional field of at most so many characters.
pub fn length(field: &str, value: Option<&String>, most: usize) -> Result<()> {
    match value {
        Some(value) if value.chars().nth(most).is_some() => Err(Error::too_large(format!(
            "`{field}` has more than {most} characters"
        ))),
        _ => Ok(()),
    }
}

/// A field of one to so many characters.
pub fn present(field: &str, value: &str, most: usize) -> Result<()> {
    if value.trim().is_empty() {
        return Err(Error::bad_request(format!("`{field}` must not be empty")));
    }
    match value.chars().nth(most) {
        Some(_) => Err(Error::too_large(format!(
            "`{field}` has more than {most} characters"
        ))),
        None => Ok(()),
    }
}
