//! A command connection that is re-established after every fault.
//!
//! `ConnectionManager` of the redis crate gives up after some attempts, reconnects only when a
//! command is sent, and does not notice a server that hangs.
//!
//! A second connection to the same server carries large reads: replies arrive in the order of the
//! commands, so a command that follows a large read waits for all of its reply.

use std::{io, sync::Arc};

use futures_util::{
    FutureExt,
    future::{BoxFuture, OptionFuture},
};
use redis::{Cmd, Pipeline, RedisError, RedisResult, Value, aio::MultiplexedConnection};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, timeout_at},
};
use tokio_util::task::AbortOnDropHandle;

use crate::{
    Address, ConnectionError, ConnectionHeartbeat, Deployment, Dialer, Target,
    dial::{open, open_master},
    replicas::{ReplicaAck, Replicas},
    supervise,
};

/// A handle to the connections to one server. Clones share the connections, which close when the
/// last clone is dropped.
#[derive(Clone)]
pub(crate) struct ManagedConnection(Arc<Shared>);

/// Which connection to a server a command uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lane {
    /// The connection for all commands but large reads.
    Main,
    /// The connection for reads whose replies may be large.
    LargeReads,
}

struct Shared {
    state: watch::Receiver<State>,
    _supervisor: AbortOnDropHandle<()>,
}

#[derive(Clone)]
enum State {
    Down(Arc<str>),
    Up(AcquiredConnection, Arc<Notify>),
}

/// A connection for one request.
#[derive(Clone)]
pub(crate) struct AcquiredConnection {
    /// Number of this connection. Increases with each reconnect of the [`ManagedConnection`].
    pub(crate) generation: u64,
    /// Waits for the server's replicas; `None` if that is not configured.
    pub(crate) replica_ack: Option<ReplicaAck>,
    connection: MultiplexedConnection,
    large_reads: MultiplexedConnection,
}

impl AcquiredConnection {
    fn on(&self, lane: Lane) -> Self {
        match lane {
            Lane::Main => self.clone(),
            Lane::LargeReads => Self {
                connection: self.large_reads.clone(),
                ..self.clone()
            },
        }
    }
}

impl ManagedConnection {
    /// Starts connecting and returns at once. With `replicas`, opens another connection to the same
    /// server, which waits for replicas. Needs a tokio runtime.
    pub(crate) fn open(
        deployment: Arc<Deployment>,
        target: Target,
        replicas: Option<Replicas>,
    ) -> Self {
        let (state, receiver) = watch::channel(State::Down("not connected yet".into()));
        let supervisor = tokio::spawn(supervise(
            deployment,
            target,
            CommandConnector {
                replicas,
                state,
                generation: 0,
            },
        ));
        Self(Arc::new(Shared {
            state: receiver,
            _supervisor: AbortOnDropHandle::new(supervisor),
        }))
    }

    /// Returns the current connection, or waits for one until `deadline`.
    pub(crate) async fn acquire(
        &self,
        lane: Lane,
        deadline: Instant,
    ) -> RedisResult<AcquiredConnection> {
        let mut state = self.0.state.clone();
        let up = timeout_at(
            deadline,
            state.wait_for(|state| matches!(state, State::Up(..))),
        )
        .await;
        match up {
            Ok(Ok(up)) => match &*up {
                State::Up(acquired, _) => Ok(acquired.on(lane)),
                State::Down(reason) => Err(unavailable(reason)),
            },
            _ => match &*self.0.state.borrow() {
                State::Down(reason) => Err(unavailable(reason)),
                State::Up(..) => Err(unavailable("the connection came too late")),
            },
        }
    }

    /// Sends a command. After a timeout or a broken connection it is unknown whether the server
    /// executed it.
    pub(crate) async fn send(
        &self,
        mut acquired: AcquiredConnection,
        cmd: &Cmd,
        deadline: Instant,
    ) -> RedisResult<Value> {
        let sent = timeout_at(deadline, acquired.connection.send_packed_command(cmd)).await;
        self.abandon_if_broken(
            acquired.generation,
            sent.unwrap_or_else(|_| Err(unanswered())),
        )
    }

    /// Sends the commands of a pipeline together; see [`send`](Self::send).
    pub(crate) async fn send_all(
        &self,
        mut acquired: AcquiredConnection,
        pipeline: &Pipeline,
        offset: usize,
        count: usize,
        deadline: Instant,
    ) -> RedisResult<Vec<Value>> {
        let sent = timeout_at(
            deadline,
            acquired
                .connection
                .send_packed_commands(pipeline, offset, count),
        )
        .await;
        self.abandon_if_broken(
            acquired.generation,
            sent.unwrap_or_else(|_| Err(unanswered())),
        )
    }

    /// Closes the connection of this generation if it is still the current one, for example because
    /// its server became a replica.
    pub(crate) fn abandon(&self, generation: u64) {
        if let State::Up(current, abandoned) = &*self.0.state.borrow()
            && current.generation == generation
        {
            abandoned.notify_one();
        }
    }

    fn abandon_if_broken<T>(&self, generation: u64, result: RedisResult<T>) -> RedisResult<T> {
        // A timeout alone does not break the connection: the heartbeat decides whether the server
        // hangs.
        if let Err(error) = &result
            && error.is_unrecoverable_error()
            && !error.is_timeout()
        {
            self.abandon(generation);
        }
        result
    }
}

/// The connections to one server.
struct Opened {
    commands: MultiplexedConnection,
    large_reads: MultiplexedConnection,
    /// The connection that waits for replicas, and which replicas it waits for.
    waiting: Option<(MultiplexedConnection, Replicas)>,
}

struct CommandConnector {
    replicas: Option<Replicas>,
    state: watch::Sender<State>,
    generation: u64,
}

impl Dialer for CommandConnector {
    type Connection = Opened;

    const PURPOSE: &'static str = "commands";

    async fn open(
        &mut self,
        deployment: &Deployment,
        address: &Address,
    ) -> Result<Self::Connection, ConnectionError> {
        let commands = open_master(deployment, address).await?;
        let open_sibling = || open(address, deployment.credentials(), deployment.database());
        let large_reads = open_sibling().await?;
        let waiting = match self.replicas {
            Some(replicas) => Some((open_sibling().await?, replicas)),
            None => None,
        };
        Ok(Opened {
            commands,
            large_reads,
            waiting,
        })
    }

    async fn serve(
        &mut self,
        Opened {
            commands,
            large_reads,
            waiting,
        }: Opened,
    ) -> ConnectionError {
        let (replica_ack, replica_wait) =
            match waiting.map(|(connection, replicas)| ReplicaAck::new(connection, replicas)) {
                Some((replica_ack, work)) => (Some(replica_ack), Some(work)),
                None => (None, None),
            };
        let abandoned = Arc::new(Notify::new());
        self.generation += 1;
        let acquired = AcquiredConnection {
            generation: self.generation,
            replica_ack,
            connection: commands.clone(),
            large_reads: large_reads.clone(),
        };
        self.state
            .send_replace(State::Up(acquired, Arc::clone(&abandoned)));
        tokio::select! {
            error = keep_alive(commands) => error,
            error = keep_alive(large_reads) => error,
            () = abandoned.notified() => ConnectionError::Abandoned,
            Some(()) = OptionFuture::from(replica_wait) => ConnectionError::ReplicaWait,
        }
    }

    fn disconnected(&mut self, reason: String) {
        self.state.send_replace(State::Down(reason.into()));
    }
}

/// Sends heartbeats until the connection fails.
async fn keep_alive(connection: MultiplexedConnection) -> ConnectionError {
    let mut heartbeat = ConnectionHeartbeat::new();
    let mut pong: OptionFuture<BoxFuture<'static, RedisResult<Value>>> = None.into();
    loop {
        tokio::select! {
            due = heartbeat.tick() => match due {
                Ok(true) => {
                    let mut connection = connection.clone();
                    pong = Some(async move { connection.send_packed_command(&redis::cmd("PING")).await }.boxed()).into();
                }
                Ok(false) => {}
                Err(error) => return error,
            },
            Some(answer) = &mut pong => {
                if let Err(error) = answer {
                    return error.into();
                }
                heartbeat.answered();
                pong = None.into();
            }
        }
    }
}

fn unavailable(reason: &str) -> RedisError {
    io::Error::new(io::ErrorKind::NotConnected, reason).into()
}

fn unanswered() -> RedisError {
    io::Error::new(io::ErrorKind::TimedOut, "Redis did not answer in time").into()
}
