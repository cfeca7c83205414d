//! One channel with many subscribers: what a delivery costs.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use parking_lot::Mutex;
use protocol::{ChannelId, ErrorCode, UserId, params::Watch};
use tokio::sync::mpsc;

use super::{Client, Connected, Measured, Outcome, Run, channel, user, window::Window};
use crate::{
    cli::Fanout,
    floor,
    member::{Member, Role, Witness},
    pace::Clock,
    room::{Pacing, Room},
    script::Script,
    stage::{Counters, Stage},
    told::{Name, Told},
    verify::{Index, Tally, passing::Passing},
};

/// Messages before the measurement, which tell the size of a frame.
const WARM_UP: Index = 20;

/// How long nothing may get through before the run is broken off.
const STALL: Duration = Duration::from_secs(10);

pub(super) async fn run(run: &Run<'_>, fanout: &Fanout) -> Result<Outcome> {
    let Run {
        common,
        stage,
        progress,
        ..
    } = run;
    let publishers: Vec<UserId> = (0..fanout.publishers)
        .map(|place| user('p', place))
        .collect();
    let subscribers: Vec<UserId> = (0..fanout.subscribers)
        .map(|place| user('s', place))
        .collect();
    let room = (channel(0), [&publishers[..], &subscribers].concat());
    run.furnish(std::slice::from_ref(&room)).await?;

    let clock = Clock::starting(Instant::now());
    let window = Arc::new(Window::new(fanout.in_flight, fanout.subscribers, clock));
    let hall = Hall::new(
        fanout.passing,
        room.0,
        &publishers,
        &subscribers,
        stage,
        window.clone(),
        clock,
        common.payload,
    );
    let role = |spread, who, user: &UserId, watch| Role {
        spread,
        who,
        user: user.clone(),
        channel: hall.channel().clone(),
        watch,
        comes_and_goes: false,
    };
    let subscribing = subscribers
        .iter()
        .enumerate()
        .map(|(who, user)| role(who, who, user, Watch::All));
    let publishing = publishers
        .iter()
        .enumerate()
        .map(|(who, user)| role(subscribers.len() + who, who, user, Watch::None));
    let clients = subscribing.chain(publishing).map(|role| Client {
        role,
        witness: hall.witness(),
    });
    let connected = run.connect(clients.collect()).await?;
    let queues = hall.senders(&connected.members[subscribers.len()..]);

    progress.phase("warming up");
    let mut publishing = Publishing {
        window: &window,
        queues,
        next: 0,
        stalled: false,
    };
    publishing
        .publish_while(|message| message < WARM_UP.max(fanout.in_flight as Index))
        .await;
    let measured = measure(run, fanout, &mut publishing, clock).await?;
    run.settle(|| hall.is_complete()).await;

    let unchecked = match &hall {
        Hall::Stored(room) => list(run, room, &connected).await,
        Hall::Passing(_) => 0,
    };
    run.report(fanout, measured, &connected, hall.finish(), unchecked)
}

async fn measure(
    run: &Run<'_>,
    fanout: &Fanout,
    publishing: &mut Publishing<'_>,
    clock: Clock,
) -> Result<Measured> {
    let Run {
        common,
        stage,
        progress,
        interrupted,
    } = run;
    let Counters {
        delivered,
        delivered_bytes,
        acknowledged,
        ..
    } = &stage.counters;
    let frame = delivered_bytes.load(Ordering::Relaxed) / delivered.load(Ordering::Relaxed).max(1);
    progress.phase(format!("measuring the floor: bare sends of {frame} bytes"));
    let (subscribers, frame) = (
        fanout.subscribers,
        usize::try_from(frame).context("A frame is larger than memory")?,
    );
    let floor = tokio::task::spawn_blocking(move || floor::measure(subscribers, frame.max(2)))
        .await
        .context("The floor's thread failed")?;
    let floor = floor.context("The floor cannot be measured")?;

    [&stage.delivery, &stage.acknowledgement]
        .into_iter()
        .for_each(|recorder| recorder.reset());
    let following = progress.follow(stage, common.seconds);
    let before = (
        acknowledged.load(Ordering::Relaxed),
        delivered.load(Ordering::Relaxed),
        run.cpu_seconds()?,
    );
    let began = clock.now();
    publishing
        .publish_while(|_| {
            ((clock.now() - began) as f64) < common.seconds * 1e6 && !*interrupted.borrow()
        })
        .await;
    let measured = Measured {
        scenario: "fanout",
        seconds: (clock.now() - began) as f64 / 1e6,
        acknowledged: acknowledged.load(Ordering::Relaxed) - before.0,
        delivered: delivered.load(Ordering::Relaxed) - before.1,
        cpu_seconds: run.cpu_seconds()? - before.2,
        own_lag: None,
        floor: Some(floor),
        faults: None,
    };
    drop(following);
    if publishing.stalled {
        stage.counters.trouble(format!(
            "the run was broken off: nothing got through for {} s",
            STALL.as_secs()
        ));
    }
    Ok(measured)
}

async fn list(run: &Run<'_>, room: &Room, connected: &Connected) -> usize {
    run.progress.phase("listing the channel");
    let Some(session) = connected.members.first().and_then(Member::session) else {
        run.stage
            .counters
            .trouble("the channel cannot be listed: its first member is not connected");
        return 1;
    };
    match room.check_list(&session).await {
        Ok(()) => 0,
        Err(error) => {
            run.stage.counters.trouble(format!("{error:#}"));
            1
        }
    }
}

/// Messages put on their way, as many at once as the window takes.
struct Publishing<'a> {
    window: &'a Window,
    queues: Vec<mpsc::UnboundedSender<Index>>,
    next: Index,
    stalled: bool,
}

impl Publishing<'_> {
    /// Publishes while this holds for the next message, whole windows, and waits until all have got through.
    async fn publish_while(&mut self, goes_on: impl Fn(Index) -> bool) {
        while !self.stalled && (!self.window.is_first(self.next) || goes_on(self.next)) {
            if !self.window.admits(self.next, STALL).await {
                self.stalled = true;
                break;
            }
            // A queue ends with the run.
            let _ = self.queues[self.next as usize % self.queues.len()].send(self.next);
            self.next += 1;
        }
        self.stalled |= !self.window.empties(STALL).await;
    }
}

/// The one channel, with what is published in it.
enum Hall {
    Stored(Arc<Room>),
    Passing(Arc<PassingRoom>),
}

impl Hall {
    #[expect(
        clippy::too_many_arguments,
        reason = "the one place that chooses between two kinds of rooms"
    )]
    fn new(
        passing: bool,
        id: ChannelId,
        publishers: &[UserId],
        subscribers: &[UserId],
        stage: &Arc<Stage>,
        window: Arc<Window>,
        clock: Clock,
        payload: usize,
    ) -> Self {
        if passing {
            let check = Mutex::new(Passing::new(
                id.as_str(),
                subscribers.len(),
                publishers.len(),
            ));
            let places = publishers.iter().cloned().zip(0..).collect();
            let current = publishers.iter().map(|_| AtomicU32::default()).collect();
            Self::Passing(Arc::new(PassingRoom {
                id,
                check,
                places,
                current,
                stage: stage.clone(),
                window,
                clock,
            }))
        } else {
            let script = Arc::new(Script::new(rand::random(), publishers.to_vec(), payload));
            Self::Stored(Arc::new(Room::new(
                id,
                subscribers,
                stage,
                &script,
                window,
                clock,
            )))
        }
    }

    fn channel(&self) -> &ChannelId {
        match self {
            Self::Stored(room) => &room.id,
            Self::Passing(room) => &room.id,
        }
    }

    fn witness(&self) -> Arc<dyn Witness> {
        match self {
            Self::Stored(room) => room.clone(),
            Self::Passing(room) => room.clone(),
        }
    }

    fn senders(&self, publishers: &[Member]) -> Vec<mpsc::UnboundedSender<Index>> {
        let publishers = publishers.iter().cloned().enumerate();
        match self {
            Self::Stored(room) => publishers
                .map(|(by, member)| room.sender(by, member))
                .collect(),
            Self::Passing(room) => publishers
                .map(|(by, member)| room.sender(by, member))
                .collect(),
        }
    }

    fn is_complete(&self) -> bool {
        match self {
            Self::Stored(room) => room.is_complete(),
            // The window waited for everything already.
            Self::Passing(_) => true,
        }
    }

    fn finish(&self) -> Tally {
        match self {
            Self::Stored(room) => room.finish(),
            Self::Passing(room) => {
                std::mem::replace(&mut *room.check.lock(), Passing::new("", 0, 0)).finish()
            }
        }
    }
}

/// A channel in which passing events are published.
struct PassingRoom {
    id: ChannelId,
    check: Mutex<Passing>,
    places: HashMap<UserId, usize>,
    /// By publisher: the one event that it has under way.
    current: Vec<AtomicU32>,
    stage: Arc<Stage>,
    window: Arc<Window>,
    clock: Clock,
}

impl PassingRoom {
    fn sender(self: &Arc<Self>, by: usize, member: Member) -> mpsc::UnboundedSender<Index> {
        let (queue, mut due) = mpsc::unbounded_channel();
        let room = self.clone();
        tokio::spawn(async move {
            while let Some(event) = due.recv().await {
                room.send(by, event, &member).await;
            }
        });
        queue
    }

    async fn send(&self, by: usize, event: Index, member: &Member) {
        let counters = &self.stage.counters;
        let typing = self.check.lock().sending(by);
        self.current[by].store(event, Ordering::Relaxed);
        Counters::count(&counters.sent);
        let Some(session) = member.session() else {
            return self.refuse(by, event);
        };
        match session.typing(&self.id, typing).await {
            Ok(()) => {
                self.stage
                    .acknowledgement
                    .record(by, self.clock.now().saturating_sub(self.window.due(event)));
                self.check.lock().acknowledged();
                Counters::count(&counters.acknowledged);
            }
            Err(error) => match error.refusal() {
                Some(refusal) if refusal.code == ErrorCode::RateLimited => {
                    Counters::count(&counters.rate_limited);
                    self.refuse(by, event);
                }
                Some(refusal) => {
                    counters.trouble(format!("typing: {refusal}"));
                    self.refuse(by, event);
                }
                None => counters.trouble(format!("typing: {error}")),
            },
        }
    }

    fn refuse(&self, by: usize, event: Index) {
        self.check.lock().refused(by);
        self.window.refused(event);
    }
}

impl Witness for PassingRoom {
    fn starts(&self, _who: usize, _seq: u64, _number: u64) {}

    fn told(&self, who: usize, told: &Told, frame: usize) {
        let (Name::Typing, Some(user), Some(typing)) =
            (told.event, &told.data.user_id, told.data.typing)
        else {
            return;
        };
        let place = self.places.get(user).copied();
        self.check
            .lock()
            .saw(who, place.unwrap_or(usize::MAX), typing);
        Counters::count(&self.stage.counters.delivered);
        self.stage
            .counters
            .delivered_bytes
            .fetch_add(frame as u64, Ordering::Relaxed);
        if let Some(place) = place {
            let event = self.current[place].load(Ordering::Relaxed);
            self.stage
                .delivery
                .record(who, self.clock.now().saturating_sub(self.window.due(event)));
            self.window.delivered(event);
        }
    }

    fn told_gap(&self, _who: usize, _head: u64) {}

    fn foreign(&self, who: usize, what: &str) {
        self.check.lock().saw_foreign(who, what);
    }
}
