//! Store URLs without their secrets, for display.

use chaos_redis::Deployment;

/// Returns a store's URL with `***` in place of its credentials and the values of its query. In an
/// invalid or ambiguous URL, everything that may be secret is hidden.
pub fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return "***".to_owned();
    };
    let hidden = credential_length(rest);
    if hidden == rest.len() || (hidden == 0 && url.parse::<Deployment>().is_err()) {
        return format!("{scheme}://***");
    }
    let (address, query) = rest[hidden..]
        .split_once('?')
        .map_or((&rest[hidden..], None), |(address, query)| {
            (address, Some(query))
        });
    let mut shown = format!(
        "{scheme}://{}{address}",
        if hidden > 0 { "***" } else { "" }
    );
    if let Some(query) = query {
        let values = query.split('&').map(|pair| {
            pair.split_once('=')
                .map_or_else(|| "***".to_owned(), |(key, _)| format!("{key}=***"))
        });
        shown.push('?');
        shown.push_str(&values.collect::<Vec<_>>().join("&"));
    }
    shown
}

/// Returns the number of bytes to hide after a URL's `://`: up to the last `@`, since a password
/// may contain any other character, or all of them if that `@` may belong to a password in the
/// query.
pub(crate) fn credential_length(rest: &str) -> usize {
    let Some(at) = rest.rfind('@') else { return 0 };
    match rest[..at].split_once('?') {
        Some((_, query)) if query.contains('=') => rest.len(),
        _ => at,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn url_is_shown_without_its_password() {
        for (url, shown) in [
            ("redis://127.0.0.1:6379/0", "redis://127.0.0.1:6379/0"),
            ("redis://me:canary@host:6379", "redis://***@host:6379"),
            ("redis://:can@ary@host", "redis://***@host"),
            (
                "redis://app:hunter2?canary@host:6379/0",
                "redis://***@host:6379/0",
            ),
            ("redis://app:a/canary#b:c@host", "redis://***@host"),
            ("redis://app:can%40ary@host", "redis://***@host"),
            (
                "redis+sentinel://:can?ary@a:1,b:2/mymaster/3",
                "redis+sentinel://***@a:1,b:2/mymaster/3",
            ),
            (
                "redis+cluster://u:can/ary@a:1,b:2",
                "redis+cluster://***@a:1,b:2",
            ),
            (
                "redis+sentinel://a,b/mymaster?sentinel_password=canary",
                "redis+sentinel://a,b/mymaster?sentinel_password=***",
            ),
            (
                "redis+sentinel://x:canary@a/m?sentinel_password=canary&x=canary",
                "redis+sentinel://***@a/m?sentinel_password=***&x=***",
            ),
            // The `@` may belong to either password.
            (
                "redis+sentinel://a,b/m?sentinel_password=can@ary",
                "redis+sentinel://***",
            ),
            ("redis://user:p?q=canary@host", "redis://***"),
            // Not URLs: a password without a host, or without a scheme.
            ("redis://user:canary", "redis://***"),
            ("canary@host", "***"),
        ] {
            assert_eq!(without_password(url), shown);
        }
    }
}
