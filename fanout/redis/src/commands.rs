//! Commands to a deployment of any kind.

mod answer;
mod destination;
mod refusal;
mod retry;
mod shards;

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use dashmap::DashMap;
use futures_util::{
    FutureExt,
    future::{join_all, try_join_all},
};
use redis::{Cmd, ErrorKind, Pipeline, RedisError, RedisFuture, RedisResult, Value, aio};
use tokio::time::Instant;

pub use answer::CommandReply;

use self::{
    destination::Destination,
    refusal::CommandRefusal,
    retry::{Retries, send_until_accepted},
    shards::Shards,
};
use crate::{
    Address, Deployment, RESPONSE_TIMEOUT, Target, Topology,
    managed::{Lane, ManagedConnection},
    replicas::Replicas,
    slot,
};

/// A handle that runs commands on a deployment. Clones share the connections, which reconnect after
/// every outage.
/// A Single or Sentinel deployment has two multiplexed connections to the master, one of them for
/// [large reads](Self::large_reads). A Cluster has two to each master, and commands are routed by
/// slot.
///
/// Commands wait for a connection. A command is sent again after an error reply that proves that
/// the server did not execute it: `MOVED`, `ASK`, `TRYAGAIN`, `CLUSTERDOWN`, `LOADING`, `READONLY`
/// or `MASTERDOWN`. After any other error it is unknown whether the server executed the command.
/// Every call ends within [`RESPONSE_TIMEOUT`].
///
/// Implements [`redis::aio::ConnectionLike`] for `query_async` and `Script::invoke_async`.
#[derive(Clone)]
pub struct Commands {
    deployment: Arc<Deployment>,
    route: Route,
    lane: Lane,
}

#[derive(Clone)]
enum Route {
    Master(ManagedConnection),
    Shards(Arc<Shards>),
}

impl Commands {
    /// Starts connecting and returns at once. Needs a tokio runtime.
    pub fn open(deployment: &Deployment) -> Self {
        Self::open_with(deployment, None)
    }

    /// Like [`open`](Self::open). With `replicas`, each reply has a
    /// [`ReplicaAck`](crate::ReplicaAck).
    pub fn open_with(deployment: &Deployment, replicas: Option<Replicas>) -> Self {
        let deployment = Arc::new(deployment.clone());
        let route = match &*deployment {
            Deployment::Cluster { seeds, credentials } => {
                let topology = Topology::new(seeds.clone(), credentials.clone());
                Route::Shards(Arc::new(Shards {
                    deployment: deployment.clone(),
                    topology,
                    connections: DashMap::new(),
                    replicas,
                }))
            }
            _ => Route::Master(ManagedConnection::open(
                deployment.clone(),
                Target::Master,
                replicas,
            )),
        };
        Self {
            deployment,
            route,
            lane: Lane::Main,
        }
    }

    /// Returns a handle that uses the connections for large reads, so that no other command waits
    /// for their replies.
    pub fn large_reads(&self) -> Self {
        Self {
            lane: Lane::LargeReads,
            ..self.clone()
        }
    }

    /// Returns the known owner of a key; `None` unless the deployment is a Cluster.
    pub fn owner(&self, key: &str) -> Option<Arc<Address>> {
        match &self.route {
            Route::Master(_) => None,
            Route::Shards(shards) => shards.topology.owner(slot(key)),
        }
    }

    /// Returns the number of known masters; 0 unless the deployment is a Cluster.
    pub fn known_masters(&self) -> usize {
        match &self.route {
            Route::Master(_) => 0,
            Route::Shards(shards) => shards.topology.masters().len(),
        }
    }

    /// Returns the deployment.
    pub fn deployment(&self) -> &Deployment {
        &self.deployment
    }

    /// Runs a command.
    ///
    /// On a Cluster, the command goes to the owner of its key's slot. The key is the first
    /// argument; for EVAL, EVALSHA and FCALL it is the first of their keys. Commands without a key
    /// (PING, TIME, INFO, EVAL without keys and the like) go to any master. SCRIPT, FUNCTION,
    /// CONFIG, FLUSHALL and FLUSHDB go to all masters; the result is the first error reply, or else
    /// the first reply.
    pub async fn run(&self, cmd: &Cmd) -> RedisResult<CommandReply> {
        let deadline = Instant::now() + RESPONSE_TIMEOUT;
        match &self.route {
            Route::Master(connection) => {
                send_until_accepted(connection, self.lane, cmd, deadline).await
            }
            Route::Shards(shards) => match Destination::of(cmd) {
                Destination::Slot(slot) => shards.run(self.lane, cmd, slot, deadline).await,
                Destination::Any => {
                    let owner = shards.masters(deadline).await?.remove(0);
                    send_until_accepted(&shards.connection(&owner), self.lane, cmd, deadline).await
                }
                Destination::All => {
                    let mut values = self
                        .on_masters(cmd)
                        .await?
                        .into_iter()
                        .map(|(_, value)| value);
                    let first = values.next().unwrap_or(Value::Nil);
                    let value = if matches!(first, Value::ServerError(_)) {
                        first
                    } else {
                        values
                            .find(|v| matches!(v, Value::ServerError(_)))
                            .unwrap_or(first)
                    };
                    Ok(CommandReply {
                        value,
                        is_from_importing_node: false,
                        replica_ack: None,
                    })
                }
            },
        }
    }

    /// Runs a command on every master. Returns each master's name and reply.
    pub async fn on_masters(&self, cmd: &Cmd) -> RedisResult<Vec<(String, Value)>> {
        self.on_each_master(cmd, RESPONSE_TIMEOUT)
            .await?
            .into_iter()
            .map(|(name, reply)| Ok((name, reply?)))
            .collect()
    }

    /// Runs a command on every master at once. Returns each master's name and its reply, or the
    /// error if it does not reply within `limit`.
    pub async fn on_each_master(
        &self,
        cmd: &Cmd,
        limit: Duration,
    ) -> RedisResult<Vec<(String, RedisResult<Value>)>> {
        let deadline = Instant::now() + limit;
        let ask = async |name: String, connection: ManagedConnection| {
            let reply = send_until_accepted(&connection, self.lane, cmd, deadline).await;
            (name, reply.map(|reply| reply.value))
        };
        match &self.route {
            Route::Master(connection) => Ok(vec![
                ask(self.deployment.to_string(), connection.clone()).await,
            ]),
            Route::Shards(shards) => {
                let masters = shards.masters(deadline).await?;
                let asked = masters
                    .iter()
                    .map(|owner| ask(owner.to_string(), shards.connection(owner)));
                Ok(join_all(asked).await)
            }
        }
    }

    /// Returns the sorted names of the masters.
    pub async fn masters(&self) -> RedisResult<Vec<String>> {
        match &self.route {
            Route::Master(_) => Ok(vec![self.deployment.to_string()]),
            Route::Shards(shards) => {
                let masters = shards.masters(Instant::now() + RESPONSE_TIMEOUT).await?;
                let mut names: Vec<_> = masters.iter().map(|owner| owner.to_string()).collect();
                names.sort();
                Ok(names)
            }
        }
    }

    /// Runs a command on the named master, without routing. For SCAN, for example.
    pub async fn on_master(&self, name: &str, cmd: &Cmd) -> RedisResult<Value> {
        let deadline = Instant::now() + RESPONSE_TIMEOUT;
        match &self.route {
            Route::Master(connection) => {
                Ok(send_until_accepted(connection, self.lane, cmd, deadline)
                    .await?
                    .value)
            }
            Route::Shards(shards) => {
                let masters = shards.masters(deadline).await?;
                let gone = || {
                    RedisError::from((
                        ErrorKind::Client,
                        "the master is no longer part of the deployment",
                    ))
                };
                let owner = masters
                    .iter()
                    .find(|owner| owner.to_string() == name)
                    .ok_or_else(gone)?;
                Ok(
                    send_until_accepted(&shards.connection(owner), self.lane, cmd, deadline)
                        .await?
                        .value,
                )
            }
        }
    }

    async fn run_all(
        &self,
        pipeline: &Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisResult<Vec<Value>> {
        let deadline = Instant::now() + RESPONSE_TIMEOUT;
        match &self.route {
            Route::Master(connection) => {
                let mut retries = Retries::until(deadline);
                loop {
                    let acquired = connection.acquire(self.lane, deadline).await?;
                    let generation = acquired.generation;
                    let values = connection
                        .send_all(acquired, pipeline, offset, count, deadline)
                        .await?;
                    // If the server refused all commands, it executed none, and they can be sent
                    // again.
                    match values.first().map(CommandRefusal::read) {
                        Some(Some(_))
                            if values.iter().all(|v| CommandRefusal::read(v).is_some())
                                && !retries.are_exhausted() =>
                        {
                            connection.abandon(generation);
                            retries.pause().await;
                        }
                        _ => return Ok(values),
                    }
                }
            }
            Route::Shards(_) if pipeline.is_transaction() => Err((
                ErrorKind::Client,
                "a transaction cannot be sent to a Cluster: use a script",
            )
                .into()),
            Route::Shards(shards) => {
                // Commands of one slot are sent together, in order; slots in parallel.
                let mut by_slot: BTreeMap<Option<u16>, Vec<(usize, &Cmd)>> = BTreeMap::new();
                for (index, cmd) in pipeline.cmd_iter().enumerate() {
                    let slot = if let Destination::Slot(slot) = Destination::of(cmd) {
                        Some(slot)
                    } else {
                        None
                    };
                    by_slot.entry(slot).or_default().push((index, cmd));
                }
                let groups =
                    by_slot.into_iter().map(|(slot, commands)| async move {
                        match slot {
                            Some(slot) => {
                                shards
                                    .run_together(self.lane, &commands, slot, deadline)
                                    .await
                            }
                            None => {
                                try_join_all(commands.iter().map(async |(index, cmd)| {
                                    Ok((*index, self.run(cmd).await?.value))
                                }))
                                .await
                            }
                        }
                    });
                let mut values: Vec<_> =
                    try_join_all(groups).await?.into_iter().flatten().collect();
                values.sort_unstable_by_key(|(index, _)| *index);
                Ok(values
                    .into_iter()
                    .skip(offset)
                    .take(count)
                    .map(|(_, value)| value)
                    .collect())
            }
        }
    }
}

impl aio::ConnectionLike for Commands {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        async move { Ok(self.run(cmd).await?.value) }.boxed()
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        async move { self.run_all(pipeline, offset, count).await }.boxed()
    }

    fn get_db(&self) -> i64 {
        self.deployment.database()
    }
}

impl fmt::Debug for Commands {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Commands")
            .field("deployment", &self.deployment)
            .finish_non_exhaustive()
    }
}
