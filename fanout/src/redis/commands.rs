//! Commands to a deployment, whatever its kind.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use dashmap::DashMap;
use futures_util::{FutureExt, future::try_join_all};
use redis::{
    Arg, Cmd, ErrorKind, Pipeline, RedisError, RedisFuture, RedisResult, ServerErrorKind, Value,
    aio,
};
use tokio::time::{Instant, sleep};

use super::{
    Address, Deployment, RESPONSE_TIMEOUT, Topology,
    line::{Line, Target},
    replicas::{Replicas, Witness},
    slot,
};
use crate::jittered;

/// A door to the deployment's data: cheap to clone, shared by everybody, never closed by an outage.
///
/// Single and Sentinel: one multiplexed connection to the master. Cluster: one to each master, commands routed by their
/// slot. Commands wait for a connection while there is none, and are sent again where the server has surely not done them
/// (`MOVED`, `ASK`, `TRYAGAIN`, `CLUSTERDOWN`, `LOADING`, `READONLY`, `MASTERDOWN`); every call ends within
/// [`RESPONSE_TIMEOUT`]. After an error of another kind whether the server has done the command is unknown.
///
/// It is also a [`redis::aio::ConnectionLike`], so that `query_async` and `Script::invoke_async` work on it.
#[derive(Clone)]
pub struct Commands {
    deployment: Arc<Deployment>,
    route: Route,
}

#[derive(Clone)]
enum Route {
    Master(Line),
    Shards(Arc<Shards>),
}

struct Shards {
    topology: Topology,
    lines: DashMap<Address, Line>,
    replicas: Option<Replicas>,
}

/// What a server answered; an error of the server's is a [`Value::ServerError`] in it.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The reply.
    pub value: Value,
    /// The slot is moving, and the node that it moves to answered (`ASK`). What a script published there reached nobody:
    /// publish it again, through [`Commands::run`], which goes to the slot's owner.
    pub asked: bool,
    /// Who knows whether replicas have it; none if they are not waited for.
    pub witness: Option<Witness>,
}

/// How long a command waits for one shard before the slot map is doubted.
const PATIENCE: Duration = Duration::from_millis(500);

impl Commands {
    /// Starts connecting and returns at once, whether or not anything can be reached. Needs a tokio runtime.
    pub fn open(deployment: &Deployment) -> Self {
        Self::open_with(deployment, None)
    }

    /// The same, with a [`Witness`] in each answer if replicas are to be waited for.
    pub fn open_with(deployment: &Deployment, replicas: Option<Replicas>) -> Self {
        let deployment = Arc::new(deployment.clone());
        let route = match &*deployment {
            Deployment::Cluster { seeds, credentials } => {
                let topology = Topology::new(seeds.clone(), credentials.clone());
                Route::Shards(Arc::new(Shards {
                    topology,
                    lines: DashMap::new(),
                    replicas,
                }))
            }
            _ => Route::Master(Line::keep(Target::Master(deployment.clone()), replicas)),
        };
        Self { deployment, route }
    }

    /// What these commands go to.
    pub fn deployment(&self) -> &Deployment {
        &self.deployment
    }

    /// Runs a command. On a Cluster it goes to the owner of its key's slot: for EVAL, EVALSHA and FCALL the first of their
    /// keys, otherwise the first argument. Without a key: PING, TIME, INFO, EVAL with no keys and the like go to any master;
    /// SCRIPT, FUNCTION, CONFIG, FLUSHALL, FLUSHDB to all of them, and the first one's answer (or the first error) is returned.
    pub async fn run(&self, cmd: &Cmd) -> RedisResult<Answer> {
        let deadline = Instant::now() + RESPONSE_TIMEOUT;
        match &self.route {
            Route::Master(line) => until_taken(line, cmd, deadline).await,
            Route::Shards(shards) => match Destination::of(cmd) {
                Destination::Slot(slot) => shards.run(&self.deployment, cmd, slot, deadline).await,
                Destination::Any => {
                    let owner = shards.masters(deadline).await?.remove(0);
                    until_taken(&shards.line(&self.deployment, &owner), cmd, deadline).await
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
                    Ok(Answer {
                        value,
                        asked: false,
                        witness: None,
                    })
                }
            },
        }
    }

    /// Runs a command on every master, and returns each one's answer with the master's name.
    pub async fn on_masters(&self, cmd: &Cmd) -> RedisResult<Vec<(String, Value)>> {
        let deadline = Instant::now() + RESPONSE_TIMEOUT;
        match &self.route {
            Route::Master(line) => Ok(vec![(
                self.deployment.to_string(),
                until_taken(line, cmd, deadline).await?.value,
            )]),
            Route::Shards(shards) => {
                let masters = shards.masters(deadline).await?;
                let all = masters.iter().map(|owner| async move {
                    Ok::<_, RedisError>((
                        owner.to_string(),
                        until_taken(&shards.line(&self.deployment, owner), cmd, deadline)
                            .await?
                            .value,
                    ))
                });
                try_join_all(all).await
            }
        }
    }

    /// The names of the masters, in an order that stays while they do.
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

    /// Runs a command on the master of this name, wherever its key belongs: SCAN, say.
    pub async fn on_master(&self, name: &str, cmd: &Cmd) -> RedisResult<Value> {
        let deadline = Instant::now() + RESPONSE_TIMEOUT;
        match &self.route {
            Route::Master(line) => Ok(until_taken(line, cmd, deadline).await?.value),
            Route::Shards(shards) => {
                let masters = shards.masters(deadline).await?;
                let gone =
                    || RedisError::from((ErrorKind::Client, "there is no such master any more"));
                let owner = masters
                    .iter()
                    .find(|owner| owner.to_string() == name)
                    .ok_or_else(gone)?;
                Ok(
                    until_taken(&shards.line(&self.deployment, owner), cmd, deadline)
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
            Route::Master(line) => {
                let mut pauses = Pauses::until(deadline);
                loop {
                    let taken = line.take(deadline).await?;
                    let generation = taken.generation();
                    let values = line
                        .send_all(taken, pipeline, offset, count, deadline)
                        .await?;
                    // Where the first was refused for the server's state, all were: nothing was done.
                    match values.first().map(Refusal::read) {
                        Some(Some(_))
                            if values.iter().all(|v| Refusal::read(v).is_some())
                                && !pauses.are_over() =>
                        {
                            line.abandon(generation);
                            pauses.pause().await;
                        }
                        _ => return Ok(values),
                    }
                }
            }
            Route::Shards(_) if pipeline.is_transaction() => Err((
                ErrorKind::Client,
                "a transaction is not sent to a Cluster: use a script",
            )
                .into()),
            Route::Shards(shards) => {
                // The commands of one slot travel in one piece, in their order; the slots beside each other.
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
                                    .run_together(&self.deployment, &commands, slot, deadline)
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

/// The first pause before a command is sent again that a server refused, and the longest.
const SOON: Duration = Duration::from_millis(25);
const SELDOM: Duration = Duration::from_millis(400);

/// The pauses between the attempts of one call: each twice the one before, and no two callers in step.
struct Pauses {
    next: Duration,
    deadline: Instant,
}

impl Pauses {
    fn until(deadline: Instant) -> Self {
        Self {
            next: SOON,
            deadline,
        }
    }

    /// Whether there is no time for another attempt.
    fn are_over(&self) -> bool {
        Instant::now() + self.next >= self.deadline
    }

    async fn pause(&mut self) {
        sleep(jittered(self.next)).await;
        self.next = (self.next * 2).min(SELDOM);
    }
}

/// Sends to one server until it takes the command or the deadline is over.
async fn until_taken(line: &Line, cmd: &Cmd, deadline: Instant) -> RedisResult<Answer> {
    let mut pauses = Pauses::until(deadline);
    loop {
        let taken = line.take(deadline).await?;
        let (generation, witness) = (taken.generation(), taken.witness());
        let value = line.send(taken, cmd, deadline).await?;
        match Refusal::read(&value) {
            Some(refusal) if !pauses.are_over() => {
                if matches!(refusal, Refusal::Replica) {
                    line.abandon(generation);
                }
                pauses.pause().await;
            }
            _ => {
                return Ok(Answer {
                    value,
                    asked: false,
                    witness,
                });
            }
        }
    }
}

impl Shards {
    fn line(&self, deployment: &Deployment, owner: &Address) -> Line {
        if let Some(line) = self.lines.get(owner) {
            return line.clone();
        }
        let target = || Target::Node(owner.clone(), deployment.credentials().clone());
        self.lines
            .entry(owner.clone())
            .or_insert_with(|| Line::keep(target(), self.replicas))
            .clone()
    }

    /// Reads the map again, and lets go of servers that have no slots any more.
    async fn refresh(&self) -> RedisResult<()> {
        self.topology.refresh().await?;
        let masters = self.topology.masters();
        self.lines
            .retain(|address, _| masters.iter().any(|master| **master == *address));
        Ok(())
    }

    async fn masters(&self, deadline: Instant) -> RedisResult<Vec<Arc<Address>>> {
        let mut pauses = Pauses::until(deadline);
        loop {
            let masters = self.topology.masters();
            if !masters.is_empty() {
                return Ok(masters);
            }
            self.refresh_or_pause(&mut pauses).await?;
        }
    }

    async fn refresh_or_pause(&self, pauses: &mut Pauses) -> RedisResult<()> {
        if let Err(error) = self.refresh().await {
            if pauses.are_over() {
                return Err(error);
            }
            pauses.pause().await;
        }
        Ok(())
    }

    /// Commands of one slot. Those that the server refuses follow one by one.
    async fn run_together(
        &self,
        deployment: &Deployment,
        commands: &[(usize, &Cmd)],
        slot: u16,
        deadline: Instant,
    ) -> RedisResult<Vec<(usize, Value)>> {
        let first_try = match self.topology.owner(slot) {
            Some(owner) if commands.len() > 1 => {
                let line = self.line(deployment, &owner);
                match line.take(deadline.min(Instant::now() + PATIENCE)).await {
                    Ok(taken) => {
                        let mut pipeline = Pipeline::with_capacity(commands.len());
                        for (_, cmd) in commands {
                            pipeline.add_command((*cmd).clone());
                        }
                        Some(
                            line.send_all(taken, &pipeline, 0, commands.len(), deadline)
                                .await?,
                        )
                    }
                    Err(_) => None,
                }
            }
            _ => None,
        };
        let mut first_try = first_try.map(Vec::into_iter);
        let mut values = Vec::with_capacity(commands.len());
        for (index, cmd) in commands {
            let value = match first_try.as_mut().and_then(Iterator::next) {
                Some(value) if Refusal::read(&value).is_none() => value,
                _ => self.run(deployment, cmd, slot, deadline).await?.value,
            };
            values.push((*index, value));
        }
        Ok(values)
    }

    async fn run(
        &self,
        deployment: &Deployment,
        cmd: &Cmd,
        slot: u16,
        deadline: Instant,
    ) -> RedisResult<Answer> {
        let mut pauses = Pauses::until(deadline);
        loop {
            let late = pauses.are_over();
            let Some(owner) = self.topology.owner(slot) else {
                if late {
                    return Err((ErrorKind::Client, "no master is known for the slot").into());
                }
                self.refresh_or_pause(&mut pauses).await?;
                if self.topology.owner(slot).is_none() {
                    pauses.pause().await;
                }
                continue;
            };
            let line = self.line(deployment, &owner);
            let taken = match line.take(deadline.min(Instant::now() + PATIENCE)).await {
                Ok(taken) => taken,
                Err(error) if late => return Err(error),
                Err(_) => {
                    self.refresh_or_pause(&mut pauses).await?;
                    continue;
                }
            };
            let witness = taken.witness();
            let value = line.send(taken, cmd, deadline).await?;
            let value = match Refusal::read(&value) {
                None => {
                    return Ok(Answer {
                        value,
                        asked: false,
                        witness,
                    });
                }
                Some(_) if late => {
                    return Ok(Answer {
                        value,
                        asked: false,
                        witness,
                    });
                }
                Some(Refusal::Moved(owner)) => {
                    self.topology.learn(slot, owner);
                    continue;
                }
                Some(Refusal::Ask(importer)) => {
                    let mut pair = Pipeline::with_capacity(2);
                    pair.cmd("ASKING").add_command(cmd.clone());
                    let line = self.line(deployment, &importer);
                    let taken = line.take(deadline).await?;
                    let witness = taken.witness();
                    let answers = line.send_all(taken, &pair, 0, 2, deadline).await?;
                    let value = answers.into_iter().nth(1).unwrap_or(Value::Nil);
                    if Refusal::read(&value).is_none() {
                        return Ok(Answer {
                            value,
                            asked: true,
                            witness,
                        });
                    }
                    value
                }
                Some(Refusal::Wait) => value,
                Some(Refusal::Replica) => {
                    self.refresh_or_pause(&mut pauses).await?;
                    value
                }
            };
            tracing::trace!(?value, slot, "sent again");
            pauses.pause().await;
        }
    }
}

/// Why a server has surely not done a command.
enum Refusal {
    /// Another has the slot.
    Moved(Address),
    /// The slot is moving, and its keys have gone ahead.
    Ask(Address),
    /// Not now.
    Wait,
    /// Not here: no master any more.
    Replica,
}

impl Refusal {
    fn read(value: &Value) -> Option<Self> {
        let Value::ServerError(error) = value else {
            return None;
        };
        let node = || {
            error
                .details()
                .and_then(|d| d.split_ascii_whitespace().nth(1))
                .and_then(Address::from_server)
        };
        match error.kind()? {
            ServerErrorKind::Moved => node().map(Self::Moved),
            ServerErrorKind::Ask => node().map(Self::Ask),
            ServerErrorKind::TryAgain
            | ServerErrorKind::BusyLoading
            | ServerErrorKind::MasterDown => Some(Self::Wait),
            ServerErrorKind::ReadOnly | ServerErrorKind::ClusterDown => Some(Self::Replica),
            _ => None,
        }
    }
}

/// Where on a Cluster a command goes.
#[derive(Debug, PartialEq, Eq)]
enum Destination {
    Slot(u16),
    Any,
    All,
}

impl Destination {
    fn of(cmd: &Cmd) -> Self {
        let argument = |index: usize| match cmd.args_iter().nth(index) {
            Some(Arg::Simple(bytes)) => std::str::from_utf8(bytes).ok(),
            _ => None,
        };
        let name = argument(0).unwrap_or_default().to_ascii_uppercase();
        let key = match name.as_str() {
            "SCRIPT" | "FUNCTION" | "CONFIG" | "FLUSHALL" | "FLUSHDB" => return Self::All,
            "PING" | "ECHO" | "TIME" | "INFO" | "COMMAND" | "CLUSTER" | "CLIENT" | "WAIT"
            | "WAITAOF" => return Self::Any,
            "EVAL" | "EVALSHA" | "EVAL_RO" | "EVALSHA_RO" | "FCALL" | "FCALL_RO"
                if argument(2) == Some("0") =>
            {
                return Self::Any;
            }
            "EVAL" | "EVALSHA" | "EVAL_RO" | "EVALSHA_RO" | "FCALL" | "FCALL_RO" => argument(3),
            _ => argument(1),
        };
        key.map_or(Self::Any, |key| Self::Slot(slot(key)))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_goes_where_its_key_is() {
        let of = |words: &[&str]| {
            let mut cmd = Cmd::new();
            cmd.arg(words);
            Destination::of(&cmd)
        };
        assert_eq!(of(&["GET", "chaos:{t}:a"]), Destination::Slot(slot("t")));
        assert_eq!(
            of(&["SPUBLISH", "chaos:{t}", "bytes"]),
            Destination::Slot(slot("t"))
        );
        assert_eq!(
            of(&["evalsha", "abc", "2", "chaos:{t}:a", "chaos:{t}:b"]),
            Destination::Slot(slot("t"))
        );
        assert_eq!(of(&["EVAL", "return 1", "0"]), Destination::Any);
        assert_eq!(of(&["PING"]), Destination::Any);
        assert_eq!(of(&["SCRIPT", "LOAD", "return 1"]), Destination::All);
    }
}
