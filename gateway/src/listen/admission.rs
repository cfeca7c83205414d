//! Admission of connections: limits for the node, below its limit of descriptors, and for each
//! address.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use protocol::Limits;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::{
    limit::{AddressGroup, Concurrent, Counted},
    metrics::{GaugeGuard, Metrics, RefusalReason},
    rest::Proxies,
};

/// Maximum number of connections to `--ops-listen`. They use reserved descriptors.
const OPS_CONNECTIONS: u64 = 16;
/// Share of the descriptors that is reserved for the store, files and operators.
const RESERVE_DIVISOR: u64 = 8;
const MIN_RESERVE: u64 = 64;
const MAX_RESERVE: u64 = 1024;
/// Share of the sockets that is reserved for HTTP, so that health checks and backends can connect,
/// whatever the number of sessions.
const HTTP_DIVISOR: u64 = 8;
/// Maximum share of the sockets that HTTP connections of one address use.
const ADDRESS_DIVISOR: u64 = 4;

/// The numbers of sockets that a node's limits and descriptors allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SocketBudget {
    /// Maximum number of open files of the process.
    pub descriptors: u64,
    /// Maximum number of client sockets.
    pub sockets: u64,
    /// Maximum number of WebSockets among them.
    pub websockets: u64,
    /// Maximum number of HTTP connections of one address; 0 means no limit.
    pub http_per_address: u64,
}

/// Raises the soft limit of descriptors to the hard one.
pub fn raise_descriptor_limit() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return;
    }
    if let Err(error) = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: maximum,
            maximum,
        },
    ) {
        tracing::warn!(%error, ?current, ?maximum, "cannot raise the limit of open files");
    }
}

/// Returns the current maximum number of open files of the process.
pub fn descriptor_limit() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Returns the maximum number of open files after [`raise_descriptor_limit`].
pub fn max_descriptor_limit() -> u64 {
    getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX)
}

impl SocketBudget {
    /// Computes the budget from limits and the number of descriptors.
    pub fn new(limits: &Limits, descriptors: u64) -> Self {
        let reserve = (descriptors / RESERVE_DIVISOR)
            .clamp(MIN_RESERVE, MAX_RESERVE)
            .min(descriptors / 2);
        let at_most = |limit: u64, bound: u64| if limit == 0 { bound } else { limit.min(bound) };
        let sockets = at_most(limits.sockets, descriptors - reserve);
        let websockets = at_most(limits.connections, sockets - sockets / HTTP_DIVISOR);
        let http_per_address = limits
            .http_connections_per_ip
            .min((sockets / ADDRESS_DIVISOR).max(1));
        Self {
            descriptors,
            sockets,
            websockets,
            http_per_address,
        }
    }

    /// Logs the budget, and warns of limits that cannot be reached.
    pub fn log(&self, limits: &Limits) {
        let Self {
            descriptors,
            sockets,
            websockets,
            http_per_address,
        } = *self;
        tracing::info!(
            descriptors,
            sockets,
            connections = websockets,
            http_connections_per_ip = http_per_address,
            "sockets are limited"
        );
        for (name, wanted, possible) in [
            ("sockets", limits.sockets, sockets),
            ("connections", limits.connections, websockets),
        ] {
            if wanted > possible {
                tracing::warn!(
                    limit = name,
                    wanted,
                    possible,
                    descriptors,
                    "a limit exceeds what the open files of the process allow: raise that (ulimit -n, LimitNOFILE=)"
                );
            }
        }
    }
}

/// Admits connections to one listener.
#[derive(Debug)]
pub struct Admission {
    sockets: Arc<Sockets>,
    /// Limits by address; `None` for operators.
    addresses: Option<Addresses>,
    metrics: Arc<Metrics>,
}

#[derive(Debug)]
struct Addresses {
    counts: Arc<Concurrent<AddressGroup>>,
    max: u64,
    proxies: Arc<Proxies>,
}

/// A permit for a socket, released when it is dropped.
#[derive(Debug)]
pub struct SocketPermit(Arc<Sockets>);

/// The sockets of one listener.
#[derive(Debug)]
struct Sockets {
    open: AtomicU64,
    max: u64,
}

impl Sockets {
    fn new(max: u64) -> Arc<Self> {
        Arc::new(Self {
            open: AtomicU64::new(0),
            max,
        })
    }
}

impl SocketPermit {
    /// Returns whether half of the sockets that are reserved for HTTP are in use. Refused
    /// connections must not use the rest.
    pub fn is_scarce(&self) -> bool {
        let left = self
            .0
            .max
            .saturating_sub(self.0.open.load(Ordering::Relaxed));
        left <= self.0.max / HTTP_DIVISOR / 2
    }
}

/// A connection that was admitted.
#[derive(Debug)]
pub(super) struct Admitted {
    /// Stays with the socket after an upgrade.
    pub(super) socket: SocketPermit,
    /// Held while the connection uses HTTP.
    pub(super) http: (Option<Counted<AddressGroup>>, GaugeGuard),
}

impl Admission {
    /// Creates the admission of clients.
    pub fn clients(budget: &SocketBudget, proxies: Arc<Proxies>, metrics: Arc<Metrics>) -> Self {
        let addresses = Addresses {
            counts: Concurrent::new(),
            max: budget.http_per_address,
            proxies,
        };
        Self {
            sockets: Sockets::new(budget.sockets),
            addresses: Some(addresses),
            metrics,
        }
    }

    /// Creates the admission of operators, with sockets that clients cannot use.
    pub fn operators(metrics: Arc<Metrics>) -> Self {
        Self {
            sockets: Sockets::new(OPS_CONNECTIONS),
            addresses: None,
            metrics,
        }
    }

    /// Admits a connection, or returns the name of the limit that it exceeds. A trusted proxy
    /// connects for many clients, so its address is not limited.
    pub(super) fn admit(&self, peer: IpAddr) -> Result<Admitted, &'static str> {
        let refuse = |limit| {
            self.metrics.refused(RefusalReason::Limit);
            self.metrics.limit_hit(limit);
            limit
        };
        let address = match &self.addresses {
            Some(addresses) if !addresses.proxies.trusts(peer) => {
                let counted = addresses.counts.enter(peer.into(), addresses.max);
                Some(counted.ok_or_else(|| refuse("http_connections_per_ip"))?)
            }
            _ => None,
        };
        let more = |open| (open < self.sockets.max).then_some(open + 1);
        self.sockets
            .open
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
            .map_err(|_| refuse("sockets"))?;
        let socket = SocketPermit(Arc::clone(&self.sockets));
        Ok(Admitted {
            socket,
            http: (address, Metrics::hold(&self.metrics.http_connections)),
        })
    }
}

impl Drop for SocketPermit {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test")]

    use super::*;

    fn budget(descriptors: u64, set: impl FnOnce(&mut Limits)) -> SocketBudget {
        let mut limits = Limits::default();
        set(&mut limits);
        SocketBudget::new(&limits, descriptors)
    }

    #[test]
    fn budget_reserves_descriptors_and_http_sockets() {
        let of = |descriptors| {
            let SocketBudget {
                sockets,
                websockets,
                http_per_address,
                ..
            } = budget(descriptors, |_| {});
            (sockets, websockets, http_per_address)
        };
        assert_eq!(of(512), (448, 392, 112));
        assert_eq!(of(1024), (896, 784, 224));
        assert_eq!(of(1_048_576), (1_047_552, 916_608, 1000));
        assert_eq!(of(8), (4, 4, 1));
        assert!(of(u64::MAX).0 > 1 << 60);
    }

    #[test]
    fn limits_only_lower_what_descriptors_allow() {
        assert_eq!(
            budget(1024, |limits| limits.sockets = 80),
            budget(1024, |limits| (limits.sockets, limits.connections) =
                (80, 70))
        );
        assert_eq!(budget(1024, |limits| limits.sockets = 10_000).sockets, 896);
        assert_eq!(
            budget(1024, |limits| limits.connections = 10).websockets,
            10
        );
        assert_eq!(
            budget(1024, |limits| limits.connections = 10_000).websockets,
            784
        );
        assert_eq!(
            budget(1024, |limits| limits.http_connections_per_ip = 0).http_per_address,
            0
        );
    }

    #[test]
    fn sockets_are_limited_by_node_and_address_except_for_trusted_proxies() {
        let budget = SocketBudget {
            descriptors: 100,
            sockets: 5,
            websockets: 5,
            http_per_address: 2,
        };
        let proxies = Proxies::new(vec!["10.0.0.0/8".parse().unwrap()]);
        let admission = Admission::clients(&budget, proxies, Arc::new(Metrics::new()));
        let admit = |peer: &str| admission.admit(peer.parse().unwrap());
        let mut held = vec![admit("2001:db8::1").unwrap(), admit("2001:db8::2").unwrap()];
        assert_eq!(admit("2001:db8::3").unwrap_err(), "http_connections_per_ip");
        // An upgraded connection does not count against its address, but still against the
        // node.
        let upgraded = held.pop().unwrap().socket;
        held.push(admit("2001:db8::3").unwrap());
        held.extend([
            admit("10.0.0.1").unwrap(),
            admit("::ffff:10.0.0.1").unwrap(),
        ]);
        assert_eq!(admit("10.0.0.1").unwrap_err(), "sockets");
        assert!(held[0].socket.is_scarce(), "no socket is left");
        drop(upgraded);
        assert!(!held[0].socket.is_scarce());
        assert!(admit("10.0.0.1").is_ok());
        drop(held);
        assert_eq!(admission.sockets.open.load(Ordering::Relaxed), 0);
    }
}
