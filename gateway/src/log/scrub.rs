//! Removes credentials from text that is logged or shown.

use std::{borrow::Cow, fmt};

use crate::config::credential_length;

/// Prefixes of credentials. They stay visible to show the kind of credential.
const CREDENTIAL_PREFIXES: [&str; 7] = [
    "adm_", "ork_", "sk_live_", "sk_test_", "ak_live_", "ak_test_", "tks_",
];

const BEARER: &str = "bearer ";

/// `{"` in base64url: the beginning of a JWT.
const JWT_PREFIX: &str = "eyJ";

/// A password in the query of a URL.
const PASSWORD: &str = "password=";

/// Schemes of store URLs, whose passwords may contain unescaped `/`, `?` and `#`.
const STORE_SCHEMES: [&str; 2] = ["redis", "valkey"];

const SECRET_KEY_DIGITS: usize = 64;

/// Minimum length of a token that is hidden although it could be part of a word: a prefix within a
/// word ("network_", "task_live_"), or a word after "bearer".
const MIN_TOKEN_LENGTH: usize = 16;

/// Replaces every credential in a text by `***`: keys, secret keys in hex, JWTs, bearer tokens, and
/// passwords in URLs. May hide more than credentials.
pub fn scrub(text: &str) -> Cow<'_, str> {
    let mut clean: Option<String> = None;
    let mut copied = 0;
    let mut at = 0;
    while at < text.len() {
        let Some((from, to)) = credential_at(text, at) else {
            at += 1;
            continue;
        };
        let clean = clean.get_or_insert_with(|| String::with_capacity(text.len()));
        clean.push_str(&text[copied..from]);
        clean.push_str("***");
        copied = to;
        at = to;
    }
    match clean {
        None => Cow::Borrowed(text),
        Some(mut clean) => {
            clean.push_str(&text[copied..]);
            Cow::Owned(clean)
        }
    }
}

/// Returns the bytes to hide of a credential that begins at `at`, if one does. All delimiters are
/// ASCII, so both ends are character boundaries.
fn credential_at(text: &str, at: usize) -> Option<(usize, usize)> {
    let bytes = text.as_bytes();
    let rest = &bytes[at..];
    let run = |from: usize, part: fn(&u8) -> bool| {
        from + bytes[from..].iter().take_while(|byte| part(byte)).count()
    };
    if rest[0].is_ascii_hexdigit()
        && begins_word(bytes, at)
        && run(at, u8::is_ascii_alphanumeric) - at == SECRET_KEY_DIGITS
    {
        let to = run(at, u8::is_ascii_hexdigit);
        return (to - at == SECRET_KEY_DIGITS).then_some((at, to));
    }
    match rest[0] {
        b'a' | b'o' | b's' | b't' => {
            let from = at
                + CREDENTIAL_PREFIXES
                    .iter()
                    .find(|key| rest.starts_with(key.as_bytes()))?
                    .len();
            let to = run(from, is_token);
            let certain = begins_word(bytes, at)
                || run(from, u8::is_ascii_alphanumeric) - from >= MIN_TOKEN_LENGTH;
            (to > from && certain).then_some((from, to))
        }
        b'e' if rest.starts_with(JWT_PREFIX.as_bytes()) => {
            let to = run(at, |byte| is_token(byte) || *byte == b'.');
            (to - at >= MIN_TOKEN_LENGTH).then_some((at + JWT_PREFIX.len(), to))
        }
        b'B' | b'b'
            if rest.len() > BEARER.len()
                && rest[..BEARER.len()].eq_ignore_ascii_case(BEARER.as_bytes()) =>
        {
            let from = at + BEARER.len();
            let to = run(from, |byte| {
                byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\'' | b'\\')
            });
            (to - from >= MIN_TOKEN_LENGTH).then_some((from, to))
        }
        b':' if rest.starts_with(b"://") => {
            let from = at + 3;
            let end = run(from, |byte| {
                !byte.is_ascii_whitespace() && !matches!(byte, b'"' | b'\'' | b'<' | b'>')
            });
            let authority = run(from, |byte| {
                !byte.is_ascii_whitespace()
                    && !matches!(byte, b'/' | b'?' | b'#' | b'"' | b'\'' | b'<' | b'>')
            });
            let lenient = has_store_scheme(&text[..at]) || !has_port(&text[from..authority]);
            let to = from + credential_length(&text[from..if lenient { end } else { authority }]);
            (to > from).then_some((from, to))
        }
        b'p' if rest.starts_with(PASSWORD.as_bytes()) => {
            let from = at + PASSWORD.len();
            let to = run(from, |byte| {
                !byte.is_ascii_whitespace() && !matches!(byte, b'"' | b'\'' | b'<' | b'>' | b'*')
            });
            (to > from).then_some((from, to))
        }
        _ => None,
    }
}

/// Returns whether a text ends in the scheme of a store.
fn has_store_scheme(before: &str) -> bool {
    let scheme = before
        .rsplit(|c: char| !(c.is_ascii_alphanumeric() || c == '+'))
        .next()
        .unwrap_or_default();
    STORE_SCHEMES.iter().any(|store| scheme.starts_with(store))
}

/// Returns whether an authority has no port or a numeric one. Otherwise the text after its last
/// colon is the beginning of a password.
fn has_port(authority: &str) -> bool {
    let after_host = authority
        .rsplit_once(']')
        .map_or(authority, |(_, rest)| rest);
    after_host.contains('@')
        || after_host
            .rsplit_once(':')
            .is_none_or(|(_, port)| port.bytes().all(|digit| digit.is_ascii_digit()))
}

fn is_token(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-')
}

/// Returns whether a word begins at `at`: after no letter, digit or underscore, or after an escape
/// that ends in one (`\n`, `\u0000`, `%20`).
fn begins_word(bytes: &[u8], at: usize) -> bool {
    let before = &bytes[..at];
    let escape = |letters: usize, mark: &[u8]| {
        before.len() >= letters + mark.len() && before[..before.len() - letters].ends_with(mark)
    };
    match before.last() {
        Some(last) if last.is_ascii_alphanumeric() || *last == b'_' => {
            escape(1, b"\\") || escape(2, b"%") || escape(4, b"\\u")
        }
        _ => true,
    }
}

/// Displays its value scrubbed, for error details and for output besides the log.
#[derive(Debug, Clone, Copy)]
pub struct Redacted<T>(pub T);

impl<T: fmt::Display> fmt::Display for Redacted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&scrub(&self.0.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn credentials_are_hidden_wherever_they_stand() {
        for (text, clean) in [
            ("adm_Canary", "adm_***"),
            (
                "key=ork_Canary, sk_live_Can-ary_1;",
                "key=ork_***, sk_live_***;",
            ),
            (r#"{"a":"ak_test_Canary"}"#, r#"{"a":"ak_test_***"}"#),
            (
                r"x\nsk_test_Canary\u0020adm_Canary%20ork_Canary",
                r"x\nsk_test_***\u0020adm_***%20ork_***",
            ),
            ("xxsk_live_CanaryCanaryCanary", "xxsk_live_***"),
            (
                "token eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0.Canary-_Canary!",
                "token eyJ***!",
            ),
            (
                "Authorization: Bearer Canary/Canary+Canary==",
                "Authorization: Bearer ***",
            ),
            (
                "at redis://me:Can:ary@host:6379/0 and redis+sentinel://:Canary@a,b/m",
                "at redis://***@host:6379/0 and redis+sentinel://***@a,b/m",
            ),
            ("é adm_Canary é", "é adm_*** é"),
            (
                &format!("origin=\"https://{}\"", "0f".repeat(32)),
                "origin=\"https://***\"",
            ),
            (
                "to redis://app:hunter2?Canary@host:6379/0: gone",
                "to redis://***@host:6379/0: gone",
            ),
            (
                "\"redis://app:a/Canary#b@c%40d:e@host\"",
                "\"redis://***@host\"",
            ),
            (
                "redis+cluster://:Canary?x=Canary@a:1,b:2, and more",
                "redis+cluster://*** and more",
            ),
            (
                "redis+sentinel://a,b/m?sentinel_password=Canary&x=1",
                "redis+sentinel://a,b/m?sentinel_password=***",
            ),
            (
                "https://me:p/Canary?@example.com/a",
                "https://***@example.com/a",
            ),
        ] {
            assert_eq!(scrub(text), clean);
            assert!(!scrub(text).contains("Canary"));
        }
    }

    #[test]
    fn plain_text_is_left_alone() {
        for text in [
            "",
            "gateway::network_id task_live_x fork_join 127.0.0.1:7400",
            "needs a bearer token",
            "https://example.com/a?b=c@d",
            "https://example.com:443/a@d and https://[::1]:80/@x",
            "redis://host:6379/0 and mail to a@b.example",
            "adm_ alone",
            "msg_0123456789abcdef chn_0123456789abcdef",
            "eyJ short",
        ] {
            assert!(
                matches!(scrub(text), Cow::Borrowed(same) if same == text),
                "{text}: {}",
                scrub(text)
            );
        }
    }

    proptest! {
        #[test]
        fn any_text_can_be_scrubbed_and_is_then_clean(before in any::<String>(), kind in 0..CREDENTIAL_PREFIXES.len(), after in any::<String>()) {
            let key = format!("{}Canary0123456789Canary", CREDENTIAL_PREFIXES[kind]);
            let text = format!("{before}{key}{after}");
            let once = scrub(&text).into_owned();
            prop_assert!(!once.contains("Canary0123456789Canary"), "{}", once);
            prop_assert_eq!(scrub(&once).into_owned(), once.clone());
        }
    }
}
