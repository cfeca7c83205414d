//! `idle-users`: the latencies of a fixed load beside more and more users who are merely online.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use protocol::{UserId, operation::session::Watch};
use tokio::time::sleep;

use super::{ConnectedClients, PlannedClient, RunOutcome, ScenarioRun, channel, chat, user};
use crate::{
    cli::IdleUsersArgs,
    event::ReceivedEvent,
    member::{DeliveryObserver, Member, MemberConfig},
    process::{MemoryPerConnection, ProcessMemory},
    redis_info::RedisWork,
    report::{IdleCosts, IdleStep, RunVerdict},
    run_state::RunState,
    tenant::RunTenant,
};

/// Maximum time for nodes and Redis to finish what connecting has caused; a third of the measured
/// time if that is less.
const MAX_SETTLE_TIME: Duration = Duration::from_secs(10);

pub(super) async fn run(run: &ScenarioRun<'_>, args: &IdleUsersArgs) -> Result<RunOutcome> {
    let mut idle: Vec<Member> = Vec::new();
    // Memory of the nodes before the first idle user.
    let mut before = None;
    let mut steps = Vec::new();
    let mut last = None;
    for count in &args.idle {
        if idle.len() < *count {
            let connected = connect(run, idle.len()..*count).await?;
            before.get_or_insert(connected.memory[0]);
            idle.extend(connected.members);
        }
        let memory = || {
            let before = before.filter(|_| !run.common.pids.is_empty());
            let of_nodes = |before| {
                Ok(ProcessMemory::of(&run.common.pids)?.per_connection(before, idle.len()))
            };
            before.map(of_nodes).transpose()
        };
        let costs = measure_idle(run, args, memory).await?;
        let outcome = run_load(run, args).await?;
        steps.push(IdleStep {
            idle_users: idle.len(),
            idle_costs: costs,
            verdict: outcome.report.verdict,
            delivery: outcome.report.latency.delivery,
            acknowledgement: outcome.report.latency.acknowledgement,
            node_cpu_seconds: outcome.report.server.map(|server| server.cpu_seconds),
        });
        last = Some(outcome);
        if *run.interrupted.borrow() {
            break;
        }
    }
    let mut outcome = last.context("--idle names no number")?;
    // The verdict is the worst of all steps.
    for step in &steps {
        match step.verdict {
            RunVerdict::Broken => outcome.report.verdict = RunVerdict::Broken,
            RunVerdict::Unproven if outcome.report.verdict == RunVerdict::Kept => {
                outcome.report.verdict = RunVerdict::Unproven;
            }
            RunVerdict::Unproven | RunVerdict::Kept => {}
        }
    }
    outcome.report.scenario = "idle-users";
    outcome.report.settings = serde_json::to_value(args)?;
    outcome.report.steps = steps;
    Ok(outcome)
}

/// Connects users who belong to no channel.
async fn connect(
    run: &ScenarioRun<'_>,
    indices: std::ops::Range<usize>,
) -> Result<ConnectedClients> {
    let users: Vec<UserId> = indices.clone().map(|index| user('i', index)).collect();
    run.progress
        .phase(format!("creating {} idle users", users.len()));
    run.state.tenant.create_users(&users).await?;
    let observer: Arc<dyn DeliveryObserver> = Arc::new(IdleObserver);
    let clients = indices.zip(users).map(|(index, user)| PlannedClient {
        config: MemberConfig {
            placement: index,
            subscriber: index,
            user,
            channel: channel(0),
            watch: Watch::None,
            is_guest: false,
        },
        observer: observer.clone(),
    });
    run.connect(clients.collect()).await
}

/// Measures nodes and Redis while nobody sends.
async fn measure_idle(
    run: &ScenarioRun<'_>,
    args: &IdleUsersArgs,
    memory_per_user: impl Fn() -> Result<Option<MemoryPerConnection>>,
) -> Result<IdleCosts> {
    run.progress.phase("measuring while nobody sends");
    let memory = memory_per_user()?;
    let measured_time = Duration::from_secs_f64(args.idle_seconds);
    sleep(MAX_SETTLE_TIME.min(measured_time / 3)).await;
    let work = || {
        let urls = run.common.redis_servers.clone();
        async {
            tokio::task::spawn_blocking(move || RedisWork::of(&urls))
                .await
                .context("the thread that asks Redis panicked")?
        }
    };
    let (redis, cpu, started) = (work().await?, run.cpu_seconds()?, Instant::now());
    sleep(measured_time).await;
    let seconds = started.elapsed().as_secs_f64();
    let is_measured = !run.common.redis_servers.is_empty();
    Ok(IdleCosts {
        node_cpu_ms_per_second: (!run.common.pids.is_empty())
            .then_some((run.cpu_seconds()? - cpu) * 1e3 / seconds),
        redis: if is_measured {
            Some(work().await?.per_second(redis, seconds))
        } else {
            None
        },
        memory: memory
            .zip(memory_per_user()?)
            .map(|(start, end)| [start, end]),
    })
}

/// Runs the load in a tenant of its own.
async fn run_load(run: &ScenarioRun<'_>, args: &IdleUsersArgs) -> Result<RunOutcome> {
    let tenant = RunTenant::create(run.common).await?;
    let load = ScenarioRun {
        common: run.common,
        state: Arc::new(RunState::new(tenant, run.common)?),
        progress: run.progress.clone(),
        interrupted: run.interrupted.clone(),
        disk: run.disk.clone(),
    };
    let outcome = chat::run(&load, &args.chat, None).await;
    load.state.ended.send_replace(true);
    load.state.tenant.delete().await?;
    outcome
}

/// Users who are in no channel receive nothing that is verified.
struct IdleObserver;

impl DeliveryObserver for IdleObserver {
    fn subscribed(&self, _subscriber: usize, _seq: u64, _number: u64) {}

    fn received(&self, _subscriber: usize, _event: &ReceivedEvent, _frame_bytes: usize) {}

    fn gap_received(&self, _subscriber: usize, _head: u64) {}

    fn foreign_received(&self, _subscriber: usize, _what: &str) {}
}
