//! `fanout`: one channel with many subscribers, to measure the cost of a delivery.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use parking_lot::Mutex;
use protocol::{
    ChannelId, ErrorCode, UserId,
    operation::{
        session::Watch,
        typing::{Typing, TypingSet},
    },
};
use tokio::{sync::mpsc, time::sleep_until};

use super::{
    ConnectedClients, Measurement, PlannedClient, RunOutcome, ScenarioRun, channel, user,
    window::SendWindow,
};
use crate::{
    channel::{MessageTiming, TestChannel},
    cli::FanoutArgs,
    event::{EventName, ReceivedEvent},
    floor,
    member::{DeliveryObserver, Member, MemberConfig},
    run_state::{RunCounters, RunState},
    schedule::RunClock,
    script::MessageScript,
    verify::{MessageIndex, Tally, passing::PassingChecker},
};

/// Messages before the measurement. They also tell the size of a frame.
const WARM_UP_MESSAGES: MessageIndex = 20;

/// Time without a delivery after which the run is aborted.
const STALL_TIMEOUT: Duration = Duration::from_secs(10);

/// Time between two starts of typing of a publisher: a node drops those that follow each other
/// faster.
const TYPING_INTERVAL: Duration = Duration::from_secs(1);

pub(super) async fn run(run: &ScenarioRun<'_>, fanout: &FanoutArgs) -> Result<RunOutcome> {
    let ScenarioRun {
        common,
        state,
        progress,
        ..
    } = run;
    let publishers: Vec<UserId> = (0..fanout.publishers)
        .map(|index| user('p', index))
        .collect();
    let subscribers: Vec<UserId> = (0..fanout.subscribers)
        .map(|index| user('s', index))
        .collect();
    let id = channel(0);
    run.create_users_and_channels(&[(id.clone(), [&publishers[..], &subscribers].concat())])
        .await?;

    let clock = RunClock::starting(Instant::now());
    let window = Arc::new(SendWindow::new(fanout.in_flight, fanout.subscribers, clock));
    let channel = if fanout.passing {
        FanoutChannel::Passing(Arc::new(PassingChannel {
            checker: Mutex::new(PassingChecker::new(
                id.as_str(),
                subscribers.len(),
                publishers.len(),
            )),
            publisher_indices: publishers.iter().cloned().zip(0..).collect(),
            in_flight: publishers.iter().map(|_| AtomicU32::default()).collect(),
            last_starts: Mutex::new(vec![None; publishers.len()]),
            id,
            state: state.clone(),
            window: window.clone(),
            clock,
        }))
    } else {
        let script = Arc::new(MessageScript::new(
            rand::random(),
            publishers.clone(),
            common.payload,
        ));
        FanoutChannel::Stored(Arc::new(TestChannel::new(
            id,
            &subscribers,
            state,
            &script,
            window.clone(),
            clock,
        )))
    };
    let config = |placement, subscriber, user: &UserId, watch| MemberConfig {
        placement,
        subscriber,
        user: user.clone(),
        channel: channel.id().clone(),
        watch,
        is_guest: false,
    };
    let subscribing = subscribers
        .iter()
        .enumerate()
        .map(|(subscriber, user)| config(subscriber, subscriber, user, Watch::All));
    let publishing = publishers
        .iter()
        .enumerate()
        .map(|(index, user)| config(subscribers.len() + index, index, user, Watch::None));
    let clients = subscribing.chain(publishing).map(|config| PlannedClient {
        config,
        observer: channel.observer(),
    });
    let connected = run.connect(clients.collect()).await?;
    if fanout.passing {
        check_audience(&connected)?;
    }
    let queues = channel.senders(&connected.members[subscribers.len()..]);

    progress.phase("warming up");
    let mut publish_loop = PublishLoop {
        window: &window,
        channel: &channel,
        queues,
        next: 0,
        stalled: false,
    };
    publish_loop
        .publish_while(|message| message < WARM_UP_MESSAGES.max(fanout.in_flight as MessageIndex))
        .await;
    let measured = measure(run, fanout, &mut publish_loop, clock).await?;
    run.settle(|| channel.is_complete()).await;

    let unchecked = match &channel {
        FanoutChannel::Stored(channel) => check_list(run, channel, &connected).await,
        FanoutChannel::Passing(_) => 0,
    };
    run.report(fanout, measured, &connected, channel.finish(), unchecked)
}

/// Returns an error if the channel has too many participants for typing events.
fn check_audience(connected: &ConnectedClients) -> Result<()> {
    let session = connected.members.first().and_then(Member::session);
    let limit = session
        .and_then(|session| session.connected().limits.get("read_audience").copied())
        .unwrap_or(0);
    ensure!(
        limit == 0 || connected.members.len() as u64 <= limit,
        "the node sends typing events only in channels of at most {limit} participants: start it with --limit read_audience=0, or use \
         fewer --subscribers and --publishers"
    );
    Ok(())
}

async fn measure(
    run: &ScenarioRun<'_>,
    fanout: &FanoutArgs,
    publish_loop: &mut PublishLoop<'_>,
    clock: RunClock,
) -> Result<Measurement> {
    let ScenarioRun {
        common,
        state,
        progress,
        interrupted,
        ..
    } = run;
    let RunCounters {
        delivered,
        delivered_bytes,
        acknowledged,
        ..
    } = &state.counters;
    let frame = delivered_bytes.load(Ordering::Relaxed) / delivered.load(Ordering::Relaxed).max(1);
    progress.phase(format!("measuring the floor: bare sends of {frame} bytes"));
    let (subscribers, frame) = (
        fanout.subscribers,
        usize::try_from(frame).context("a frame is larger than memory")?,
    );
    let floor = tokio::task::spawn_blocking(move || floor::measure(subscribers, frame.max(2)))
        .await
        .context("the thread of the floor panicked")?;
    let floor = floor.context("cannot measure the floor")?;

    [&state.delivery, &state.acknowledgement]
        .into_iter()
        .for_each(|recorder| recorder.reset());
    let counter_updates = progress.show_counters(state, common.seconds);
    let before = (
        acknowledged.load(Ordering::Relaxed),
        delivered.load(Ordering::Relaxed),
        run.cpu_seconds()?,
    );
    let disk = run.disk_writes()?;
    let began = clock.now();
    publish_loop
        .publish_while(|_| {
            ((clock.now() - began) as f64) < common.seconds * 1e6 && !*interrupted.borrow()
        })
        .await;
    let messages = acknowledged.load(Ordering::Relaxed) - before.0;
    let measured = Measurement {
        scenario: "fanout",
        seconds: (clock.now() - began) as f64 / 1e6,
        acknowledged: messages,
        delivered: delivered.load(Ordering::Relaxed) - before.1,
        cpu_seconds: run.cpu_seconds()? - before.2,
        disk: run.disk_costs(disk, messages)?,
        own_lag: None,
        floor: Some(floor),
        faults: None,
    };
    drop(counter_updates);
    if publish_loop.stalled {
        state.counters.record_error(format!(
            "the run was aborted: nothing was delivered for {} s",
            STALL_TIMEOUT.as_secs()
        ));
    }
    Ok(measured)
}

/// Lists the channel. Returns 1 if it could not be listed.
async fn check_list(
    run: &ScenarioRun<'_>,
    channel: &TestChannel,
    connected: &ConnectedClients,
) -> usize {
    run.progress.phase("listing the channel");
    let Some(session) = connected.members.first().and_then(Member::session) else {
        run.state
            .counters
            .record_error("cannot list the channel: its first member is not connected");
        return 1;
    };
    match channel.check_list(&session).await {
        Ok(()) => 0,
        Err(error) => {
            run.state.counters.record_error(format!("{error:#}"));
            1
        }
    }
}

/// Publishes messages as fast as the window admits them.
struct PublishLoop<'a> {
    window: &'a SendWindow,
    channel: &'a FanoutChannel,
    queues: Vec<mpsc::UnboundedSender<MessageIndex>>,
    next: MessageIndex,
    stalled: bool,
}

impl PublishLoop<'_> {
    /// Publishes whole batches while `continues` holds for the first message of a batch, then waits
    /// until all are delivered.
    async fn publish_while(&mut self, continues: impl Fn(MessageIndex) -> bool) {
        while !self.stalled && (!self.window.is_first(self.next) || continues(self.next)) {
            let publisher = self.next as usize % self.queues.len();
            self.channel.wait_until_ready(publisher).await;
            if !self.window.admit(self.next, STALL_TIMEOUT).await {
                self.stalled = true;
                break;
            }
            // It fails only when the run has ended.
            let _ = self.queues[publisher].send(self.next);
            self.next += 1;
        }
        self.stalled |= !self.window.wait_until_empty(STALL_TIMEOUT).await;
    }
}

/// The channel of the scenario: with stored messages, or with passing events.
enum FanoutChannel {
    Stored(Arc<TestChannel>),
    Passing(Arc<PassingChannel>),
}

impl FanoutChannel {
    fn id(&self) -> &ChannelId {
        match self {
            Self::Stored(channel) => &channel.id,
            Self::Passing(channel) => &channel.id,
        }
    }

    fn observer(&self) -> Arc<dyn DeliveryObserver> {
        match self {
            Self::Stored(channel) => channel.clone(),
            Self::Passing(channel) => channel.clone(),
        }
    }

    fn senders(&self, publishers: &[Member]) -> Vec<mpsc::UnboundedSender<MessageIndex>> {
        let publishers = publishers.iter().cloned().enumerate();
        match self {
            Self::Stored(channel) => publishers
                .map(|(publisher, member)| channel.sender(publisher, member))
                .collect(),
            Self::Passing(channel) => publishers
                .map(|(publisher, member)| channel.sender(publisher, member))
                .collect(),
        }
    }

    /// Waits until a publisher may send again.
    async fn wait_until_ready(&self, publisher: usize) {
        let Self::Passing(channel) = self else { return };
        let is_start = channel.checker.lock().next_is_start(publisher);
        let last_start = channel.last_starts.lock()[publisher];
        if let Some(last_start) = last_start.filter(|_| is_start) {
            sleep_until((last_start + TYPING_INTERVAL).into()).await;
        }
    }

    fn is_complete(&self) -> bool {
        match self {
            Self::Stored(channel) => channel.is_complete(),
            // The window has waited for all deliveries.
            Self::Passing(_) => true,
        }
    }

    fn finish(&self) -> Tally {
        match self {
            Self::Stored(channel) => channel.finish(),
            Self::Passing(channel) => {
                std::mem::replace(&mut *channel.checker.lock(), PassingChecker::new("", 0, 0))
                    .finish()
            }
        }
    }
}

/// A channel in which passing events are published.
struct PassingChannel {
    id: ChannelId,
    checker: Mutex<PassingChecker>,
    publisher_indices: HashMap<UserId, usize>,
    /// The event in flight of each publisher.
    in_flight: Vec<AtomicU32>,
    /// When the last start of typing of each publisher was acknowledged.
    last_starts: Mutex<Vec<Option<Instant>>>,
    state: Arc<RunState>,
    window: Arc<SendWindow>,
    clock: RunClock,
}

impl PassingChannel {
    fn sender(
        self: &Arc<Self>,
        publisher: usize,
        member: Member,
    ) -> mpsc::UnboundedSender<MessageIndex> {
        let (queue, mut due) = mpsc::unbounded_channel();
        let channel = self.clone();
        tokio::spawn(async move {
            while let Some(event) = due.recv().await {
                channel.send(publisher, event, &member).await;
            }
        });
        queue
    }

    async fn send(&self, publisher: usize, event: MessageIndex, member: &Member) {
        let counters = &self.state.counters;
        let typing = self.checker.lock().sending(publisher);
        self.in_flight[publisher].store(event, Ordering::Relaxed);
        RunCounters::count(&counters.sent);
        let Some(session) = member.session() else {
            return self.refuse(publisher, event);
        };
        match session.call::<TypingSet>(&self.id, Typing { typing }).await {
            Ok(_) => {
                self.state.acknowledgement.record(
                    publisher,
                    self.clock.now().saturating_sub(self.window.due(event)),
                );
                self.checker.lock().acknowledged();
                if typing {
                    self.last_starts.lock()[publisher] = Some(Instant::now());
                }
                RunCounters::count(&counters.acknowledged);
            }
            Err(error) => match error.refusal() {
                Some(refusal) if refusal.code == ErrorCode::RateLimited => {
                    RunCounters::count(&counters.rate_limited);
                    self.refuse(publisher, event);
                }
                Some(refusal) => {
                    counters.record_error(format!("typing: {refusal}"));
                    self.refuse(publisher, event);
                }
                None => counters.record_error(format!("typing: {error}")),
            },
        }
    }

    fn refuse(&self, publisher: usize, event: MessageIndex) {
        self.checker.lock().refused(publisher);
        self.window.refused(event);
    }
}

impl DeliveryObserver for PassingChannel {
    fn subscribed(&self, _subscriber: usize, _seq: u64, _number: u64) {}

    fn received(&self, subscriber: usize, event: &ReceivedEvent, frame: usize) {
        let (EventName::Typing, Some(user), Some(typing)) =
            (event.name, &event.data.user_id, event.data.typing)
        else {
            return;
        };
        let publisher = self.publisher_indices.get(user).copied();
        self.checker
            .lock()
            .event_received(subscriber, publisher, typing);
        RunCounters::count(&self.state.counters.delivered);
        self.state
            .counters
            .delivered_bytes
            .fetch_add(frame as u64, Ordering::Relaxed);
        if let Some(publisher) = publisher {
            let event = self.in_flight[publisher].load(Ordering::Relaxed);
            self.state.delivery.record(
                subscriber,
                self.clock.now().saturating_sub(self.window.due(event)),
            );
            self.window.delivered(event);
        }
    }

    fn gap_received(&self, _subscriber: usize, _head: u64) {}

    fn foreign_received(&self, subscriber: usize, what: &str) {
        self.checker.lock().foreign_received(subscriber, what);
    }
}
