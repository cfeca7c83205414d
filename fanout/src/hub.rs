//! Who listens to what on this node, and how it is told in order.
//!
//! Owned here: the topics that the node listens to, their positions, their subscribers, and the way back after something was missed.
//! Left out: what records mean ([`Source`] frames them and reads the log) and how they travel between nodes ([`Bus`]).
//!
//! A topic's records come by the bus, which may lose them; its log is the truth. Each topic holds the position of the newest record
//! that it told. A record that does not continue that position makes the topic read the log from there; where the log does not go on
//! from it, the subscribers are told a gap. A subscriber is *live*, or *behind*: then it reads the log for itself until it has caught up.

mod batch;
mod broadcaster;
mod feed;
mod pump;
#[cfg(all(test, shuttle))]
mod races;
mod ring;
mod seats;
mod state;
mod subscription;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#[cfg_attr(shuttle, allow(dead_code, reason = "the checks need a part of it"))]
mod testing;

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;

use self::batch::{Batch, Load};
use self::broadcaster::Repaired;
use self::feed::Feed;
use crate::bus::{Bus, BusError, Listener};
use crate::record::Record;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Handle, Mutex, Topics, is_past, sleep, timeout, yield_now};
use crate::{Continuity, Outbox, Position, Replay, Source, SourceError, Topic, jittered};

pub use self::subscription::{Errand, Joining, Subscription};

/// Topics in one question for heads, and questions at once.
const HEADS: usize = 256;
const CHUNKS: usize = 16;

/// After this a read of the log gives its place to the next, and takes one of those for slow reads, of which there are so many for
/// each other one.
const SLOW: Duration = Duration::from_millis(300);
const SLOW_READS: usize = 16;

/// What a topic's records are. Whoever joins a topic first decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Numbered events with a log behind them, and passing ones between.
    Logged,
    /// Passing ones only: no position, no repair.
    Passing,
}

/// How the hub behaves.
#[derive(Debug, Clone)]
pub struct Config {
    /// How long a topic without subscribers stays joined. Default 5 s.
    pub linger: Duration,
    /// How often the heads of quiet topics are compared with the log. Default 5 s.
    pub compare: Duration,
    /// Records in one read of the log. Default 128.
    pub page: usize,
    /// Reads of the log at the same time, for repairs and for those who catch up. Default 64.
    pub reads: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            linger: Duration::from_secs(5),
            compare: Duration::from_secs(5),
            page: 128,
            reads: 64,
        }
    }
}

/// What a hub holds and did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Topics that are joined, lingering ones included.
    pub topics: u64,
    /// Subscriptions, those not started included.
    pub subscriptions: u64,
    /// Frames handed to outboxes.
    pub deliveries: u64,
    /// Times that a topic's repair read the log.
    pub repairs: u64,
    /// Times that the subscribers of a topic, or one that caught up, were told a gap.
    pub gaps: u64,
    /// Records dropped because they had come before.
    pub doubles: u64,
    /// Records dropped because this build cannot read them. The log is read instead.
    pub malformed: u64,
}

#[derive(Debug, Default)]
struct Counters {
    topics: AtomicU64,
    subscriptions: AtomicU64,
    deliveries: AtomicU64,
    repairs: AtomicU64,
    gaps: AtomicU64,
    doubles: AtomicU64,
    malformed: AtomicU64,
}

/// The node's topics and subscribers. It is the [`Listener`] of its bus.
pub struct Hub {
    feeds: Topics<Feed>,
    bus: Arc<dyn Bus>,
    source: Arc<dyn Source>,
    config: Config,
    runtime: Handle,
    reads: Semaphore,
    /// Places for reads that take long.
    slow_reads: Semaphore,
    /// Feeds without subscribers, since when, and at which of their epochs.
    idle: Mutex<VecDeque<(Instant, Arc<Feed>, u32)>>,
    doubt: Notify,
    counters: Counters,
}

impl Hub {
    /// A hub without subscribers. Must be called within a tokio runtime, on which it then works. Attach it to the bus's [`Ear`](crate::bus::Ear).
    pub fn new(bus: Arc<dyn Bus>, source: Arc<dyn Source>, config: Config) -> Arc<Self> {
        let hub = Arc::new(Self {
            feeds: Topics::new(),
            bus,
            source,
            runtime: Handle::current(),
            reads: Semaphore::new(config.reads.max(1)),
            slow_reads: Semaphore::new(config.reads.max(1).saturating_mul(SLOW_READS)),
            config,
            idle: Mutex::default(),
            doubt: Notify::new(),
            counters: Counters::default(),
        });
        hub.runtime.spawn(leave_idle(Arc::downgrade(&hub)));
        hub.runtime.spawn(compare_heads(Arc::downgrade(&hub)));
        hub
    }

    /// Registers one subscriber; see [`join_all`](Self::join_all).
    ///
    /// # Errors
    /// The bus did not confirm.
    pub async fn join(
        self: &Arc<Self>,
        topic: &Topic,
        kind: Kind,
        outbox: &Arc<Outbox>,
    ) -> Result<Joining, BusError> {
        let (subscription, is_confirmed) = self.sit(topic, kind, outbox).await;
        if !is_confirmed {
            self.bus.join(std::slice::from_ref(topic)).await?;
            subscription.confirm();
        }
        Ok(Joining::new(subscription))
    }

    /// Registers an outbox with several topics, and returns, in their order, when the bus has confirmed all of them.
    /// From the registration on the subject takes part in evictions; it is told nothing before [`Joining::start`].
    ///
    /// # Errors
    /// The bus did not confirm; nothing is registered then.
    pub async fn join_all(
        self: &Arc<Self>,
        topics: &[(Topic, Kind)],
        outbox: &Arc<Outbox>,
    ) -> Result<Vec<Joining>, BusError> {
        let mut joining = Vec::with_capacity(topics.len());
        let mut unconfirmed = Vec::new();
        for (topic, kind) in topics {
            let (subscription, is_confirmed) = self.sit(topic, *kind, outbox).await;
            if !is_confirmed {
                unconfirmed.push(Arc::clone(topic));
            }
            joining.push(Joining::new(subscription));
        }
        if !unconfirmed.is_empty() {
            self.bus.join(&unconfirmed).await?;
            joining.iter().for_each(Joining::confirm);
        }
        Ok(joining)
    }

    /// What it holds and did.
    pub fn stats(&self) -> Stats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            topics: read(&self.counters.topics),
            subscriptions: read(&self.counters.subscriptions),
            deliveries: read(&self.counters.deliveries),
            repairs: read(&self.counters.repairs),
            gaps: read(&self.counters.gaps),
            doubles: read(&self.counters.doubles),
            malformed: read(&self.counters.malformed),
        }
    }

    /// The bus that it listens to.
    pub fn bus(&self) -> &Arc<dyn Bus> {
        &self.bus
    }

    async fn sit(
        self: &Arc<Self>,
        topic: &Topic,
        kind: Kind,
        outbox: &Arc<Outbox>,
    ) -> (Subscription, bool) {
        loop {
            let feed = self.feed(topic, kind);
            if let Some((ticket, is_confirmed)) = feed.sit(outbox) {
                self.counters.subscriptions.fetch_add(1, Ordering::Relaxed);
                return (Subscription::new(feed, ticket), is_confirmed);
            }
            // It is being left. A join sent before that leave would be undone by it.
            yield_now().await;
        }
    }

    fn feed(self: &Arc<Self>, topic: &Topic, kind: Kind) -> Arc<Feed> {
        self.feeds.get(topic).unwrap_or_else(|| {
            self.feeds.get_or_insert_with(topic, || {
                self.counters.topics.fetch_add(1, Ordering::Relaxed);
                Feed::new(Arc::clone(topic), kind, self)
            })
        })
    }

    /// After subscribers of a feed went; `idle` is the feed's epoch if they were the last.
    fn left(&self, feed: &Arc<Feed>, seats: usize, idle: Option<u32>) {
        self.counters
            .subscriptions
            .fetch_sub(seats as u64, Ordering::Relaxed);
        if let Some(epoch) = idle {
            self.idle
                .lock()
                .push_back((Instant::now(), Arc::clone(feed), epoch));
        }
    }

    /// Leaves the topics that nobody came back to.
    fn leave_idle(&self) {
        let mut gone = Vec::new();
        {
            let mut idle = self.idle.lock();
            while let Some((_, feed, epoch)) =
                idle.pop_front_if(|(since, ..)| is_past(*since, self.config.linger))
            {
                if feed.give_up(epoch) {
                    gone.push(Arc::clone(&feed.topic));
                }
            }
        }
        if gone.is_empty() {
            return;
        }
        // In this order: until it is removed, nobody can join the topic anew.
        self.bus.leave(&gone);
        for topic in &gone {
            self.feeds.remove(topic);
        }
        self.counters
            .topics
            .fetch_sub(gone.len() as u64, Ordering::Relaxed);
    }

    async fn deliver(&self, topic: &Topic, batch: Batch) {
        if matches!(batch.load, Load::Gap(..)) {
            self.count_gap();
        }
        let delivered = batch.deliver(topic, &*self.source).await;
        self.count_deliveries(delivered);
    }

    /// Reads a page of a log. `slow` is called where that takes long, so that what others wait for is given back.
    async fn read(
        &self,
        topic: &Topic,
        after: Position,
        slow: impl FnOnce(),
    ) -> Result<Replay, SourceError> {
        let permit = self
            .reads
            .acquire()
            .await
            .expect("the semaphore is never closed");
        let mut reading = std::pin::pin!(self.source.read(topic, after, self.config.page));
        if let Ok(replay) = timeout(SLOW, &mut reading).await {
            return replay;
        }
        // It waits for a part of the store that is away, by all experience: others need the place.
        slow();
        let Ok(_slow) = self.slow_reads.try_acquire() else {
            return reading.await;
        };
        drop(permit);
        reading.await
    }

    /// One read of a repair. Returns how many in a row brought nothing.
    async fn repair(&self, feed: &Arc<Feed>, position: Position, attempts: u32) -> u32 {
        self.counters.repairs.fetch_add(1, Ordering::Relaxed);
        match self.page_of_repair(feed, position).await {
            Ok(Repaired::More(batch)) => {
                self.deliver(&feed.topic, batch).await;
                return 0;
            }
            Ok(Repaired::Later) => {}
            Err(error) if attempts == 0 => {
                tracing::warn!(topic = %feed.topic, %error, "a topic waits for the log")
            }
            Err(error) => {
                tracing::debug!(topic = %feed.topic, %error, attempts, "a topic waits for the log")
            }
        }
        sleep(backoff(attempts)).await;
        attempts.saturating_add(1)
    }

    async fn page_of_repair(
        &self,
        feed: &Arc<Feed>,
        position: Position,
    ) -> Result<Repaired, SourceError> {
        let replay = self.read(&feed.topic, position, || {}).await?;
        let strangers = match replay.continuity {
            Continuity::Continuous => HashSet::new(),
            Continuity::Broken(_) => {
                let subjects: HashSet<Bytes> = feed
                    .audience()
                    .iter()
                    .map(|(_, seat)| Bytes::copy_from_slice(seat.outbox.subject()))
                    .collect();
                self.strangers(&feed.topic, subjects.into_iter().collect())
                    .await?
            }
        };
        Ok(feed.repaired(replay, &strangers))
    }

    /// Those of the subjects that may not listen any more.
    async fn strangers(
        &self,
        topic: &Topic,
        subjects: Vec<Bytes>,
    ) -> Result<HashSet<Bytes>, SourceError> {
        let admitted = self.source.admits(topic, &subjects).await?;
        Ok(subjects
            .into_iter()
            .zip(admitted)
            .filter_map(|(subject, is_admitted)| (!is_admitted).then_some(subject))
            .collect())
    }

    /// Asks for the heads of feeds and repairs those that are elsewhere.
    async fn compare(&self, doubtful: bool) -> Result<(), SourceError> {
        let questions: Vec<(Arc<Feed>, Position)> = self
            .feeds
            .all()
            .into_iter()
            .filter_map(|feed| feed.question(doubtful).map(|position| (feed, position)))
            .collect();
        let mut result = Ok(());
        for some in questions.chunks(HEADS * CHUNKS) {
            // Beside each other, so that one that waits for a part of the store that is away holds up no other.
            let asked = some.chunks(HEADS).map(|questions| async move {
                let topics: Vec<Topic> = questions
                    .iter()
                    .map(|(feed, _)| Arc::clone(&feed.topic))
                    .collect();
                let mut failure = None;
                for ((feed, position), head) in
                    questions.iter().zip(self.source.heads(&topics).await)
                {
                    match head {
                        Ok(head) => feed.compare(*position, head),
                        Err(error) => {
                            feed.doubt();
                            failure = Some(error);
                        }
                    }
                }
                failure
            });
            if let Some(error) = join_all(asked).await.into_iter().flatten().next() {
                result = Err(error);
            }
        }
        result
    }

    fn count_deliveries(&self, frames: u64) {
        self.counters
            .deliveries
            .fetch_add(frames, Ordering::Relaxed);
    }

    fn count_gap(&self) {
        self.counters.gaps.fetch_add(1, Ordering::Relaxed);
    }

    fn count_doubles(&self, records: u64) {
        self.counters.doubles.fetch_add(records, Ordering::Relaxed);
    }
}

impl Listener for Hub {
    fn record(&self, topic: &str, record: Bytes) {
        let Some(feed) = self.feeds.get(topic) else {
            return;
        };
        match Record::decode(record) {
            Ok(record) => feed.arrive(record),
            Err(error) => {
                self.counters.malformed.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(topic, %error, "a record from the bus was dropped");
                feed.doubt();
                self.doubt.notify_one();
            }
        }
    }

    fn missed(&self, topics: Option<&[Topic]>) {
        match topics {
            Some(topics) => topics
                .iter()
                .filter_map(|topic| self.feeds.get(topic))
                .for_each(|feed| feed.doubt()),
            None => self.feeds.all().iter().for_each(|feed| feed.doubt()),
        }
        self.doubt.notify_one();
    }
}

impl std::fmt::Debug for Hub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hub")
            .field("bus", &self.bus)
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

/// How long to wait after so many attempts in vain: doubling from 50 ms to 2 s, of which a random half is taken off.
fn backoff(attempts: u32) -> Duration {
    jittered(Duration::from_millis((50u64 << attempts.min(6)).min(2_000)))
}

async fn leave_idle(hub: Weak<Hub>) {
    loop {
        let Some(pause) = hub.upgrade().map(|hub| hub.config.linger / 4) else {
            return;
        };
        sleep(pause.clamp(Duration::from_millis(5), Duration::from_secs(1))).await;
        let Some(hub) = hub.upgrade() else { return };
        hub.leave_idle();
    }
}

/// Compares positions with the log: of quiet topics from time to time, of those in doubt at once.
async fn compare_heads(hub: Weak<Hub>) {
    let mut attempts = 0;
    let mut due = None;
    loop {
        let Some(this) = hub.upgrade() else { return };
        let compare = this.config.compare;
        let at = *due.get_or_insert_with(|| Instant::now() + compare);
        // At most a second, so that the end of the hub is noticed.
        let wait = at
            .saturating_duration_since(Instant::now())
            .min(Duration::from_secs(1));
        let wait = if attempts > 0 {
            wait.min(backoff(attempts))
        } else {
            wait
        };
        let is_told = timeout(wait, this.doubt.notified()).await.is_ok();
        if is_told || attempts > 0 {
            attempts = match this.compare(true).await {
                Ok(()) => 0,
                Err(error) => {
                    tracing::warn!(%error, attempts, "the log cannot tell whether something was missed");
                    attempts + 1
                }
            };
        }
        if Instant::now() >= at {
            due = None;
            if let Err(error) = this.compare(false).await {
                tracing::warn!(%error, "the heads of quiet topics could not be compared");
                attempts = attempts.max(1);
            }
        }
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests;
