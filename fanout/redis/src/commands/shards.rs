//! The connections to the masters of a Cluster.

use std::{sync::Arc, time::Duration};

use dashmap::DashMap;
use redis::{Cmd, ErrorKind, Pipeline, RedisResult, Value};
use tokio::time::Instant;

use super::{answer::CommandReply, refusal::CommandRefusal, retry::Retries};
use crate::{
    Address, Deployment, Target, Topology,
    managed::{Lane, ManagedConnection},
    replicas::Replicas,
};

/// Maximum time that a command waits for one shard before the slot map is refreshed.
pub(super) const SHARD_TIMEOUT: Duration = Duration::from_millis(500);

pub(super) struct Shards {
    pub(super) deployment: Arc<Deployment>,
    pub(super) topology: Topology,
    pub(super) connections: DashMap<Address, ManagedConnection>,
    pub(super) replicas: Option<Replicas>,
}

impl Shards {
    pub(super) fn connection(&self, owner: &Address) -> ManagedConnection {
        if let Some(connection) = self.connections.get(owner) {
            return connection.clone();
        }
        let open = || {
            ManagedConnection::open(
                self.deployment.clone(),
                Target::Node(Arc::new(owner.clone())),
                self.replicas,
            )
        };
        self.connections
            .entry(owner.clone())
            .or_insert_with(open)
            .clone()
    }

    /// Refreshes the slot map and drops connections to servers without slots.
    pub(super) async fn refresh(&self) -> RedisResult<()> {
        self.topology.refresh().await?;
        let masters = self.topology.masters();
        self.connections
            .retain(|address, _| masters.iter().any(|master| **master == *address));
        Ok(())
    }

    pub(super) async fn masters(&self, deadline: Instant) -> RedisResult<Vec<Arc<Address>>> {
        let mut retries = Retries::until(deadline);
        loop {
            let masters = self.topology.masters();
            if !masters.is_empty() {
                return Ok(masters);
            }
            self.refresh_or_pause(&mut retries).await?;
        }
    }

    pub(super) async fn refresh_or_pause(&self, retries: &mut Retries) -> RedisResult<()> {
        if let Err(error) = self.refresh().await {
            if retries.are_exhausted() {
                return Err(error);
            }
            retries.pause().await;
        }
        Ok(())
    }

    /// Runs commands of one slot as a pipeline. Sends refused commands again, one by one.
    pub(super) async fn run_together(
        &self,
        lane: Lane,
        commands: &[(usize, &Cmd)],
        slot: u16,
        deadline: Instant,
    ) -> RedisResult<Vec<(usize, Value)>> {
        let together = match self.topology.owner(slot) {
            Some(owner) if commands.len() > 1 => {
                let connection = self.connection(&owner);
                match connection
                    .acquire(lane, deadline.min(Instant::now() + SHARD_TIMEOUT))
                    .await
                {
                    Ok(acquired) => {
                        let mut pipeline = Pipeline::with_capacity(commands.len());
                        for (_, cmd) in commands {
                            pipeline.add_command((*cmd).clone());
                        }
                        Some(
                            connection
                                .send_all(acquired, &pipeline, 0, commands.len(), deadline)
                                .await?,
                        )
                    }
                    Err(_) => None,
                }
            }
            _ => None,
        };
        let mut together = together.map(Vec::into_iter);
        let mut values = Vec::with_capacity(commands.len());
        for (index, cmd) in commands {
            let value = match together.as_mut().and_then(Iterator::next) {
                Some(value) if CommandRefusal::read(&value).is_none() => value,
                _ => self.run(lane, cmd, slot, deadline).await?.value,
            };
            values.push((*index, value));
        }
        Ok(values)
    }

    pub(super) async fn run(
        &self,
        lane: Lane,
        cmd: &Cmd,
        slot: u16,
        deadline: Instant,
    ) -> RedisResult<CommandReply> {
        let mut retries = Retries::until(deadline);
        loop {
            let late = retries.are_exhausted();
            let Some(owner) = self.topology.owner(slot) else {
                if late {
                    return Err((ErrorKind::Client, "no master is known for the slot").into());
                }
                self.refresh_or_pause(&mut retries).await?;
                if self.topology.owner(slot).is_none() {
                    retries.pause().await;
                }
                continue;
            };
            let connection = self.connection(&owner);
            let acquired = match connection
                .acquire(lane, deadline.min(Instant::now() + SHARD_TIMEOUT))
                .await
            {
                Ok(acquired) => acquired,
                Err(error) if late => return Err(error),
                Err(_) => {
                    self.refresh_or_pause(&mut retries).await?;
                    continue;
                }
            };
            let replica_ack = acquired.replica_ack.clone();
            let value = connection.send(acquired, cmd, deadline).await?;
            let value = match CommandRefusal::read(&value) {
                None => {
                    return Ok(CommandReply {
                        value,
                        is_from_importing_node: false,
                        replica_ack,
                    });
                }
                Some(_) if late => {
                    return Ok(CommandReply {
                        value,
                        is_from_importing_node: false,
                        replica_ack,
                    });
                }
                Some(CommandRefusal::Moved(owner)) => {
                    self.topology.learn(slot, owner);
                    continue;
                }
                Some(CommandRefusal::Ask(importer)) => {
                    let mut pair = Pipeline::with_capacity(2);
                    pair.cmd("ASKING").add_command(cmd.clone());
                    let connection = self.connection(&importer);
                    let acquired = connection.acquire(lane, deadline).await?;
                    let replica_ack = acquired.replica_ack.clone();
                    let answers = connection.send_all(acquired, &pair, 0, 2, deadline).await?;
                    let value = answers.into_iter().nth(1).unwrap_or(Value::Nil);
                    if CommandRefusal::read(&value).is_none() {
                        return Ok(CommandReply {
                            value,
                            is_from_importing_node: true,
                            replica_ack,
                        });
                    }
                    value
                }
                Some(CommandRefusal::Wait) => value,
                Some(CommandRefusal::NotMaster) => {
                    self.refresh_or_pause(&mut retries).await?;
                    value
                }
            };
            tracing::trace!(?value, slot, "server refused a command, sending it again");
            retries.pause().await;
        }
    }
}
