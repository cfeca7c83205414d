//! One command connection that mends itself.
//!
//! redis' own `ConnectionManager` gives up after some retries and stays deaf until somebody speaks, and never notices a
//! server that hangs. Here a task owns the connection: it opens it, watches it with a PING every second, and opens it again
//! without end. Callers take the connection of the moment, and wait for one while there is none.

use std::{io, sync::Arc, time::Duration};

use futures_util::FutureExt;
use redis::{Cmd, Pipeline, RedisError, RedisResult, Value, aio::MultiplexedConnection};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, MissedTickBehavior, interval, sleep, timeout, timeout_at},
};
use tokio_util::task::AbortOnDropHandle;

use super::{
    Address, Credentials, Deployment, RECONNECT_DELAY, WATCH_PERIOD, WATCH_TIMEOUT,
    dial::{current_master, open, open_master},
    replicas::{Replicas, Witness},
};

/// A handle on the connection; clones share it. The connection ends with the last handle.
#[derive(Clone)]
pub(crate) struct Line(Arc<Shared>);

struct Shared {
    state: watch::Receiver<State>,
    _keeper: AbortOnDropHandle<()>,
}

#[derive(Clone)]
enum State {
    Down(Arc<str>),
    /// A fault that is told here concerns this connection, and none after it.
    Up {
        generation: u64,
        connection: MultiplexedConnection,
        witness: Option<Witness>,
        faults: Arc<Notify>,
    },
}

/// Where a line goes.
#[derive(Debug, Clone)]
pub(crate) enum Target {
    /// A shard of a Cluster.
    Node(Address, Credentials),
    /// The master of a deployment that has one.
    Master(Arc<Deployment>),
}

/// A connection taken for one request.
pub(crate) struct Taken {
    generation: u64,
    connection: MultiplexedConnection,
    witness: Option<Witness>,
}

impl Line {
    /// Starts keeping a connection, and one beside it if replicas are to be waited for. Needs a tokio runtime; waits for nothing.
    pub(crate) fn keep(target: Target, replicas: Option<Replicas>) -> Self {
        let (sender, state) = watch::channel(State::Down("not connected yet".into()));
        let keeper = tokio::spawn(keep(target, replicas, sender));
        Self(Arc::new(Shared {
            state,
            _keeper: AbortOnDropHandle::new(keeper),
        }))
    }

    /// The connection of the moment, waiting for one until `deadline`. Whoever gets an error here has sent nothing.
    pub(crate) async fn take(&self, deadline: Instant) -> RedisResult<Taken> {
        let mut state = self.0.state.clone();
        let up = timeout_at(
            deadline,
            state.wait_for(|state| matches!(state, State::Up { .. })),
        )
        .await;
        match up {
            Ok(Ok(up)) => match &*up {
                State::Up {
                    generation,
                    connection,
                    witness,
                    ..
                } => Ok(Taken {
                    generation: *generation,
                    connection: connection.clone(),
                    witness: witness.clone(),
                }),
                State::Down(why) => Err(unavailable(why)),
            },
            _ => match &*self.0.state.borrow() {
                State::Down(why) => Err(unavailable(why)),
                State::Up { .. } => Err(unavailable("the connection came too late")),
            },
        }
    }

    /// Sends a command. An error after a time-out or a break leaves open whether the server has done it.
    pub(crate) async fn send(
        &self,
        mut taken: Taken,
        cmd: &Cmd,
        deadline: Instant,
    ) -> RedisResult<Value> {
        let sent = timeout_at(deadline, taken.connection.send_packed_command(cmd)).await;
        self.judge(taken.generation, sent.unwrap_or_else(|_| Err(unanswered())))
    }

    /// Sends the commands of a pipeline in one piece; see [`send`](Self::send).
    pub(crate) async fn send_all(
        &self,
        mut taken: Taken,
        pipeline: &Pipeline,
        offset: usize,
        count: usize,
        deadline: Instant,
    ) -> RedisResult<Vec<Value>> {
        let sent = timeout_at(
            deadline,
            taken
                .connection
                .send_packed_commands(pipeline, offset, count),
        )
        .await;
        self.judge(taken.generation, sent.unwrap_or_else(|_| Err(unanswered())))
    }

    /// Tells the keeper that the server answered on a connection that is no use any more (it became a replica, say).
    pub(crate) fn abandon(&self, generation: u64) {
        if let State::Up {
            generation: current,
            faults,
            ..
        } = &*self.0.state.borrow()
            && *current == generation
        {
            faults.notify_one();
        }
    }

    fn judge<T>(&self, generation: u64, result: RedisResult<T>) -> RedisResult<T> {
        // A time-out alone breaks nothing: the PING decides whether the server hangs.
        if let Err(error) = &result
            && error.is_unrecoverable_error()
            && !error.is_timeout()
        {
            self.abandon(generation);
        }
        result
    }
}

impl Taken {
    /// Which of the line's connections this is.
    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// Who knows whether replicas have what is written on it.
    pub(crate) fn witness(&self) -> Option<Witness> {
        self.witness.clone()
    }
}

async fn keep(target: Target, replicas: Option<Replicas>, state: watch::Sender<State>) {
    let mut delay = Duration::from_millis(50);
    let mut known = String::new();
    for generation in 1.. {
        let why = match both(&target, replicas).await {
            Ok((address, connection, waiting)) => {
                tracing::info!(%address, "connected to Redis");
                known.clear();
                delay = Duration::from_millis(50);
                let (witness, work) = match waiting
                    .map(|(connection, replicas)| Witness::begin(connection, replicas))
                {
                    Some((witness, work)) => (Some(witness), work.boxed()),
                    None => (None, std::future::pending().boxed()),
                };
                let faults = Arc::new(Notify::new());
                let up = State::Up {
                    generation,
                    connection: connection.clone(),
                    witness,
                    faults: faults.clone(),
                };
                state.send_replace(up);
                let why = tokio::select! {
                    why = watch(&target, &address, connection, &faults) => why,
                    () = work => "the connection on which replicas are waited for broke".to_owned(),
                };
                tracing::warn!(%address, why, "the connection to Redis is lost");
                why
            }
            Err(error) => {
                // Every attempt fails, each new reason is logged.
                let why = error.to_string();
                if why != known {
                    tracing::warn!(why, "Redis cannot be reached");
                    known.clone_from(&why);
                }
                why
            }
        };
        state.send_replace(State::Down(why.into()));
        sleep(crate::jittered(delay)).await;
        delay = (delay * 2).min(RECONNECT_DELAY);
    }
}

/// Opens the connection, and the one on which replicas are waited for.
async fn both(
    target: &Target,
    replicas: Option<Replicas>,
) -> RedisResult<(
    Address,
    MultiplexedConnection,
    Option<(MultiplexedConnection, Replicas)>,
)> {
    let (address, connection) = match target {
        Target::Node(address, credentials) => {
            (address.clone(), open(address, credentials, 0).await?)
        }
        Target::Master(deployment) => open_master(deployment).await?,
    };
    let Some(replicas) = replicas else {
        return Ok((address, connection, None));
    };
    let beside = match target {
        Target::Node(_, credentials) => open(&address, credentials, 0).await?,
        Target::Master(deployment) => {
            open(&address, deployment.credentials(), deployment.database()).await?
        }
    };
    Ok((address, connection, Some((beside, replicas))))
}

/// Returns when the connection has to be given up, with the reason.
async fn watch(
    target: &Target,
    address: &Address,
    mut connection: MultiplexedConnection,
    faults: &Notify,
) -> String {
    let mut tick = interval(WATCH_PERIOD);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = faults.notified() => return "a command met a broken connection or a replica".to_owned(),
            _ = tick.tick() => {}
        }
        let ping = redis::cmd("PING");
        tokio::select! {
            () = faults.notified() => return "a command met a broken connection or a replica".to_owned(),
            pong = timeout(WATCH_TIMEOUT, connection.send_packed_command(&ping)) => match pong {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return error.to_string(),
                Err(_) => return "the server does not answer".to_owned(),
            }
        }
        // A master that was cut off from its Sentinels does not know that it is none any more.
        if let Target::Master(deployment) = target
            && matches!(**deployment, Deployment::Sentinel { .. })
            && let Ok(master) = current_master(deployment).await
            && master != *address
        {
            return format!("the Sentinels name {master} as the master now");
        }
    }
}

fn unavailable(why: &str) -> RedisError {
    io::Error::new(io::ErrorKind::NotConnected, why).into()
}

fn unanswered() -> RedisError {
    io::Error::new(io::ErrorKind::TimedOut, "Redis did not answer in time").into()
}
