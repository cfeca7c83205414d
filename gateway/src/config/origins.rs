//! Which web pages may talk to the node from a browser. Pure: the caller brings the headers.

/// The pages that may open a WebSocket or call the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origins(Vec<Origin>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Origin {
    /// Any page at all.
    Any,
    /// Pages of the host that the request itself names.
    Own,
    /// Pages of this very machine, at any port.
    Localhost,
    /// `scheme://host[:port]`, in lower case.
    Page(String),
}

impl Origins {
    /// Reads a comma-separated list of origins, `self`, `localhost` and `*`.
    ///
    /// # Errors
    /// What is wrong with it, and how to mend it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let items = text
            .split(',')
            .map(str::trim)
            .filter(|item| !item.is_empty());
        let origins = items.map(Origin::parse).collect::<Result<Vec<_>, _>>()?;
        Ok(Self(origins))
    }

    /// Whether a request may come from a page of `origin`. A request without `Origin` comes from no page, and may. `host` is the request's `Host`.
    pub fn allow(&self, origin: Option<&str>, host: Option<&str>) -> bool {
        let Some(origin) = origin else { return true };
        let origin = origin.to_ascii_lowercase();
        self.0.iter().any(|allowed| match allowed {
            Origin::Any => true,
            Origin::Own => match (authority(&origin), host) {
                (Some(page), Some(host)) => page.eq_ignore_ascii_case(host),
                _ => false,
            },
            Origin::Localhost => matches!(
                authority(&origin).map(name),
                Some("localhost" | "127.0.0.1" | "[::1]")
            ),
            Origin::Page(page) => *page == origin,
        })
    }
}

impl Origin {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "*" => return Ok(Self::Any),
            "self" => return Ok(Self::Own),
            "localhost" => return Ok(Self::Localhost),
            _ => {}
        }
        let page = text.to_ascii_lowercase();
        match authority(&page) {
            Some(rest) if !rest.is_empty() && !rest.contains(['/', '?', '#', '@', '*', ' ']) => {
                Ok(Self::Page(page))
            }
            _ => Err(format!(
                "{text:?} is no origin: give scheme://host[:port] without a path, self, localhost or *"
            )),
        }
    }
}

fn authority(origin: &str) -> Option<&str> {
    origin.split_once("://").map(|(_, authority)| authority)
}

/// The host of `host[:port]`; an IPv6 address keeps its brackets.
fn name(authority: &str) -> &str {
    match authority.rfind(':') {
        Some(colon) if !authority[colon..].contains(']') => &authority[..colon],
        _ => authority,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test")]

    use super::*;

    #[test]
    fn by_default_the_own_host_and_localhost_may() {
        let origins = Origins::parse("self,localhost").unwrap();
        let host = Some("chat.example.com");
        assert!(origins.allow(None, host));
        assert!(origins.allow(Some("https://chat.example.com"), host));
        assert!(origins.allow(
            Some("https://Chat.Example.com:8443"),
            Some("chat.example.com:8443")
        ));
        for local in [
            "http://localhost:5173",
            "http://127.0.0.1",
            "http://[::1]:3000",
        ] {
            assert!(origins.allow(Some(local), host), "{local}");
        }
        for foreign in [
            "https://evil.example",
            "https://chat.example.com.evil.example",
            "http://localhost.evil.example",
            "null",
            "",
        ] {
            assert!(!origins.allow(Some(foreign), host), "{foreign}");
        }
        assert!(!origins.allow(Some("https://chat.example.com"), None));
    }

    #[test]
    fn a_list_replaces_the_default() {
        let origins = Origins::parse("https://App.example.com, http://intranet:8080").unwrap();
        assert!(origins.allow(Some("https://app.example.com"), None));
        assert!(origins.allow(Some("http://intranet:8080"), None));
        assert!(!origins.allow(Some("http://intranet"), None));
        assert!(!origins.allow(Some("http://localhost"), Some("localhost")));
        assert!(
            Origins::parse("*")
                .unwrap()
                .allow(Some("https://anywhere"), None)
        );
        assert!(
            !Origins::parse("")
                .unwrap()
                .allow(Some("https://anywhere"), None)
        );
    }

    #[test]
    fn what_is_no_origin_is_refused() {
        for wrong in [
            "example.com",
            "https://",
            "https://a/b",
            "https://*.example.com",
            "https://me@host",
        ] {
            assert!(Origins::parse(wrong).is_err(), "{wrong}");
        }
    }
}
