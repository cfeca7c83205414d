//! The store of the nodes: a data folder, or Redis processes that the run starts.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use redis_testing::{ClientPath, Cluster, ClusterShape, LossyProxy, Sentinel, Server};
use tokio::time::sleep;

use crate::fault_kind::{FaultKind, StoreKind};

/// Pattern of the keys of channels.
const CHANNEL_KEYS: &str = "*{c:*";

/// The processes of a store. The embedded store has none.
#[derive(Debug)]
pub(super) enum StoreProcesses {
    None,
    Redis(Server),
    Sentinel(Sentinel),
    Cluster(Cluster),
}

impl StoreProcesses {
    pub(super) async fn start(kind: StoreKind, faults: &[FaultKind]) -> Self {
        let path = if faults.contains(&FaultKind::Drop) {
            ClientPath::Lossy
        } else {
            ClientPath::Direct
        };
        match kind {
            StoreKind::Embedded => Self::None,
            StoreKind::Redis => Self::Redis(Server::start_on(path, &[]).await),
            StoreKind::Sentinel => Self::Sentinel(Sentinel::start_on(path).await),
            StoreKind::Cluster => {
                let shape = ClusterShape {
                    masters: 3,
                    has_replicas: faults.contains(&FaultKind::Failover),
                    path,
                };
                Self::Cluster(Cluster::start_as(shape).await)
            }
        }
    }

    /// The proxies between the data servers and the nodes, if records are to be dropped.
    pub(super) fn lossy_proxies(&self) -> Vec<LossyProxy> {
        let servers: Vec<&Server> = match self {
            Self::None => Vec::new(),
            Self::Redis(server) => vec![server],
            Self::Sentinel(sentinel) => sentinel.servers.iter().collect(),
            Self::Cluster(cluster) => cluster.masters.iter().chain(&cluster.replicas).collect(),
        };
        let proxies = servers.into_iter().filter_map(Server::proxy);
        proxies.cloned().collect()
    }

    /// The value for `--redis`.
    pub(super) fn url(&self) -> Option<String> {
        match self {
            Self::None => None,
            Self::Redis(server) => Some(format!("redis://{}", server.client_address())),
            Self::Sentinel(sentinel) => Some(sentinel.url()),
            Self::Cluster(cluster) => Some(cluster.url()),
        }
    }

    pub(super) async fn inject(
        &mut self,
        fault: FaultKind,
        target: u64,
        duration: Duration,
    ) -> Result<()> {
        match (fault, &mut *self) {
            (FaultKind::StoreKill, Self::Redis(server)) => kill(server, duration / 2).await,
            (FaultKind::StoreKill, Self::Cluster(cluster)) => {
                let count = cluster.masters.len() as u64;
                kill(
                    &mut cluster.masters[(target % count) as usize],
                    duration / 2,
                )
                .await;
                cluster.know_roles().await;
            }
            (FaultKind::StoreStop, Self::Redis(server)) => pause(server, duration).await,
            (FaultKind::StoreStop, Self::Cluster(cluster)) => {
                // Shorter than the time after which the other masters start a failover.
                pause(
                    &cluster.masters[(target % cluster.masters.len() as u64) as usize],
                    duration / 4,
                )
                .await;
                cluster.know_roles().await;
            }
            // Shorter than the time after which the Sentinels start a failover: that is another
            // fault.
            (FaultKind::StoreStop, Self::Sentinel(sentinel)) => {
                pause(&sentinel.servers[sentinel.master().await], duration / 8).await
            }
            (FaultKind::Failover, Self::Sentinel(sentinel)) => {
                let master = sentinel.master().await;
                sentinel.servers[master].kill9();
                sentinel.failed_over(master).await;
                sentinel.servers[master].restart().await;
                sentinel.settled().await;
            }
            (FaultKind::Failover, Self::Cluster(cluster)) => {
                let shard = target as usize % cluster.masters.len();
                cluster.fail_over(shard).await;
            }
            (FaultKind::Migrate, Self::Cluster(cluster)) => {
                // A slot that holds a channel: moving an empty one would test nothing.
                let slots = cluster.slots_of(CHANNEL_KEYS).await;
                let slot = *slots
                    .get(target as usize % slots.len().max(1))
                    .context("no slot holds a channel")?;
                cluster
                    .migrate(slot, (target >> 32) as usize % cluster.masters.len())
                    .await;
            }
            _ => bail!("{fault:?} does not apply to this store"),
        }
        Ok(())
    }
}

async fn kill(server: &mut Server, downtime: Duration) {
    server.kill9();
    sleep(downtime).await;
    server.restart().await;
}

async fn pause(server: &Server, pause: Duration) {
    server.stop();
    sleep(pause).await;
    server.cont();
}
