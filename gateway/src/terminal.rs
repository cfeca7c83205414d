//! Output to a terminal. Control characters in untrusted text are shown as escapes.

use std::borrow::Cow;

pub use domain::check::{breaks_line, reorders};

/// Writes a line to standard output. Ignores errors, such as a closed pipe (`| head`).
macro_rules! print_line {
    ($($line:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stdout(), "{}", $crate::terminal::escape(&format!($($line)*)));
    }};
}

/// Writes a line to standard error. Ignores errors.
macro_rules! print_error {
    ($($line:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), "{}", $crate::terminal::escape(&format!($($line)*)));
    }};
}

pub(crate) use {print_error, print_line};

fn is_unsafe(c: char) -> bool {
    (c.is_control() && c != '\t') || breaks_line(c) || reorders(c)
}

/// Returns the text as one line without control characters. Uses the escapes of JSON and TOML
/// strings (`\n`, `\u001b`), so that JSON and TOML keep their meaning.
pub fn escape(text: &str) -> Cow<'_, str> {
    if !text.contains(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '\n' => shown.push_str("\\n"),
            '\r' => shown.push_str("\\r"),
            c if is_unsafe(c) => shown.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => shown.push(c),
        }
    }
    Cow::Owned(shown)
}

/// Splits a text at line breaks, and escapes each line.
pub fn lines(text: &str) -> impl Iterator<Item = Cow<'_, str>> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let Some(end) = text.find(breaks_line) else {
            rest = None;
            return Some(escape(text));
        };
        let after = &text[end..];
        let skip = if after.starts_with("\r\n") {
            2
        } else {
            after.chars().next().map_or(0, char::len_utf8)
        };
        rest = Some(&after[skip..]);
        Some(escape(&text[..end]))
    })
}

/// Like [`escape`], but keeps colour sequences (`ESC [ … m`), which this program's log contains.
pub fn escape_uncoloured(text: &str) -> Cow<'_, str> {
    let Some(first) = text.find('\u{1b}') else {
        return escape(text);
    };
    let mut shown = escape(&text[..first]).into_owned();
    let mut rest = &text[first..];
    while let Some(begin) = rest.find('\u{1b}') {
        shown.push_str(&escape(&rest[..begin]));
        rest = &rest[begin..];
        let length = colour_length(rest).unwrap_or(1);
        let (sequence, after) = rest.split_at(length);
        if length > 1 {
            shown.push_str(sequence)
        } else {
            shown.push_str(&escape(sequence))
        }
        rest = after;
    }
    shown.push_str(&escape(rest));
    Cow::Owned(shown)
}

/// Returns the length of the colour sequence at the start of a text.
fn colour_length(text: &str) -> Option<usize> {
    let numbers = text.strip_prefix("\u{1b}[")?;
    let end = numbers.find(|c: char| !(c.is_ascii_digit() || c == ';'))?;
    numbers[end..].starts_with('m').then_some(2 + end + 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn control_characters_are_shown_as_json_escapes() {
        assert_eq!(
            escape("a\u{1b}[2J\r\n\u{9b}\u{7f}\u{2028}\u{202e}\u{2069}b"),
            r"a\u001b[2J\r\n\u009b\u007f\u2028\u202e\u2069b"
        );
        assert!(matches!(
            escape("tab\t, שלום\u{200f}, 👩\u{200d}🚀"),
            Cow::Borrowed(_)
        ));
    }

    #[test]
    fn text_is_split_at_every_kind_of_line_break() {
        let shown: Vec<_> = lines("a\nb\r\nc\rd\u{2028}e\u{85}\u{1b}f").collect();
        assert_eq!(shown, ["a", "b", "c", "d", "e", r"\u001bf"]);
        assert_eq!(lines("").count(), 1);
    }

    #[test]
    fn only_colours_remain_of_escape_sequences() {
        assert_eq!(
            escape_uncoloured("\u{1b}[2m\u{1b}[1;31mx\u{1b}[2J\u{1b}"),
            "\u{1b}[2m\u{1b}[1;31mx\\u001b[2J\\u001b"
        );
    }

    proptest! {
        #[test]
        fn escaped_text_has_no_control_characters(text in any::<String>()) {
            prop_assert!(!escape(&text).contains(is_unsafe));
            prop_assert!(lines(&text).all(|line| !line.contains(is_unsafe)));
        }

        #[test]
        fn json_keeps_its_meaning(text in any::<String>()) {
            let json = serde_json::to_string(&text).unwrap_or_default();
            prop_assert_eq!(serde_json::from_str::<String>(&escape(&json)).ok(), Some(text));
        }
    }
}
