//! A string that nobody sees by accident.

use std::{convert::Infallible, fmt, str::FromStr};

/// A credential. Prints as `***`; `expose` is the one way to its text.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Hides a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself: for hashing, comparing and sending, never for printing.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl FromStr for Secret {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self::new(text))
    }
}

/// A store's URL with its password hidden: everything between the scheme and the last `@` is `***`, and so is every value of its query.
pub fn without_password(url: &str) -> String {
    let (head, query) = url
        .split_once('?')
        .map_or((url, None), |(head, query)| (head, Some(query)));
    let mut shown = match (head.find("://"), head.rfind('@')) {
        (Some(scheme), Some(at)) if scheme < at => {
            format!("{}://***{}", &head[..scheme], &head[at..])
        }
        // Without a scheme nothing tells where a password would stand.
        (None, Some(at)) => format!("***{}", &head[at..]),
        _ => head.to_owned(),
    };
    if let Some(query) = query {
        let hidden = query.split('&').map(|pair| {
            pair.split_once('=')
                .map_or_else(|| "***".to_owned(), |(key, _)| format!("{key}=***"))
        });
        shown.push('?');
        shown.push_str(&hidden.collect::<Vec<_>>().join("&"));
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_never_prints() {
        let secret = Secret::new("adm_canary");
        assert_eq!(
            format!("{secret} {secret:?} {:?}", Some(&secret)),
            "*** *** Some(***)"
        );
    }

    #[test]
    fn a_url_is_shown_without_its_password() {
        for (url, shown) in [
            ("redis://127.0.0.1:6379/0", "redis://127.0.0.1:6379/0"),
            ("redis://me:canary@host:6379", "redis://***@host:6379"),
            ("redis://:can@ary@host", "redis://***@host"),
            (
                "redis+sentinel://a,b/mymaster?password=canary&db=1",
                "redis+sentinel://a,b/mymaster?password=***&db=***",
            ),
            ("canary@host", "***@host"),
        ] {
            assert_eq!(without_password(url), shown);
        }
    }
}
