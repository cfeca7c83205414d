//! From whom a request comes, proxies taken into account.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use axum::{
    extract::ConnectInfo,
    http::{HeaderMap, HeaderName, request::Parts},
};
use ipnet::IpNet;

const FORWARDED: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The client's address: the peer's, or, if the peer is a proxy that is believed, the last address in `X-Forwarded-For` that is none.
pub fn client_address(peer: IpAddr, headers: &HeaderMap, proxies: &[IpNet]) -> IpAddr {
    let is_proxy = |address: IpAddr| proxies.iter().any(|proxy| proxy.contains(&address));
    let mut client = peer.to_canonical();
    let values: Vec<_> = headers
        .get_all(FORWARDED)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .collect();
    for hop in values.iter().rev().flat_map(|value| value.rsplit(',')) {
        if !is_proxy(client) {
            break;
        }
        // A proxy that is believed and writes no address hides its client: it is the client then.
        let Some(address) = parse(hop.trim()) else {
            break;
        };
        client = address;
    }
    client
}

/// An address, perhaps with a port.
fn parse(hop: &str) -> Option<IpAddr> {
    let bare = hop.trim_start_matches('[').trim_end_matches(']');
    let address = bare
        .parse()
        .or_else(|_| hop.parse::<SocketAddr>().map(|address| address.ip()));
    address.ok().map(|address: IpAddr| address.to_canonical())
}

/// The client of a request.
pub(super) fn client_of(parts: &Parts, proxies: &[IpNet]) -> IpAddr {
    client_address(peer_of(parts), &parts.headers, proxies)
}

/// Whether a request comes from this machine itself, and not through a proxy on it.
pub(super) fn is_local(parts: &Parts) -> bool {
    peer_of(parts).to_canonical().is_loopback()
        && !parts.headers.contains_key(FORWARDED)
        && !parts.headers.contains_key("forwarded")
}

/// Who is at the other end of the connection; nobody in particular if the server did not say.
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
        let proxies: Vec<IpNet> = vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()];
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append(FORWARDED, value.parse().unwrap());
        }
        client_address(peer.parse().unwrap(), &headers, &proxies).to_string()
    }

    #[test]
    fn only_a_trusted_proxy_says_who_the_client_is() {
        assert_eq!(client("203.0.113.1", &["198.51.100.7"]), "203.0.113.1");
        assert_eq!(client("10.0.0.1", &["198.51.100.7"]), "198.51.100.7");
        assert_eq!(client("::ffff:10.0.0.1", &["198.51.100.7"]), "198.51.100.7");
        assert_eq!(client("10.0.0.1", &[]), "10.0.0.1");
    }

    #[test]
    fn what_a_client_wrote_itself_is_not_believed() {
        assert_eq!(
            client("10.0.0.1", &["1.1.1.1, 198.51.100.7, 10.9.9.9"]),
            "198.51.100.7"
        );
        assert_eq!(
            client("10.0.0.1", &["1.1.1.1", "198.51.100.7:4711"]),
            "198.51.100.7"
        );
        assert_eq!(client("10.0.0.1", &["1.1.1.1, nonsense"]), "10.0.0.1");
        assert_eq!(client("fd00::1", &["[2001:db8::1]:80"]), "2001:db8::1");
        assert_eq!(client("10.0.0.1", &["10.1.1.1, 10.2.2.2"]), "10.1.1.1");
    }
}
