//! Where the nodes keep everything: a folder, or Redis in one of its forms, in processes of the run's own.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use fanout::redis::testing::{Cluster, Sentinel, Server};
use serde::Serialize;
use tokio::time::sleep;

use super::fault::Fault;

/// The keys of channels.
const CHANNELS: &str = "*{c:*";

/// Which store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// One node with the embedded store.
    Embedded,
    /// Redis, one server.
    Redis,
    /// A master and a replica under three Sentinels.
    Sentinel,
    /// A Cluster of three masters, each with a replica if one may take over.
    Cluster,
}

/// The processes of a store.
#[derive(Debug)]
pub(super) enum Store {
    None,
    Redis(Server),
    Sentinel(Sentinel),
    Cluster(Cluster),
}

impl Store {
    pub(super) async fn start(kind: Kind, faults: &[Fault]) -> Self {
        match kind {
            Kind::Embedded => Self::None,
            Kind::Redis => Self::Redis(Server::start().await),
            Kind::Sentinel => Self::Sentinel(Sentinel::start().await),
            Kind::Cluster if faults.contains(&Fault::Failover) => {
                Self::Cluster(Cluster::start_with_replicas(3).await)
            }
            Kind::Cluster => Self::Cluster(Cluster::start(3).await),
        }
    }

    /// What `--redis` takes.
    pub(super) fn url(&self) -> Option<String> {
        match self {
            Self::None => None,
            Self::Redis(server) => Some(server.url()),
            Self::Sentinel(sentinel) => Some(sentinel.url()),
            Self::Cluster(cluster) => Some(cluster.url()),
        }
    }

    pub(super) async fn strike(
        &mut self,
        fault: Fault,
        place: u64,
        seconds: Duration,
    ) -> Result<()> {
        match (fault, &mut *self) {
            (Fault::StoreKill, Self::Redis(server)) => kill(server, seconds / 2).await,
            (Fault::StoreKill, Self::Cluster(cluster)) => {
                let count = cluster.masters.len() as u64;
                kill(&mut cluster.masters[(place % count) as usize], seconds / 2).await;
                cluster.know_roles().await;
            }
            (Fault::StoreStop, Self::Redis(server)) => pause(server, seconds).await,
            (Fault::StoreStop, Self::Cluster(cluster)) => {
                // Shorter than the time after which the others give it up.
                pause(
                    &cluster.masters[(place % cluster.masters.len() as u64) as usize],
                    seconds / 4,
                )
                .await;
                cluster.know_roles().await;
            }
            // Shorter than the time after which the Sentinels fail over: that is another fault.
            (Fault::StoreStop, Self::Sentinel(sentinel)) => {
                pause(&sentinel.servers[sentinel.master().await], seconds / 8).await
            }
            (Fault::Failover, Self::Sentinel(sentinel)) => {
                let master = sentinel.master().await;
                sentinel.servers[master].kill9();
                sentinel.failed_over(master).await;
                sentinel.servers[master].restart().await;
                sentinel.settled().await;
            }
            (Fault::Failover, Self::Cluster(cluster)) => {
                let shard = place as usize % cluster.masters.len();
                cluster.fail_over(shard).await;
            }
            (Fault::Migrate, Self::Cluster(cluster)) => {
                // Of a channel: of most slots nobody would notice.
                let slots = cluster.slots_of(CHANNELS).await;
                let slot = *slots
                    .get(place as usize % slots.len().max(1))
                    .context("no slot holds a channel")?;
                cluster
                    .migrate(slot, (place >> 32) as usize % cluster.masters.len())
                    .await;
            }
            _ => bail!("{fault:?} does not befall this store"),
        }
        Ok(())
    }
}

async fn kill(server: &mut Server, away: Duration) {
    server.kill9();
    sleep(away).await;
    server.restart().await;
}

async fn pause(server: &Server, pause: Duration) {
    server.stop();
    sleep(pause).await;
    server.cont();
}
