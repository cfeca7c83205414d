//! Leases in memory: this process is the store's only node, and its leases end with it.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

#[derive(Debug)]
struct Lease {
    until: Instant,
    /// Number of sessions by member, none of them zero.
    members: HashMap<String, u32>,
}

impl Lease {
    fn has_ended(&self) -> bool {
        self.until <= Instant::now()
    }
}

/// The leases of all nodes.
#[derive(Debug, Default)]
pub(super) struct Leases {
    nodes: Mutex<Nodes>,
}

#[derive(Debug, Default)]
struct Nodes {
    leases: HashMap<String, Lease>,
    /// Members of leases that ended and were renewed before a sweep.
    unswept: Vec<String>,
}

impl Leases {
    /// Renews a lease and sets session counts. Returns false if the lease had ended or is new.
    pub(super) fn renew(&self, node: &str, ttl: Duration, members: Vec<(String, u32)>) -> bool {
        let mut nodes = self.nodes.lock();
        let Nodes { leases, unswept } = &mut *nodes;
        let until = Instant::now() + ttl;
        let mut is_renewal = true;
        let lease = leases.entry(node.to_owned()).or_insert_with(|| {
            is_renewal = false;
            Lease {
                until,
                members: HashMap::new(),
            }
        });
        if lease.has_ended() && is_renewal {
            is_renewal = false;
            unswept.extend(lease.members.drain().map(|(member, _)| member));
        }
        lease.until = until;
        for (member, sessions) in members {
            match sessions {
                0 => lease.members.remove(&member),
                sessions => lease.members.insert(member, sessions),
            };
        }
        is_renewal
    }

    /// Ends a lease and removes its members.
    pub(super) fn release(&self, node: &str) {
        self.nodes.lock().leases.remove(node);
    }

    /// Returns the number of sessions of each member.
    pub(super) fn count(&self, members: &[String]) -> Vec<u32> {
        let nodes = self.nodes.lock();
        let live: Vec<_> = nodes
            .leases
            .values()
            .filter(|lease| !lease.has_ended())
            .collect();
        members
            .iter()
            .map(|member| {
                live.iter()
                    .filter_map(|lease| lease.members.get(member))
                    .sum()
            })
            .collect()
    }

    /// Removes the members of ended leases and returns them.
    pub(super) fn sweep(&self) -> Vec<String> {
        let mut nodes = self.nodes.lock();
        let mut swept = std::mem::take(&mut nodes.unswept);
        for (_, lease) in nodes.leases.extract_if(|_, lease| lease.has_ended()) {
            swept.extend(lease.members.into_keys());
        }
        swept
    }
}
