//! The client address of a request, with `X-Forwarded-For` of trusted proxies.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use axum::{
    extract::ConnectInfo,
    http::{HeaderMap, HeaderName, HeaderValue, request::Parts},
};
use ipnet::IpNet;

const FORWARDED: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The proxies whose `X-Forwarded-For` is trusted.
#[derive(Debug, Default)]
pub struct Proxies {
    trusted: Vec<IpNet>,
    has_warned: AtomicBool,
}

impl Proxies {
    /// Trusts the proxies in these networks.
    pub fn new(trusted: Vec<IpNet>) -> Arc<Self> {
        Arc::new(Self {
            trusted,
            has_warned: AtomicBool::new(false),
        })
    }

    /// Returns whether this address is trusted.
    pub fn trusts(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.trusted
            .iter()
            .any(|network| network.contains(&address))
    }

    /// Returns the client's address: the peer's or, if the peer is trusted, the last address in
    /// `X-Forwarded-For` that is not.
    ///
    /// Warns once of an untrusted peer with `X-Forwarded-For`: its clients all count as one
    /// address.
    pub fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut client = peer.to_canonical();
        if !self.trusts(client) {
            if headers.contains_key(FORWARDED) && !self.has_warned.swap(true, Ordering::Relaxed) {
                tracing::warn!(
                    peer = %client,
                    "X-Forwarded-For from a peer that is not trusted was ignored: if it is your proxy, name it with --trusted-proxies, \
                     or all its clients share the limits of one address"
                );
            }
            return client;
        }
        // Parsed as bytes, since the part before the proxy's own address may contain anything.
        let values: Vec<_> = headers
            .get_all(FORWARDED)
            .iter()
            .map(HeaderValue::as_bytes)
            .collect();
        for hop in values
            .iter()
            .rev()
            .flat_map(|value| value.rsplit(|byte| *byte == b','))
        {
            // A trusted proxy without an address hides its client, so it counts as the client itself.
            let Some(address) = str::from_utf8(hop).ok().and_then(|hop| parse(hop.trim())) else {
                break;
            };
            client = address;
            if !self.trusts(client) {
                break;
            }
        }
        client
    }
}

/// Parses an address with an optional port.
fn parse(hop: &str) -> Option<IpAddr> {
    let bare = hop.trim_start_matches('[').trim_end_matches(']');
    let address = bare
        .parse()
        .or_else(|_| hop.parse::<SocketAddr>().map(|address| address.ip()));
    address.ok().map(|address: IpAddr| address.to_canonical())
}

/// Returns the client's address of a request.
pub(super) fn client_of(parts: &Parts, proxies: &Proxies) -> IpAddr {
    proxies.client(peer_of(parts), &parts.headers)
}

/// Returns the peer's address, or an unspecified one if the server did not set it.
fn peer_of(parts: &Parts) -> IpAddr {
    parts
        .extensions
        .get::<ConnectInfo<SocketAddr>>()
        .map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.0.ip())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test")]

    use super::*;

    fn client(peer: &str, forwarded: &[&str]) -> String {
        let proxies = Proxies::new(vec![
            "10.0.0.0/8".parse().unwrap(),
            "fd00::/8".parse().unwrap(),
        ]);
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append(
                FORWARDED,
                HeaderValue::from_bytes(value.as_bytes()).unwrap(),
            );
        }
        proxies.client(peer.parse().unwrap(), &headers).to_string()
    }

    #[test]
    fn only_a_trusted_proxy_says_who_the_client_is() {
        assert_eq!(client("203.0.113.1", &["198.51.100.7"]), "203.0.113.1");
        assert_eq!(client("10.0.0.1", &["198.51.100.7"]), "198.51.100.7");
        assert_eq!(client("::ffff:10.0.0.1", &["198.51.100.7"]), "198.51.100.7");
        assert_eq!(client("10.0.0.1", &[]), "10.0.0.1");
    }

    #[test]
    fn address_written_by_the_client_is_not_trusted() {
        assert_eq!(
            client("10.0.0.1", &["1.1.1.1, 198.51.100.7, 10.9.9.9"]),
            "198.51.100.7"
        );
        assert_eq!(
            client("10.0.0.1", &["1.1.1.1", "198.51.100.7:4711"]),
            "198.51.100.7"
        );
        assert_eq!(client("10.0.0.1", &["1.1.1.1, nonsense"]), "10.0.0.1");
        assert_eq!(
            client("10.0.0.1", &["\u{e9}, 198.51.100.7"]),
            "198.51.100.7"
        );
        assert_eq!(
            client("10.0.0.1", &["\u{e9}", "198.51.100.7"]),
            "198.51.100.7"
        );
        assert_eq!(client("10.0.0.1", &["198.51.100.7, \u{e9}"]), "10.0.0.1");
        assert_eq!(client("fd00::1", &["[2001:db8::1]:80"]), "2001:db8::1");
        assert_eq!(client("10.0.0.1", &["10.1.1.1, 10.2.2.2"]), "10.1.1.1");
    }
}
