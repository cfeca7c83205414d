//! Many channels, everybody talks, at a rate that nothing slows.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use protocol::{ChannelId, UserId, params::Watch};
use tokio::{sync::watch, task::JoinSet, time::sleep};

use super::{Client, Measured, Outcome, Run, channel, user};
use crate::{
    arena::{Arena, fault::Trouble},
    cli::Chat,
    member::{Member, Role},
    pace::{Clock, Schedule},
    record::Recorder,
    report::Faults,
    room::{Pacing, Room},
    script::Script,
    stage::Stage,
    verify::{Index, Tally},
};

/// How often a guest is added at the end, a second apart.
const ATTEMPTS: usize = 30;

/// A schedule that begins once everybody is connected.
struct OpenLoop {
    schedule: Schedule,
    /// In microseconds of the run's clock.
    begins: AtomicU64,
}

impl Pacing for OpenLoop {
    fn due(&self, message: Index) -> u64 {
        self.begins.load(Ordering::Relaxed) + self.schedule.due(message)
    }
}

pub(super) async fn run(run: &Run<'_>, chat: &Chat, arena: Option<&Arc<Arena>>) -> Result<Outcome> {
    let Run {
        common,
        stage,
        progress,
        ..
    } = run;
    // Client n is member n / channels of channel n % channels, so that neighbours in the schedule are in different channels.
    let clients = chat.channels * chat.members;
    let users: Vec<UserId> = (0..clients).map(|client| user('u', client)).collect();
    let members_of = |place: usize| {
        users
            .iter()
            .skip(place)
            .step_by(chat.channels)
            .cloned()
            .collect::<Vec<_>>()
    };
    let guests: Vec<UserId> = (0..if arena.is_some() { chat.channels } else { 0 })
        .map(|place| user('g', place))
        .collect();
    let subscribers_of = |place: usize| {
        members_of(place)
            .into_iter()
            .chain(guests.get(place).cloned())
            .collect::<Vec<_>>()
    };
    let channels: Vec<(ChannelId, Vec<UserId>)> = (0..chat.channels)
        .map(|place| (channel(place), subscribers_of(place)))
        .collect();
    run.furnish(&channels).await?;

    let clock = Clock::starting(Instant::now());
    let pacing = Arc::new(OpenLoop {
        schedule: Schedule::new(chat.rate, common.seconds),
        begins: AtomicU64::default(),
    });
    let script = Arc::new(Script::new(rand::random(), users.clone(), common.payload));
    let room = |(id, users): &(ChannelId, Vec<UserId>)| {
        let room = Room::new(id.clone(), users, stage, &script, pacing.clone(), clock);
        let room = room.on(arena.and_then(|arena| arena.terms()));
        Arc::new(if guests.is_empty() {
            room
        } else {
            room.with_change(users)
        })
    };
    let rooms: Vec<Arc<Room>> = channels.iter().map(room).collect();
    let room_of = |client: usize| &rooms[client % chat.channels];
    // Guests follow the members, and send nothing.
    let roles = users
        .iter()
        .chain(&guests)
        .enumerate()
        .map(|(client, user)| Client {
            // Neither all members of a channel nor all first members come to one node.
            role: Role {
                spread: client % chat.channels + client / chat.channels,
                who: client / chat.channels,
                user: user.clone(),
                channel: room_of(client).id.clone(),
                watch: Watch::All,
                comes_and_goes: client >= clients,
            },
            witness: room_of(client).clone(),
        });
    let connected = run.connect(roles.collect()).await?;
    warn_of_limits(chat, &connected.members);

    let queues: Vec<_> = connected
        .members
        .iter()
        .enumerate()
        .take(clients)
        .map(|(client, member)| room_of(client).sender(client / chat.channels, member.clone()))
        .collect();
    let coming_and_going = ComingAndGoing::begin(
        stage,
        guests
            .iter()
            .zip(&rooms)
            .map(|(guest, room)| (room.id.clone(), guest.clone())),
    );
    let trouble = arena.map(|arena| (arena, Trouble::begin(arena, progress)));
    let following = progress.follow(stage, common.seconds);
    let (cpu, started) = (run.cpu_seconds()?, Instant::now());
    let lag = Arc::new(Recorder::default());
    pacing.begins.store(clock.now(), Ordering::Relaxed);
    let sending = tokio::task::spawn_blocking({
        let (pacing, lag, interrupted, clients) = (
            pacing.clone(),
            lag.clone(),
            run.interrupted.clone(),
            script.senders(),
        );
        let clock = clock.later(pacing.begins.load(Ordering::Relaxed));
        move || {
            pacing.schedule.run(clock, &interrupted, |message| {
                lag.record(0, clock.now().saturating_sub(pacing.schedule.due(message)));
                // A queue ends with the run.
                let _ = queues[message as usize % clients].send(message);
            })
        }
    });
    let sent = sending.await.context("The schedule's thread failed")?;
    let faults = match trouble {
        None => None,
        Some((arena, trouble)) => {
            coming_and_going.end().await;
            let struck = trouble.end().await?;
            arena.check().await?;
            bring_in(
                stage,
                guests
                    .iter()
                    .zip(&rooms)
                    .map(|(guest, room)| (&room.id, guest)),
            )
            .await?;
            Some(Faults {
                seed: arena.seed,
                struck,
            })
        }
    };
    let seconds = started.elapsed().as_secs_f64();
    let acknowledged = stage.counters.acknowledged.load(Ordering::Relaxed);
    let delivered = stage.counters.delivered.load(Ordering::Relaxed);
    // What is queued is sent before it is pending.
    run.settle(|| {
        stage.counters.sent.load(Ordering::Relaxed) == u64::from(sent)
            && rooms.iter().all(|room| room.is_complete())
    })
    .await;
    drop(following);
    let all_delivered = stage.counters.delivered.load(Ordering::Relaxed);
    let cpu_seconds =
        (run.cpu_seconds()? - cpu) * delivered.max(1) as f64 / all_delivered.max(1) as f64;

    progress.phase("listing the channels");
    let unchecked = check_lists(&rooms, &connected.members, run).await;
    let mut tally = Tally::default();
    rooms.iter().for_each(|room| tally.add(room.finish()));
    let measured = Measured {
        scenario: if arena.is_some() { "verify" } else { "chat" },
        seconds,
        acknowledged,
        delivered,
        cpu_seconds,
        own_lag: Some(lag.distribution()),
        floor: None,
        faults,
    };
    run.report(chat, measured, &connected, tally, unchecked)
}

/// Guests that are removed from their channels and added again.
struct ComingAndGoing {
    over: watch::Sender<bool>,
    guests: JoinSet<()>,
}

impl ComingAndGoing {
    fn begin(stage: &Arc<Stage>, guests: impl Iterator<Item = (ChannelId, UserId)>) -> Self {
        let over = watch::Sender::new(false);
        let mut tasks = JoinSet::new();
        for (channel, guest) in guests {
            tasks.spawn(come_and_go(stage.clone(), channel, guest, over.subscribe()));
        }
        Self {
            over,
            guests: tasks,
        }
    }

    async fn end(self) {
        self.over.send_replace(true);
        self.guests.join_all().await;
    }
}

async fn come_and_go(
    stage: Arc<Stage>,
    channel: ChannelId,
    guest: UserId,
    mut over: watch::Receiver<bool>,
) {
    for turn in 0.. {
        tokio::select! {
            () = sleep(Duration::from_millis(rand::random_range(200..2_000))) => {}
            _ = over.wait_for(|over| *over) => return,
        }
        // What fails for a fault is made again in its next turn: both may be asked for twice.
        let changed = match turn % 2 {
            0 => {
                stage
                    .tenant
                    .remove_participant(turn / 2, &channel, &guest)
                    .await
            }
            _ => {
                stage
                    .tenant
                    .add_participant(turn / 2, &channel, &guest)
                    .await
            }
        };
        if let Err(error) = changed {
            stage.counters.trouble(format!("a guest: {error}"));
        }
    }
}

/// Adds the guests for good, once no removal is under way any more.
async fn bring_in(
    stage: &Stage,
    guests: impl Iterator<Item = (&ChannelId, &UserId)>,
) -> Result<()> {
    for (channel, guest) in guests {
        let mut attempt = 0;
        while let Err(error) = stage.tenant.add_participant(attempt, channel, guest).await {
            attempt += 1;
            ensure!(
                attempt < ATTEMPTS,
                "{guest} cannot be added to {channel} though every fault is over: {error}"
            );
            sleep(Duration::from_secs(1)).await;
        }
    }
    Ok(())
}

/// How many channels could not be listed.
async fn check_lists(rooms: &[Arc<Room>], members: &[Member], run: &Run<'_>) -> usize {
    let mut unchecked = 0;
    for (room, member) in rooms.iter().zip(members) {
        let checked = match member.session() {
            Some(session) => room.check_list(&session).await,
            None => Err(anyhow::anyhow!(
                "Channel {} cannot be listed: its member is not connected",
                room.id
            )),
        };
        if let Err(error) = checked {
            run.stage.counters.trouble(format!("{error:#}"));
            unchecked += 1;
        }
    }
    unchecked
}

fn warn_of_limits(chat: &Chat, members: &[Member]) {
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
    let each = chat.rate / members.len() as f64;
    if let Some(limit) = limit.filter(|limit| *limit > 0 && each > *limit as f64) {
        eprintln!(
            "Each of {} clients is to send {each:.0} messages per second and the node takes {limit} from a session: the rest will be \
             refused. Ask for more members or channels, or start the node with --limit requests_per_second=0.",
            members.len()
        );
    }
}
