//! The scenarios, and what they have in common: a tenant, clients, a run that can be broken off, a report.

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
    arena::Arena,
    cli::{Common, Scenario, Verify},
    member::{Member, Role, Witness, join},
    process::{Memory, cpu_seconds},
    progress::Progress,
    record::Distribution,
    report::{Counts, Faults, Latency, Report, Server, Verdict},
    stage::{Counters, Stage},
    tenant::Tenant,
    verify::Tally,
};

mod chat;
mod fanout;
mod window;

/// How long a node has to come to rest before its memory is read, and late duplicates to arrive.
const REST: Duration = Duration::from_secs(1);

/// Tokens under way at once.
const MINTING: usize = 16;

/// A run's report, and the whole of its delivery latencies.
pub struct Outcome {
    /// The report.
    pub report: Report,
    /// Delivery latencies.
    pub delivery: Distribution,
}

/// Runs it from the tenant's making to its deletion.
pub async fn run(scenario: &Scenario) -> Result<Outcome> {
    let arena = match scenario {
        Scenario::Verify(verify) => Some(Arc::new(Arena::open(verify).await?)),
        _ => None,
    };
    let common = &arena.as_ref().map_or_else(
        || scenario.common().clone(),
        |arena| arena.common(scenario.common()),
    );
    // A wrong process id is better told before a run than after it.
    cpu_seconds(&common.pids)?;
    let progress = Progress::default();
    progress.phase("making a tenant");
    let tenant = Tenant::make(common).await?;
    let stage = Arc::new(Stage::new(tenant, common)?);
    let run = Run {
        common,
        stage: stage.clone(),
        progress: progress.clone(),
        interrupted: interrupted(),
    };
    let outcome = match scenario {
        Scenario::Chat(chat) | Scenario::Verify(Verify { chat, .. }) => {
            chat::run(&run, chat, arena.as_ref()).await
        }
        Scenario::Fanout(fanout) => fanout::run(&run, fanout).await,
    };
    stage.over.send_replace(true);
    if common.keep {
        eprintln!(
            "kept: organization {}, app {}",
            stage.tenant.organization(),
            stage.tenant.app()
        );
    } else {
        progress.phase("deleting the tenant");
        if let Err(error) = stage.tenant.delete().await {
            eprintln!(
                "chaos-loadtest: organization {} is left behind: {error}",
                stage.tenant.organization()
            );
        }
    }
    progress.finish();
    outcome
}

/// True once the user asked to end.
fn interrupted() -> watch::Receiver<bool> {
    let (sender, receiver) = watch::channel(false);
    tokio::spawn(async move {
        // Without the signal a run goes on to its end.
        if tokio::signal::ctrl_c().await.is_ok() {
            sender.send_replace(true);
        }
        sender.closed().await;
    });
    receiver
}

/// What a scenario works with.
struct Run<'a> {
    common: &'a Common,
    stage: Arc<Stage>,
    progress: Progress,
    interrupted: watch::Receiver<bool>,
}

/// A client to be: who it is, and who looks at what it gets.
struct Client {
    role: Role,
    witness: Arc<dyn Witness>,
}

/// What the nodes had used when the clients were not connected yet, and when they were.
struct Connected {
    members: Vec<Member>,
    seconds: f64,
    memory: [Memory; 2],
}

impl Run<'_> {
    /// Makes users and channels; a channel's first participants are given first.
    async fn furnish(&self, channels: &[(ChannelId, Vec<UserId>)]) -> Result<()> {
        let users: Vec<UserId> = channels
            .iter()
            .flat_map(|(_, users)| users.iter().cloned())
            .collect();
        self.progress.phase(format!(
            "making {} users and {} channels",
            users.len(),
            channels.len()
        ));
        self.stage.tenant.make_users(&users).await?;
        for (id, users) in channels {
            self.stage.tenant.make_channel(id, users).await?;
        }
        Ok(())
    }

    /// Connects everybody; the members come in the order of the clients.
    async fn connect(&self, clients: Vec<Client>) -> Result<Connected> {
        let count = clients.len();
        self.progress.phase(format!("minting {count} tokens"));
        let tokens = self.mint(&clients).await?;
        self.rest().await;
        let before = Memory::of(&self.common.pids)?;
        self.progress.phase(format!("connecting {count} clients"));
        let started = Instant::now();
        let mut joining = JoinSet::new();
        for (place, (Client { role, witness }, token)) in
            clients.into_iter().zip(tokens).enumerate()
        {
            let stage = self.stage.clone();
            joining.spawn(async move {
                join(stage, role, token, witness)
                    .await
                    .map(|member| (place, member))
            });
        }
        let members = in_order(joining).await?;
        let seconds = started.elapsed().as_secs_f64();
        self.rest().await;
        Ok(Connected {
            members,
            seconds,
            memory: [before, Memory::of(&self.common.pids)?],
        })
    }

    async fn mint(&self, clients: &[Client]) -> Result<Vec<String>> {
        let permits = Arc::new(tokio::sync::Semaphore::new(MINTING));
        let mut minting = JoinSet::new();
        for (place, Client { role, .. }) in clients.iter().enumerate() {
            let (stage, user, client, permits) = (
                self.stage.clone(),
                role.user.clone(),
                role.spread,
                permits.clone(),
            );
            minting.spawn(async move {
                let _permit = permits.acquire().await;
                let token = stage.tenant.token(client, &user).await;
                token
                    .map(|token| (place, token))
                    .with_context(|| format!("No token for {user}"))
            });
        }
        in_order(minting).await
    }

    /// Lets a node that is measured come to rest.
    async fn rest(&self) {
        if !self.common.pids.is_empty() {
            sleep(REST).await;
        }
    }

    /// Waits for what is outstanding, and then a moment for what should not come.
    async fn settle(&self, mut is_complete: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(self.common.wait);
        let is_quiet = || self.stage.counters.pending.load(Ordering::Relaxed) == 0;
        while !(is_quiet() && is_complete()) && Instant::now() < deadline {
            sleep(Duration::from_millis(20)).await;
        }
        sleep(REST / 2).await;
    }

    fn cpu_seconds(&self) -> Result<f64> {
        cpu_seconds(&self.common.pids)
    }

    /// What there is to say when everybody is still connected.
    fn report(
        &self,
        settings: &impl Serialize,
        measured: Measured,
        connected: &Connected,
        tally: Tally,
        unchecked: usize,
    ) -> Result<Outcome> {
        let Stage {
            counters,
            delivery,
            acknowledgement,
            connecting,
            ..
        } = &*self.stage;
        let Counters {
            delivered,
            delivered_bytes,
            rate_limited,
            reconnects,
            ..
        } = counters;
        let delivered = delivered.load(Ordering::Relaxed);
        let counts = Counts {
            connections: connected.members.len(),
            sent: 0,
            acknowledged: 0,
            rate_limited: rate_limited.load(Ordering::Relaxed),
            unknown: 0,
            delivered: 0,
            listed: 0,
            gaps_told: 0,
            reconnects: reconnects.load(Ordering::Relaxed),
            frame_bytes: delivered_bytes.load(Ordering::Relaxed) / delivered.max(1),
        };
        let verdict = match () {
            () if !tally.violations.is_none() => Verdict::Broken,
            () if tally.acknowledged == 0 || unchecked > 0 => Verdict::Unproven,
            () => Verdict::Kept,
        };
        let delivery = delivery.distribution();
        let per_second = |count: u64| count as f64 / measured.seconds.max(f64::EPSILON);
        let report = Report {
            scenario: measured.scenario,
            settings: serde_json::to_value(settings)?,
            verdict,
            counts: counts.with(&tally),
            violations: tally.violations,
            evidence: tally
                .evidence
                .into_iter()
                .map(|(kind, evidence)| format!("{kind}: {evidence}"))
                .collect(),
            troubles: counters.troubles(),
            connect_seconds: connected.seconds,
            seconds: measured.seconds,
            messages_per_second: per_second(measured.acknowledged),
            deliveries_per_second: per_second(measured.delivered),
            latency: Latency {
                delivery: delivery.percentiles(),
                acknowledgement: acknowledgement.distribution().percentiles(),
                connecting: connecting.distribution().percentiles(),
                own_lag: measured.own_lag.as_ref().map(Distribution::percentiles),
            },
            server: self.server(&measured, connected)?,
            floor: measured.floor,
            faults: measured.faults,
        };
        Ok(Outcome { report, delivery })
    }

    fn server(&self, measured: &Measured, connected: &Connected) -> Result<Option<Server>> {
        if self.common.pids.is_empty() {
            return Ok(None);
        }
        let count = connected.members.len();
        let [before, idle] = connected.memory;
        let per_million = measured.cpu_seconds / measured.delivered.max(1) as f64 * 1e6;
        Ok(Some(Server {
            cpu_seconds: measured.cpu_seconds,
            cpu_seconds_per_million_deliveries: per_million,
            times_floor: measured
                .floor
                .map(|floor| per_million / floor.cpu_seconds_per_million),
            idle: idle.each(before, count),
            idle_afterwards: Memory::of(&self.common.pids)?.each(before, count),
        }))
    }
}

/// What was measured between two instants.
struct Measured {
    scenario: &'static str,
    seconds: f64,
    acknowledged: u64,
    delivered: u64,
    cpu_seconds: f64,
    own_lag: Option<Distribution>,
    floor: Option<crate::floor::Floor>,
    faults: Option<Faults>,
}

/// What numbered tasks answer, by number; the first error ends it.
async fn in_order<T: Send + 'static>(mut tasks: JoinSet<Result<(usize, T)>>) -> Result<Vec<T>> {
    let mut answers = Vec::with_capacity(tasks.len());
    while let Some(task) = tasks.join_next().await {
        answers.push(task.context("A client's task failed")??);
    }
    answers.sort_unstable_by_key(|(place, _)| *place);
    Ok(answers.into_iter().map(|(_, answer)| answer).collect())
}

fn user(letter: char, number: usize) -> UserId {
    format!("{letter}{number}")
        .parse()
        .expect("a letter and digits are an id")
}

fn channel(number: usize) -> ChannelId {
    format!("channel-{number}")
        .parse()
        .expect("letters, a dash and digits are an id")
}
