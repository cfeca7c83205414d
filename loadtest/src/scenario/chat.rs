//! `chat` and `verify`: many channels in which every member sends, at a fixed rate.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use protocol::{ChannelId, UserId, operation::session::Watch};
use tokio::{sync::watch, task::JoinSet, time::sleep};

use super::{Measurement, PlannedClient, RunOutcome, ScenarioRun, channel, user};
use crate::{
    channel::{MessageTiming, TestChannel},
    cli::ChatArgs,
    latency::LatencyRecorder,
    member::{Member, MemberConfig},
    report::FaultSummary,
    run_state::RunState,
    schedule::{RunClock, Schedule},
    script::MessageScript,
    testbed::{TestBed, fault::FaultInjection},
    verify::{MessageIndex, Tally},
};

/// Attempts to add a guest at the end of a `verify` run, one second apart.
const MAX_ADD_ATTEMPTS: usize = 30;

/// The timing of a schedule that starts when all clients are connected.
struct OpenLoopTiming {
    schedule: Schedule,
    /// Start of the schedule, in microseconds of the run's clock.
    started_micros: AtomicU64,
}

impl MessageTiming for OpenLoopTiming {
    fn due(&self, message: MessageIndex) -> u64 {
        self.started_micros.load(Ordering::Relaxed) + self.schedule.due(message)
    }
}

pub(super) async fn run(
    run: &ScenarioRun<'_>,
    chat: &ChatArgs,
    testbed: Option<&Arc<TestBed>>,
) -> Result<RunOutcome> {
    let ScenarioRun {
        common,
        state,
        progress,
        ..
    } = run;
    // Client n is member n / channels of channel n % channels, so that consecutive messages go to
    // different channels.
    let members = chat.channels * chat.members;
    let users: Vec<UserId> = (0..members).map(|client| user('u', client)).collect();
    let guests: Vec<UserId> = (0..if testbed.is_some() { chat.channels } else { 0 })
        .map(|index| user('g', index))
        .collect();
    let subscribers_of = |index: usize| {
        let members = users.iter().skip(index).step_by(chat.channels);
        members
            .chain(guests.get(index))
            .cloned()
            .collect::<Vec<_>>()
    };
    let participants: Vec<(ChannelId, Vec<UserId>)> = (0..chat.channels)
        .map(|index| (channel(index), subscribers_of(index)))
        .collect();
    run.create_users_and_channels(&participants).await?;

    let clock = RunClock::starting(Instant::now());
    let timing = Arc::new(OpenLoopTiming {
        schedule: Schedule::new(chat.rate, common.seconds),
        started_micros: AtomicU64::default(),
    });
    let script = Arc::new(MessageScript::new(
        rand::random(),
        users.clone(),
        common.payload,
    ));
    let test_channel = |(id, subscribers): &(ChannelId, Vec<UserId>)| {
        let channel = TestChannel::new(
            id.clone(),
            subscribers,
            state,
            &script,
            timing.clone(),
            clock,
        );
        let channel = channel.with_guarantees(testbed.and_then(|testbed| testbed.guarantees()));
        Arc::new(if guests.is_empty() {
            channel
        } else {
            channel.with_guest_and_deletions(subscribers)
        })
    };
    let channels: Vec<Arc<TestChannel>> = participants.iter().map(test_channel).collect();
    let channel_of = |client: usize| &channels[client % chat.channels];
    // The guests follow the members. They send nothing.
    let clients = users
        .iter()
        .chain(&guests)
        .enumerate()
        .map(|(client, user)| PlannedClient {
            config: MemberConfig {
                // Neither all members of a channel nor the first members of all channels connect to
                // the same node.
                placement: client % chat.channels + client / chat.channels,
                subscriber: client / chat.channels,
                user: user.clone(),
                channel: channel_of(client).id.clone(),
                watch: Watch::All,
                is_guest: client >= members,
            },
            observer: channel_of(client).clone(),
        });
    let connected = run.connect(clients.collect()).await?;
    warn_of_rate_limit(chat, &connected.members);

    let queues: Vec<_> = connected
        .members
        .iter()
        .enumerate()
        .take(members)
        .map(|(client, member)| channel_of(client).sender(client / chat.channels, member.clone()))
        .collect();
    let guests_and_channels = || {
        guests
            .iter()
            .zip(&channels)
            .map(|(guest, channel)| (&channel.id, guest))
    };
    let churn = GuestChurn::start(state, guests_and_channels());
    let injection = testbed.map(|testbed| (testbed, FaultInjection::start(testbed, progress)));
    let counter_updates = progress.show_counters(state, common.seconds);
    let (cpu, disk, started) = (run.cpu_seconds()?, run.disk_writes()?, Instant::now());
    let lag = Arc::new(LatencyRecorder::default());
    timing.started_micros.store(clock.now(), Ordering::Relaxed);
    let sending = tokio::task::spawn_blocking({
        let (timing, lag, interrupted, clients) = (
            timing.clone(),
            lag.clone(),
            run.interrupted.clone(),
            script.senders(),
        );
        let clock = clock.offset_by(timing.started_micros.load(Ordering::Relaxed));
        move || {
            timing.schedule.run(clock, &interrupted, |message| {
                lag.record(0, clock.now().saturating_sub(timing.schedule.due(message)));
                // It fails only when the run has ended.
                let _ = queues[message as usize % clients].send(message);
            })
        }
    });
    let sent = sending
        .await
        .context("the thread of the schedule panicked")?;
    let faults = match injection {
        None => None,
        Some((testbed, injection)) => {
            churn.stop().await;
            let counts = injection.stop().await?;
            testbed.check().await?;
            add_guests(state, guests_and_channels()).await?;
            Some(FaultSummary {
                seed: testbed.seed,
                struck: counts,
            })
        }
    };
    let seconds = started.elapsed().as_secs_f64();
    let acknowledged = state.counters.acknowledged.load(Ordering::Relaxed);
    let delivered = state.counters.delivered.load(Ordering::Relaxed);
    // A message is counted as sent when it leaves the queue, before it is pending.
    let is_complete = || {
        state.counters.sent.load(Ordering::Relaxed) == u64::from(sent)
            && channels.iter().all(|channel| channel.is_complete())
    };
    run.settle(is_complete).await;
    drop(counter_updates);
    let all_delivered = state.counters.delivered.load(Ordering::Relaxed);
    let cpu_seconds =
        (run.cpu_seconds()? - cpu) * delivered.max(1) as f64 / all_delivered.max(1) as f64;

    let disk = run.disk_costs(disk, acknowledged)?;
    progress.phase("listing the channels");
    let unchecked = check_lists(&channels, &connected.members, run).await;
    let mut tally = Tally::default();
    channels
        .iter()
        .for_each(|channel| tally.add(channel.finish()));
    let measured = Measurement {
        scenario: if testbed.is_some() { "verify" } else { "chat" },
        seconds,
        acknowledged,
        delivered,
        cpu_seconds,
        disk,
        own_lag: Some(lag.distribution()),
        floor: None,
        faults,
    };
    run.report(chat, measured, &connected, tally, unchecked)
}

/// The tasks that remove guests from their channels and add them again.
struct GuestChurn {
    ended: watch::Sender<bool>,
    guests: JoinSet<()>,
}

impl GuestChurn {
    fn start<'a>(
        state: &Arc<RunState>,
        guests: impl Iterator<Item = (&'a ChannelId, &'a UserId)>,
    ) -> Self {
        let ended = watch::Sender::new(false);
        let mut tasks = JoinSet::new();
        for (channel, guest) in guests {
            tasks.spawn(remove_and_add(
                state.clone(),
                channel.clone(),
                guest.clone(),
                ended.subscribe(),
            ));
        }
        Self {
            ended,
            guests: tasks,
        }
    }

    async fn stop(self) {
        self.ended.send_replace(true);
        self.guests.join_all().await;
    }
}

async fn remove_and_add(
    state: Arc<RunState>,
    channel: ChannelId,
    guest: UserId,
    mut ended: watch::Receiver<bool>,
) {
    for turn in 0.. {
        tokio::select! {
            () = sleep(Duration::from_millis(rand::random_range(200..2_000))) => {}
            _ = ended.wait_for(|ended| *ended) => return,
        }
        // After an error the next turn goes on: adding or removing twice changes nothing.
        let changed = match turn % 2 {
            0 => {
                state
                    .tenant
                    .remove_participant(turn / 2, &channel, &guest)
                    .await
            }
            _ => {
                state
                    .tenant
                    .add_participant(turn / 2, &channel, &guest)
                    .await
            }
        };
        if let Err(error) = changed {
            state
                .counters
                .record_error(format!("add or remove a guest: {error}"));
        }
    }
}

/// Adds all guests, after the last removal.
async fn add_guests(
    state: &RunState,
    guests: impl Iterator<Item = (&ChannelId, &UserId)>,
) -> Result<()> {
    for (channel, guest) in guests {
        let mut attempt = 0;
        while let Err(error) = state.tenant.add_participant(attempt, channel, guest).await {
            attempt += 1;
            ensure!(
                attempt < MAX_ADD_ATTEMPTS,
                "cannot add {guest} to {channel} although all faults have ended: {error}"
            );
            sleep(Duration::from_secs(1)).await;
        }
    }
    Ok(())
}

/// Lists the channels. Returns the number that could not be listed.
async fn check_lists(
    channels: &[Arc<TestChannel>],
    members: &[Member],
    run: &ScenarioRun<'_>,
) -> usize {
    let mut unchecked = 0;
    for (channel, member) in channels.iter().zip(members) {
        let checked = match member.session() {
            Some(session) => channel.check_list(&session).await,
            None => Err(anyhow::anyhow!(
                "cannot list channel {}: its first member is not connected",
                channel.id
            )),
        };
        if let Err(error) = checked {
            run.state.counters.record_error(format!("{error:#}"));
            unchecked += 1;
        }
    }
    unchecked
}

/// Warns if the rate of each client is above the node's limit.
fn warn_of_rate_limit(chat: &ChatArgs, members: &[Member]) {
    let limit = members
        .first()
        .and_then(Member::session)
        .and_then(|session| {
            session
                .connected()
                .limits
                .get("requests_per_second")
                .copied()
        });
    let per_client = chat.rate / members.len() as f64;
    if let Some(limit) = limit.filter(|limit| *limit > 0 && per_client > *limit as f64) {
        eprintln!(
            "each of {} clients sends {per_client:.0} messages per second, and the node accepts {limit} per session: the rest will be \
             refused. Use more --members or --channels, or start the node with --limit requests_per_second=0",
            members.len()
        );
    }
}
