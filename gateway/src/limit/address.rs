//! The unit that limits per address count.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
};

/// Prefix length of an IPv6 network, whose addresses are assumed to belong to one
/// client.
const IPV6_PREFIX: u32 = 64;

/// An IPv4 address, or an IPv6 /64. An IPv4-mapped IPv6 address counts as its IPv4 address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AddressGroup(IpAddr);

impl From<IpAddr> for AddressGroup {
    fn from(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(address) => {
                Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << (128 - IPV6_PREFIX))).into()
            }
            v4 => v4,
        })
    }
}

impl fmt::Display for AddressGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IpAddr::V4(address) => address.fmt(f),
            IpAddr::V6(network) => write!(f, "{network}/{IPV6_PREFIX}"),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test")]

    use super::*;

    #[test]
    fn an_ipv6_network_counts_as_one_address() {
        let group = |address: &str| AddressGroup::from(address.parse::<IpAddr>().unwrap());
        assert_eq!(
            group("2001:db8:1:2::1"),
            group("2001:db8:1:2:ffff:ffff:ffff:ffff")
        );
        assert_ne!(group("2001:db8:1:2::1"), group("2001:db8:1:3::1"));
        assert_ne!(group("203.0.113.1"), group("203.0.113.2"));
        assert_eq!(group("::ffff:203.0.113.1"), group("203.0.113.1"));
        assert_eq!(group("203.0.113.1").to_string(), "203.0.113.1");
        assert_eq!(group("2001:db8:1:2::1").to_string(), "2001:db8:1:2::/64");
    }
}
