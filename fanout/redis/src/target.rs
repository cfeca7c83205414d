//! The server of a deployment that a connection goes to.

use std::{fmt, future::pending, sync::Arc};

use redis::RedisResult;
use tokio::time::sleep;

use crate::{Address, Deployment, dial::current_master, timing::HEARTBEAT_PERIOD};

/// A server of a deployment.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Target {
    /// The master of a single or Sentinel deployment.
    Master,
    /// A node of a Cluster.
    Node(Arc<Address>),
}

impl Target {
    /// Returns the server's current address. Asks the Sentinels for the address of their master.
    pub(crate) async fn locate(&self, deployment: &Deployment) -> RedisResult<Address> {
        match self {
            Self::Master => current_master(deployment).await,
            Self::Node(address) => Ok((**address).clone()),
        }
    }

    /// Waits until the Sentinels name another master than `address`, and returns it. Never returns
    /// for other deployments.
    ///
    /// A master that was cut off from its Sentinels does not know that it was replaced.
    pub(crate) async fn replacement(&self, deployment: &Deployment, address: &Address) -> Address {
        if !matches!(
            (self, deployment),
            (Self::Master, Deployment::Sentinel { .. })
        ) {
            return pending().await;
        }
        loop {
            sleep(HEARTBEAT_PERIOD).await;
            if let Ok(master) = current_master(deployment).await
                && master != *address
            {
                return master;
            }
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Master => f.write_str("master"),
            Self::Node(address) => address.fmt(f),
        }
    }
}
