//! Leases, in memory: the nodes of this store are this one process, and what it held ends with it.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

#[derive(Debug)]
struct Lease {
    until: Instant,
    /// Sessions by member, none of them zero.
    members: HashMap<String, u32>,
}

impl Lease {
    fn has_ended(&self) -> bool {
        self.until <= Instant::now()
    }
}

/// All leases.
#[derive(Debug, Default)]
pub(super) struct Leases {
    nodes: Mutex<Nodes>,
}

#[derive(Debug, Default)]
struct Nodes {
    leases: HashMap<String, Lease>,
    /// Members of leases that ended and were taken anew before they were swept.
    left: Vec<String>,
}

impl Leases {
    /// Renews a lease and sets counts; false if there was none any more.
    pub(super) fn renew(&self, node: &str, ttl: Duration, members: Vec<(String, u32)>) -> bool {
        let mut nodes = self.nodes.lock();
        let Nodes { leases, left } = &mut *nodes;
        let until = Instant::now() + ttl;
        let mut was = true;
        let lease = leases.entry(node.to_owned()).or_insert_with(|| {
            was = false;
            Lease {
                until,
                members: HashMap::new(),
            }
        });
        if lease.has_ended() && was {
            was = false;
            left.extend(lease.members.drain().map(|(member, _)| member));
        }
        lease.until = until;
        for (member, sessions) in members {
            match sessions {
                0 => lease.members.remove(&member),
                sessions => lease.members.insert(member, sessions),
            };
        }
        was
    }

    /// Ends a lease with its members.
    pub(super) fn release(&self, node: &str) {
        self.nodes.lock().leases.remove(node);
    }

    /// Sessions of each member.
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

    /// Takes away the members of leases that have ended.
    pub(super) fn sweep(&self) -> Vec<String> {
        let mut nodes = self.nodes.lock();
        let mut swept = std::mem::take(&mut nodes.left);
        for (_, lease) in nodes.leases.extract_if(|_, lease| lease.has_ended()) {
            swept.extend(lease.members.into_keys());
        }
        swept
    }
}
