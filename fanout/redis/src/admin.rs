//! Connections for the checks at startup: one to each server, open while the checks run.

use std::io;

use redis::{Cmd, RedisResult, Value, aio::MultiplexedConnection};
use tokio::time::timeout;

use crate::{
    Address, CONNECT_TIMEOUT, ConnectionError, Deployment, Topology,
    dial::current_master,
    dial::{open, open_master, timed_out},
};

/// A connection to one server.
pub struct AdminConnection {
    /// Address of the server.
    pub address: Address,
    connection: MultiplexedConnection,
}

impl AdminConnection {
    /// Runs a command. Returns an error reply as `Err`.
    pub async fn run(&mut self, cmd: &Cmd) -> RedisResult<Value> {
        let reply = timeout(CONNECT_TIMEOUT, self.connection.send_packed_command(cmd)).await;
        reply
            .map_err(|_| timed_out(&self.address))??
            .extract_error()
    }
}

/// Connects to every master of a deployment, within a few seconds.
pub async fn connect_to_masters(deployment: &Deployment) -> RedisResult<Vec<AdminConnection>> {
    let Deployment::Cluster { seeds, credentials } = deployment else {
        let address = current_master(deployment).await?;
        let connection = open_master(deployment, &address)
            .await
            .map_err(|error| match error {
                ConnectionError::Redis(error) => error,
                ConnectionError::Io(error) => error.into(),
                error => io::Error::other(error).into(),
            })?;
        return Ok(vec![AdminConnection {
            address,
            connection,
        }]);
    };
    let topology = Topology::new(seeds.clone(), credentials.clone());
    topology.refresh().await?;
    let mut masters = Vec::new();
    for address in topology.masters() {
        masters.push(AdminConnection {
            connection: open(&address, credentials, 0).await?,
            address: (*address).clone(),
        });
    }
    Ok(masters)
}

/// Connects to a replica of a deployment.
pub async fn connect_to_replica(
    deployment: &Deployment,
    address: Address,
) -> RedisResult<AdminConnection> {
    let connection = open(&address, deployment.credentials(), deployment.database()).await?;
    Ok(AdminConnection {
        address,
        connection,
    })
}

impl std::fmt::Debug for AdminConnection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AdminConnection({})", self.address)
    }
}
