//! Checks of field values: one rule for each kind of text, shared by all entities.

use protocol::bounds::URL_CHARS;
use url::Url;

use crate::error::{Error, Result};

pub use protocol::bounds::{LINE_CHARS as NAME, TEXT_CHARS as TEXT};

/// Returns whether a character ends a line.
pub fn breaks_line(c: char) -> bool {
    matches!(
        c,
        '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{85}' | '\u{2028}' | '\u{2029}'
    )
}

/// Returns whether a character makes text run in another direction than its letters do: embeddings,
/// overrides and isolates. The marks that right-to-left scripts need (U+061C, U+200E, U+200F) have
/// no such reach.
pub fn reorders(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Checks a text of at most `most` characters that is shown in one line, such as a name.
pub fn line(field: &str, value: Option<impl AsRef<str>>, most: usize) -> Result<()> {
    let Some(value) = value.as_ref().map(AsRef::as_ref) else {
        return Ok(());
    };
    length(field, value, most)?;
    if value.contains(|c: char| c.is_control() || breaks_line(c) || reorders(c)) {
        return Err(Error::bad_request(format!(
            "`{field}` must not contain control characters, line breaks or bidirectional overrides"
        )));
    }
    Ok(())
}

/// Checks a line that must not be blank.
pub fn required_line(field: &str, value: &str, most: usize) -> Result<()> {
    if value.trim().is_empty() {
        return Err(Error::bad_request(format!("`{field}` must not be empty")));
    }
    line(field, Some(value), most)
}

/// Checks a text of at most `most` characters that may have several lines, such as a description.
pub fn lines(field: &str, value: Option<impl AsRef<str>>, most: usize) -> Result<()> {
    let Some(value) = value.as_ref().map(AsRef::as_ref) else {
        return Ok(());
    };
    length(field, value, most)?;
    let is_line_break = |c: char| matches!(c, '\n' | '\u{2028}' | '\u{2029}');
    if value
        .replace("\r\n", "\n")
        .contains(|c: char| (c.is_control() || reorders(c)) && !is_line_break(c))
    {
        return Err(Error::bad_request(format!(
            "`{field}` must not contain control characters (other than line breaks) or bidirectional overrides"
        )));
    }
    Ok(())
}

/// Checks a URL that a browser fetches. A URL that is stored already (`before`) is accepted: it may
/// be older than this rule.
pub fn url(
    field: &str,
    value: Option<impl AsRef<str>>,
    before: Option<impl AsRef<str>>,
) -> Result<()> {
    let Some(value) = value.as_ref().map(AsRef::as_ref) else {
        return Ok(());
    };
    if before.is_some_and(|before| before.as_ref() == value) {
        return Ok(());
    }
    line(field, Some(value), URL_CHARS)?;
    if is_web_url(value) {
        return Ok(());
    }
    Err(Error::bad_request(format!(
        "`{field}` must be an http:// or https:// URL with a host and without a user name"
    )))
}

/// Returns whether a text is an absolute http or https URL with a host and without credentials.
///
/// Browsers also accept white space, and missing, additional and reversed slashes. Such a text is
/// refused, because other readers may find another host in it.
fn is_web_url(text: &str) -> bool {
    let Some((_, rest)) = text.split_once("://") else {
        return false;
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    !authority.is_empty()
        && !authority.contains(['@', '\\'])
        && !text.contains(char::is_whitespace)
        && Url::parse(text).is_ok_and(|url| matches!(url.scheme(), "http" | "https"))
}

fn length(field: &str, value: &str, most: usize) -> Result<()> {
    match value.chars().nth(most) {
        Some(_) => Err(Error::too_large(format!(
            "`{field}` has more than {most} characters"
        ))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_that_is_stored_already_may_stay() {
        let old = "https://user@example.org";
        assert!(url("avatar", Some(old), None::<&str>).is_err());
        assert!(url("avatar", Some("https://b@example.org"), Some(old)).is_err());
        assert!(url("avatar", Some(old), Some(old)).is_ok());
    }
}
