//! The scenarios. Shared here: the tenant, the clients, an interrupt by the user, and the report.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use anyhow::{Context, Result};
use protocol::{ChannelId, UserId};
use serde::Serialize;
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::{
    cli::{CommonArgs, Scenario, VerifyArgs},
    disk::{self, BlockDevice, DiskCosts, WriteCounters},
    latency::{LatencyDistribution, Percentiles},
    member::{DeliveryObserver, Member, MemberConfig, join},
    process::{ProcessMemory, cpu_seconds},
    progress::ProgressLine,
    report::{
        FaultSummary, Latencies, MemoryCourse, NodeCosts, ReportCounts, RunReport, RunVerdict,
    },
    run_state::{RunCounters, RunState},
    tenant::RunTenant,
    testbed::TestBed,
    verify::Tally,
};

mod chat;
mod fanout;
mod idle_users;
mod window;

/// Idle time before the memory of a node is measured, and (half of it) for late duplicates to
/// arrive.
const SETTLE_TIME: Duration = Duration::from_secs(1);

/// Tokens that are minted at the same time.
const CONCURRENT_MINTS: usize = 16;

/// The result of a run.
pub struct RunOutcome {
    /// The report.
    pub report: RunReport,
    /// Delivery latencies.
    pub delivery: LatencyDistribution,
}

/// Runs a scenario: creates the tenant, runs the clients, deletes the tenant.
pub async fn run(scenario: &Scenario) -> Result<RunOutcome> {
    let testbed = match scenario {
        Scenario::Verify(verify) => Some(Arc::new(TestBed::start(verify).await?)),
        _ => None,
    };
    let common = &testbed.as_ref().map_or_else(
        || scenario.common().clone(),
        |testbed| testbed.common(scenario.common()),
    );
    // A wrong process id fails now rather than after the run.
    cpu_seconds(&common.pids)?;
    let progress = ProgressLine::default();
    let disk = NodeDisk::measure(scenario, common, &progress).await?;
    progress.phase("creating a tenant");
    let tenant = RunTenant::create(common).await?;
    let state = Arc::new(RunState::new(tenant, common)?);
    let run = ScenarioRun {
        common,
        state: state.clone(),
        progress: progress.clone(),
        interrupted: interrupted(),
        disk,
    };
    let mut outcome = match scenario {
        Scenario::Chat(chat) | Scenario::Verify(VerifyArgs { chat, .. }) => {
            chat::run(&run, chat, testbed.as_ref()).await
        }
        Scenario::Fanout(fanout) => fanout::run(&run, fanout).await,
        Scenario::IdleUsers(args) => idle_users::run(&run, args).await,
    };
    state.ended.send_replace(true);
    if common.keep {
        eprintln!(
            "kept: organization {}, app {}",
            state.tenant.organization(),
            state.tenant.app()
        );
    } else {
        progress.phase("deleting the tenant");
        if let Err(error) = state.tenant.delete().await {
            eprintln!(
                "chaos-loadtest: cannot delete organization {}: {error}",
                state.tenant.organization()
            );
        }
    }
    if let (Ok(outcome), Some(seconds)) = (&mut outcome, common.left_seconds)
        && let Some(server) = &mut outcome.report.server
    {
        progress.phase("waiting for the nodes to give memory back");
        sleep(Duration::from_secs(seconds)).await;
        server.memory.left = Some(ProcessMemory::of(&common.pids)?);
    }
    progress.finish();
    outcome
}

/// Becomes true when the user presses Ctrl-C.
fn interrupted() -> watch::Receiver<bool> {
    let (sender, receiver) = watch::channel(false);
    tokio::spawn(async move {
        // Without the signal handler the run goes on to its end.
        if tokio::signal::ctrl_c().await.is_ok() {
            sender.send_replace(true);
        }
        sender.closed().await;
    });
    receiver
}

/// The arguments and state of a scenario's run.
struct ScenarioRun<'a> {
    common: &'a CommonArgs,
    state: Arc<RunState>,
    progress: ProgressLine,
    interrupted: watch::Receiver<bool>,
    disk: Option<NodeDisk>,
}

/// The disk under the node's data folder.
#[derive(Clone)]
struct NodeDisk {
    device: BlockDevice,
    sync: Percentiles,
}

impl NodeDisk {
    /// Measures syncs in the data folder, if it is on one disk of this machine. `verify` starts its
    /// own nodes, and measures no costs.
    async fn measure(
        scenario: &Scenario,
        common: &CommonArgs,
        progress: &ProgressLine,
    ) -> Result<Option<Self>> {
        let device = match scenario {
            Scenario::Verify(_) => None,
            _ => BlockDevice::of(&common.data),
        };
        let Some(device) = device else {
            return Ok(None);
        };
        progress.phase("measuring the disk");
        let folder = common.data.clone();
        let sync = tokio::task::spawn_blocking(move || disk::measure_sync(&folder))
            .await
            .context("the thread that measures the disk panicked")?
            .with_context(|| format!("cannot measure syncs in {}", common.data.display()))?;
        Ok(Some(Self { device, sync }))
    }

    fn counters(&self) -> Result<WriteCounters> {
        self.device
            .counters()
            .context("cannot read the counters of the disk")
    }
}

/// A client that is not connected yet.
struct PlannedClient {
    config: MemberConfig,
    observer: Arc<dyn DeliveryObserver>,
}

/// The connected clients, and the memory of the nodes before and after they connected.
struct ConnectedClients {
    members: Vec<Member>,
    seconds: f64,
    memory: [ProcessMemory; 2],
}

impl ScenarioRun<'_> {
    /// Creates users and channels. The first users of a channel are its initial participants.
    async fn create_users_and_channels(&self, channels: &[(ChannelId, Vec<UserId>)]) -> Result<()> {
        let users: Vec<UserId> = channels
            .iter()
            .flat_map(|(_, users)| users.iter().cloned())
            .collect();
        self.progress.phase(format!(
            "creating {} users and {} channels",
            users.len(),
            channels.len()
        ));
        self.state.tenant.create_users(&users).await?;
        for (id, users) in channels {
            self.state.tenant.create_channel(id, users).await?;
        }
        Ok(())
    }

    /// Connects all clients. The members are in the order of the clients.
    async fn connect(&self, clients: Vec<PlannedClient>) -> Result<ConnectedClients> {
        let count = clients.len();
        self.progress.phase(format!("minting {count} tokens"));
        let tokens = self.mint(&clients).await?;
        self.wait_until_idle().await;
        let before = ProcessMemory::of(&self.common.pids)?;
        self.progress.phase(format!("connecting {count} clients"));
        let started = Instant::now();
        let mut joining = JoinSet::new();
        for (index, (PlannedClient { config, observer }, token)) in
            clients.into_iter().zip(tokens).enumerate()
        {
            let state = self.state.clone();
            joining.spawn(async move {
                join(state, config, token, observer)
                    .await
                    .map(|member| (index, member))
            });
        }
        let members = join_in_order(joining).await?;
        let seconds = started.elapsed().as_secs_f64();
        self.wait_until_idle().await;
        Ok(ConnectedClients {
            members,
            seconds,
            memory: [before, ProcessMemory::of(&self.common.pids)?],
        })
    }

    async fn mint(&self, clients: &[PlannedClient]) -> Result<Vec<String>> {
        let permits = Arc::new(tokio::sync::Semaphore::new(CONCURRENT_MINTS));
        let mut minting = JoinSet::new();
        for (index, PlannedClient { config, .. }) in clients.iter().enumerate() {
            let (state, user, client, permits) = (
                self.state.clone(),
                config.user.clone(),
                config.placement,
                permits.clone(),
            );
            minting.spawn(async move {
                let _permit = permits.acquire().await;
                let token = state.tenant.token(client, &user).await;
                token
                    .map(|token| (index, token))
                    .with_context(|| format!("cannot mint a token for {user}"))
            });
        }
        join_in_order(minting).await
    }

    /// Lets the nodes become idle, if they are measured.
    async fn wait_until_idle(&self) {
        if !self.common.pids.is_empty() {
            sleep(SETTLE_TIME).await;
        }
    }

    /// Waits for outstanding deliveries (at most `--wait`), then a little longer for duplicates.
    async fn settle(&self, mut is_complete: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(self.common.wait);
        let is_quiet = || self.state.counters.pending.load(Ordering::Relaxed) == 0;
        while !(is_quiet() && is_complete()) && Instant::now() < deadline {
            sleep(Duration::from_millis(20)).await;
        }
        sleep(SETTLE_TIME / 2).await;
    }

    fn cpu_seconds(&self) -> Result<f64> {
        cpu_seconds(&self.common.pids)
    }

    /// What was written to the data folder's disk so far, if it is measured.
    fn disk_writes(&self) -> Result<Option<WriteCounters>> {
        self.disk.as_ref().map(NodeDisk::counters).transpose()
    }

    /// What was written to the disk since `before` per message, if it is measured.
    fn disk_costs(
        &self,
        before: Option<WriteCounters>,
        messages: u64,
    ) -> Result<Option<DiskCosts>> {
        let costs = |(now, before): (WriteCounters, _)| now.per_message(before, messages);
        Ok(self.disk_writes()?.zip(before).map(costs))
    }

    /// Builds the report while all clients are still connected.
    fn report(
        &self,
        settings: &impl Serialize,
        measurement: Measurement,
        connected: &ConnectedClients,
        tally: Tally,
        unchecked: usize,
    ) -> Result<RunOutcome> {
        let RunState {
            counters,
            delivery,
            acknowledgement,
            connecting,
            ..
        } = &*self.state;
        let RunCounters {
            delivered,
            delivered_bytes,
            rate_limited,
            reconnects,
            ..
        } = counters;
        let counts = ReportCounts {
            connections: connected.members.len(),
            sent: tally.sent,
            acknowledged: tally.acknowledged,
            rate_limited: rate_limited.load(Ordering::Relaxed),
            unknown: tally.unknown,
            delivered: tally.delivered,
            listed: tally.listed,
            gaps_told: tally.gaps,
            reconnects: reconnects.load(Ordering::Relaxed),
            frame_bytes: delivered_bytes.load(Ordering::Relaxed)
                / delivered.load(Ordering::Relaxed).max(1),
        };
        let verdict = if !tally.violations.is_none() {
            RunVerdict::Broken
        } else if tally.acknowledged == 0 || unchecked > 0 {
            RunVerdict::Unproven
        } else {
            RunVerdict::Kept
        };
        let delivery = delivery.distribution();
        let per_second = |count: u64| count as f64 / measurement.seconds.max(f64::EPSILON);
        let report = RunReport {
            scenario: measurement.scenario,
            settings: serde_json::to_value(settings)?,
            verdict,
            counts,
            violations: tally.violations,
            evidence: tally
                .evidence
                .into_iter()
                .map(|(kind, evidence)| format!("{kind}: {evidence}"))
                .collect(),
            troubles: counters.errors(),
            connect_seconds: connected.seconds,
            seconds: measurement.seconds,
            messages_per_second: per_second(measurement.acknowledged),
            deliveries_per_second: per_second(measurement.delivered),
            latency: Latencies {
                delivery: delivery.percentiles(),
                acknowledgement: acknowledgement.distribution().percentiles(),
                connecting: connecting.distribution().percentiles(),
                own_lag: measurement
                    .own_lag
                    .as_ref()
                    .map(LatencyDistribution::percentiles),
            },
            server: self.node_costs(&measurement, connected)?,
            disk: measurement.disk,
            disk_sync: self.disk.as_ref().map(|disk| disk.sync),
            floor: measurement.floor,
            steps: Vec::new(),
            faults: measurement.faults,
        };
        Ok(RunOutcome { report, delivery })
    }

    /// Returns the cost of the nodes, if they are measured.
    fn node_costs(
        &self,
        measurement: &Measurement,
        connected: &ConnectedClients,
    ) -> Result<Option<NodeCosts>> {
        if self.common.pids.is_empty() {
            return Ok(None);
        }
        let count = connected.members.len();
        let [before, idle] = connected.memory;
        let afterwards = ProcessMemory::of(&self.common.pids)?;
        let per_million = measurement.cpu_seconds / measurement.delivered.max(1) as f64 * 1e6;
        Ok(Some(NodeCosts {
            cpu_seconds: measurement.cpu_seconds,
            cpu_seconds_per_million_deliveries: per_million,
            times_floor: measurement
                .floor
                .map(|floor| per_million / floor.cpu_seconds_per_million),
            idle: idle.per_connection(before, count),
            idle_afterwards: afterwards.per_connection(before, count),
            memory: MemoryCourse {
                before,
                connected: afterwards,
                left: None,
            },
        }))
    }
}

/// Figures of the measured part of a run.
struct Measurement {
    scenario: &'static str,
    seconds: f64,
    acknowledged: u64,
    delivered: u64,
    cpu_seconds: f64,
    disk: Option<DiskCosts>,
    own_lag: Option<LatencyDistribution>,
    floor: Option<crate::floor::Floor>,
    faults: Option<FaultSummary>,
}

/// Waits for indexed tasks and returns their results by index. Fails with the first error.
async fn join_in_order<T: Send + 'static>(
    mut tasks: JoinSet<Result<(usize, T)>>,
) -> Result<Vec<T>> {
    let mut results = Vec::with_capacity(tasks.len());
    while let Some(task) = tasks.join_next().await {
        results.push(task.context("a client's task panicked")??);
    }
    results.sort_unstable_by_key(|(index, _)| *index);
    Ok(results.into_iter().map(|(_, result)| result).collect())
}

fn user(letter: char, number: usize) -> UserId {
    format!("{letter}{number}")
        .parse()
        .expect("a letter and digits are a valid id")
}

fn channel(number: usize) -> ChannelId {
    format!("channel-{number}")
        .parse()
        .expect("letters, a dash and digits are a valid id")
}
