//! The kinds of stores and of faults that a verified run can have.

use std::{collections::BTreeMap, fmt};

use clap::ValueEnum;
use serde::Serialize;

/// The kind of store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum StoreKind {
    /// One node with the embedded store.
    Embedded,
    /// One Redis server.
    Redis,
    /// A Redis master and a replica, with three Sentinels.
    Sentinel,
    /// A Redis Cluster of three masters, each with a replica if `failover` is among the faults.
    Cluster,
}

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FaultKind {
    /// Kills a node (SIGKILL) and restarts it.
    Kill,
    /// Terminates a node (SIGTERM), waits until it has drained, and restarts it.
    Term,
    /// Suspends a node (SIGSTOP).
    Stop,
    /// Closes connections.
    Cut,
    /// Delays the bytes of connections.
    Delay,
    /// Stops reading on the clients' side.
    Stall,
    /// Slows reading on the clients' side.
    Slow,
    /// Drops records on their way from Redis to the nodes (Redis, Sentinel, Cluster).
    Drop,
    /// Steps the clocks of the nodes, and back.
    Clock,
    /// Fills the disk of the embedded store.
    Disk,
    /// Kills Redis (SIGKILL) and restarts it (Redis, Cluster).
    StoreKill,
    /// Suspends Redis (SIGSTOP) (Redis, Sentinel, Cluster).
    StoreStop,
    /// Kills a master and waits until its replica has taken over (Sentinel, Cluster).
    Failover,
    /// Migrates a slot to another master (Cluster).
    Migrate,
}

impl FaultKind {
    /// Whether the fault applies to nodes with this store. `None` stands for nodes that the run did
    /// not start.
    pub fn applies(self, store: Option<StoreKind>) -> bool {
        match self {
            Self::Cut | Self::Delay | Self::Stall | Self::Slow => true,
            Self::Kill | Self::Term | Self::Stop | Self::Clock => store.is_some(),
            Self::Drop => matches!(
                store,
                Some(StoreKind::Redis | StoreKind::Sentinel | StoreKind::Cluster)
            ),
            Self::Disk => store == Some(StoreKind::Embedded),
            Self::StoreKill => matches!(store, Some(StoreKind::Redis | StoreKind::Cluster)),
            Self::StoreStop => matches!(
                store,
                Some(StoreKind::Redis | StoreKind::Cluster | StoreKind::Sentinel)
            ),
            Self::Failover => matches!(store, Some(StoreKind::Sentinel | StoreKind::Cluster)),
            Self::Migrate => store == Some(StoreKind::Cluster),
        }
    }

    /// Whether the fault affects connections. Such a fault may overlap with one that affects
    /// processes.
    pub fn affects_connections(self) -> bool {
        matches!(
            self,
            Self::Cut | Self::Delay | Self::Stall | Self::Slow | Self::Drop
        )
    }
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_possible_value()
            .map_or(Ok(()), |value| f.write_str(value.get_name()))
    }
}

/// Number of injections of each fault.
pub type FaultCounts = BTreeMap<FaultKind, u64>;
