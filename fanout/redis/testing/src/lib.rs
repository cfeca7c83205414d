//! Real Redis processes for tests: a server, a Cluster, three Sentinels, on free loopback ports and
//! in temporary folders, killed when dropped. Failures panic.
//!
//! Needs `redis-server` on the path.

mod cluster;
mod counting_proxy;
mod lossy_proxy;
mod proxy;
mod sentinel;
mod server;

use std::{future::Future, time::Duration};

use chaos_redis::DEFAULT_PREFIX;
use tokio::time::{Instant, sleep};

pub use self::{
    cluster::{Cluster, ClusterShape},
    counting_proxy::CountingProxy,
    lossy_proxy::{LossyProxy, MessageLoss},
    proxy::Proxy,
    sentinel::Sentinel,
    server::{ClientPath, Server},
};

/// Maximum time to wait for a condition.
const PATIENCE: Duration = Duration::from_secs(60);

/// Returns the channel of a topic in database 0 with the default prefix.
pub fn channel(topic: &str) -> String {
    format!("{DEFAULT_PREFIX}@0:{{{topic}}}")
}

/// Returns a key of a partition with the default prefix.
pub fn key(partition: &str, rest: &str) -> String {
    format!("{DEFAULT_PREFIX}:{{{partition}}}:{rest}")
}

/// Polls until a condition holds.
///
/// # Panics
/// If it does not hold within a minute.
pub async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let deadline = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        sleep(Duration::from_millis(20)).await;
    }
}
