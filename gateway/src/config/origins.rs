//! The web pages that may use the node from a browser, by the `Origin` header.

use std::net::Ipv6Addr;

/// Origins that may open a WebSocket or call the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origins(Vec<Allowed>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Allowed {
    /// Any page at all.
    Any,
    /// Pages of the host in the request's `Host` header.
    OwnHost,
    /// Pages of the browser's own machine, at any port.
    Localhost,
    /// Pages of one origin.
    Page(Origin),
}

/// `scheme://host[:port]` (RFC 6454). A scheme's default port is left out.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Origin {
    scheme: String,
    authority: Authority,
}

/// `host[:port]`. The host is in lower case; an IPv6 address is in brackets and in its shortest
/// form.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Authority {
    host: String,
    port: Option<u16>,
}

impl Origins {
    /// Reads a comma-separated list of origins, `self`, `localhost` and `*`.
    ///
    /// # Errors
    /// Returns a sentence with the cause and the remedy if an item is none of these.
    pub fn parse(text: &str) -> Result<Self, String> {
        let items = text
            .split(',')
            .map(str::trim)
            .filter(|item| !item.is_empty());
        items
            .map(Allowed::parse)
            .collect::<Result<Vec<_>, _>>()
            .map(Self)
    }

    /// Returns whether a request with this `Origin` and `Host` is allowed. A request without
    /// `Origin` is allowed, since it comes from no web page.
    pub fn allow(&self, origin: Option<&str>, host: Option<&str>) -> bool {
        let Some(origin) = origin else { return true };
        if self.0.contains(&Allowed::Any) {
            return true;
        }
        let Ok(origin) = Origin::parse(origin) else {
            return false;
        };
        self.0.iter().any(|allowed| match allowed {
            Allowed::Any => true,
            Allowed::OwnHost => host
                .and_then(|host| Authority::parse(host, &origin.scheme).ok())
                .is_some_and(|host| host == origin.authority),
            Allowed::Localhost => matches!(
                origin.authority.host.as_str(),
                "localhost" | "127.0.0.1" | "[::1]"
            ),
            Allowed::Page(page) => *page == origin,
        })
    }
}

impl Allowed {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "*" => Ok(Self::Any),
            "self" => Ok(Self::OwnHost),
            "localhost" => Ok(Self::Localhost),
            _ => Origin::parse(text).and_then(Origin::reachable).map(Self::Page).map_err(|wrong| {
                let wrong = common_mistake(text).unwrap_or(wrong);
                format!("{text:?} matches no page: {wrong}; use scheme://host[:port] without a path, self, localhost or *")
            }),
        }
    }
}

/// Returns a sentence for the mistakes that are made most often.
fn common_mistake(text: &str) -> Option<&'static str> {
    let (_, authority) = text.split_once("://")?;
    if authority.contains('*') {
        return Some("there are no wildcards: name each host");
    }
    let host = authority.strip_suffix('/')?;
    (!host.is_empty() && !host.contains('/')).then_some("leave out the `/` at the end")
}

impl Origin {
    fn parse(text: &str) -> Result<Self, &'static str> {
        let (scheme, authority) = text.split_once("://").ok_or("it has no scheme")?;
        let is_scheme = scheme.starts_with(|first: char| first.is_ascii_alphabetic())
            && scheme
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'));
        if !is_scheme {
            return Err("its scheme is invalid");
        }
        let scheme = scheme.to_ascii_lowercase();
        let authority = Authority::parse(authority, &scheme)?;
        Ok(Self { scheme, authority })
    }

    /// Refuses schemes that no browser sends as an `Origin`.
    fn reachable(self) -> Result<Self, &'static str> {
        match self.scheme.as_str() {
            "ws" | "wss" => {
                Err("an origin is the address of the page, which begins with http:// or https://")
            }
            "file" | "data" | "blob" => Err("browsers send no origin for pages of this scheme"),
            _ => Ok(self),
        }
    }
}

impl Authority {
    /// Parses `host[:port]`, and drops the scheme's default port. User information, paths and
    /// queries are refused.
    fn parse(text: &str, scheme: &str) -> Result<Self, &'static str> {
        let (host, rest) = match text.strip_prefix('[') {
            Some(inner) => {
                let (address, rest) = inner
                    .split_once(']')
                    .ok_or("its IPv6 address has no closing bracket")?;
                let address: Ipv6Addr = address
                    .parse()
                    .map_err(|_| "its brackets contain no IPv6 address")?;
                (format!("[{address}]"), rest)
            }
            None => {
                let (host, rest) = text.split_at(text.find(':').unwrap_or(text.len()));
                let is_host = !host.is_empty()
                    && host.bytes().all(|byte| {
                        byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_')
                    });
                if !is_host {
                    return Err(
                        "its host has other characters than letters, digits, `-`, `.` and `_` (an international name is given in its xn-- form)",
                    );
                }
                (host.to_ascii_lowercase(), rest)
            }
        };
        let port = match rest.strip_prefix(':') {
            None if rest.is_empty() => None,
            None => return Err("something follows its host"),
            Some(digits)
                if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) =>
            {
                Some(digits.parse().map_err(|_| "its port is beyond 65535")?)
            }
            Some(_) => return Err("its port is no number"),
        };
        Ok(Self {
            host,
            port: port.filter(|port| Some(*port) != default_port(scheme)),
        })
    }
}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test")]

    use super::*;

    #[test]
    fn own_host_and_localhost_are_allowed_by_default() {
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
    fn list_replaces_the_default() {
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
    fn default_port_equals_no_port() {
        let own = Origins::parse("self").unwrap();
        assert!(own.allow(
            Some("https://chat.example.com"),
            Some("chat.example.com:443")
        ));
        assert!(own.allow(
            Some("https://chat.example.com:443"),
            Some("chat.example.com")
        ));
        assert!(own.allow(Some("http://chat.example.com"), Some("Chat.Example.com:80")));
        assert!(own.allow(Some("http://[0:0::1]"), Some("[::1]:80")));
        for other in [
            "chat.example.com:80",
            "chat.example.com:8443",
            "chat.example.com:",
            "chat.example.com:443:443",
        ] {
            assert!(
                !own.allow(Some("https://chat.example.com"), Some(other)),
                "{other}"
            );
        }
        let page = Origins::parse("https://x:443,http://y").unwrap();
        assert!(page.allow(Some("https://x"), None) && page.allow(Some("http://y:80"), None));
        assert!(!page.allow(Some("http://x"), None) && !page.allow(Some("https://y"), None));
    }

    #[test]
    fn origin_with_user_information_or_a_path_is_not_allowed() {
        let origins = Origins::parse("self,localhost,https://app.example.com").unwrap();
        for disguised in [
            "http://localhost:80@evil.com",
            "http://localhost@evil.com",
            "http://127.0.0.1:80@evil.com",
            "http://[::1]:80@evil.com",
            "http://[::1].evil.com",
            "http://localhost/evil.com",
            "http://localhost?evil.com",
            "http://localhost#evil.com",
            "http://localhost\\@evil.com",
            "https://app.example.com@evil.com",
            "https://evil.com:443@app.example.com",
            "://localhost",
            "http://",
        ] {
            assert!(
                !origins.allow(Some(disguised), Some("evil.com:443@app.example.com")),
                "{disguised}"
            );
        }
    }

    #[test]
    fn origin_that_matches_no_page_is_refused_with_a_sentence() {
        for (wrong, hint) in [
            ("https://app.example.com/", "leave out the `/` at the end"),
            (
                "https://*.example.com",
                "there are no wildcards: name each host",
            ),
        ] {
            let sentence = Origins::parse(wrong).unwrap_err();
            assert!(sentence.contains(hint), "{sentence}");
        }
        for wrong in [
            "example.com",
            "null",
            "https://",
            "https://a/b",
            "https://a/",
            "https://a?b",
            "https://*.example.com",
            "https://me@host",
            "https://host:99999",
            "https://host:",
            "https://host:port",
            "https://b\u{fc}cher.example",
            "https://[::1",
            "https://[::g]",
            "wss://chat.example.com",
            "file://",
            "file://host",
        ] {
            let sentence = Origins::parse(wrong).unwrap_err();
            assert!(
                sentence.contains("matches no page") && sentence.contains("scheme://host[:port]"),
                "{sentence}"
            );
        }
    }
}
