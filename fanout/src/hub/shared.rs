//! State that all topics of a hub share: its source, its limits and its counters.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chaos_redis::jittered;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

use super::budget::Budget;
use crate::fair::{self, FairPermits};
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Handle, Mutex, timeout};
use crate::{PageLimit, Position, Replay, Source, SourceError, Topic};

/// Time after which a read of the log exchanges its permit for a permit for slow reads.
const SLOW_READ_THRESHOLD: Duration = Duration::from_millis(300);

/// Number of permits for slow reads for each permit for reads.
const SLOW_READS_PER_READ: usize = 16;

/// The kind of a topic's records. The topic's first subscriber sets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TopicKind {
    /// Numbered events from a log, and passing records between them.
    Logged,
    /// Passing records only: no position and no recovery.
    Passing,
}

/// Settings of a hub.
#[derive(Debug, Clone)]
pub struct HubConfig {
    /// How long a topic without subscribers stays joined. Default 5 s.
    pub linger: Duration,
    /// Period in which the position of every topic is compared once with the log, spread evenly.
    /// Default 5 minutes.
    pub compare_period: Duration,
    /// Whether nodes publish [digests](crate::digest) on the bus. Default no: a bus within the
    /// process loses nothing.
    pub has_digests: bool,
    /// Maximum records in one read of the log. Default 128.
    pub page_records: usize,
    /// Maximum bytes of the records in one read of the log. A single record may be larger. Default
    /// 64 KiB.
    pub page_bytes: usize,
    /// Maximum concurrent reads of the log, for recovery and catching up.
    /// [Parties](crate::Source::party) take turns. Default 64.
    pub max_concurrent_reads: usize,
    /// Maximum bytes of records in memory, over all topics: records that wait for their broadcast,
    /// and recent records for subscribers that catch up. Records beyond it are read from the log.
    /// Default 64 MiB.
    pub max_buffered_bytes: usize,
}

impl Default for HubConfig {
    fn default() -> Self {
        Self {
            linger: Duration::from_secs(5),
            compare_period: Duration::from_secs(300),
            has_digests: false,
            page_records: 128,
            page_bytes: 64 * 1024,
            max_concurrent_reads: 64,
            max_buffered_bytes: 64 * 1024 * 1024,
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) topics: AtomicU64,
    pub(super) subscriptions: AtomicU64,
    pub(super) deliveries: AtomicU64,
    pub(super) recoveries: AtomicU64,
    pub(super) gaps: AtomicU64,
    pub(super) duplicates: AtomicU64,
}

impl Counters {
    pub(super) fn add(counter: &AtomicU64, count: u64) {
        counter.fetch_add(count, Ordering::Relaxed);
    }
}

/// A page of the log. The caller keeps the permit as long as it keeps records of the page, which
/// bounds the memory of all pages.
pub(super) struct ReplayPage<'a> {
    pub(super) replay: Replay,
    pub(super) permit: ReadPermit<'a>,
}

/// A permit for one read of the log, released on drop.
pub(super) enum ReadPermit<'a> {
    InTurn { _permit: fair::Permit },
    Slow { _permit: SemaphorePermit<'a> },
}

/// A topic that lost its last subscriber.
pub(super) struct IdleTopic {
    pub(super) since: Instant,
    pub(super) topic: Topic,
    /// The topic's idle epoch at that time. If the topic has another one now, it had subscribers
    /// meanwhile.
    pub(super) epoch: u32,
}

pub(super) struct Shared {
    pub(super) source: Arc<dyn Source>,
    pub(super) config: HubConfig,
    /// For the records that topics keep in memory.
    pub(super) budget: Arc<Budget>,
    pub(super) runtime: Handle,
    /// Permits for reads, granted in turns to the parties of the topics.
    reads: Arc<FairPermits>,
    slow_reads: Semaphore,
    /// In the order of `since`.
    pub(super) idle: Mutex<VecDeque<IdleTopic>>,
    pub(super) counters: Counters,
}

impl Shared {
    /// Must be called within a tokio runtime, on which the hub's tasks run.
    pub(super) fn new(source: Arc<dyn Source>, config: HubConfig) -> Arc<Self> {
        Arc::new(Self {
            source,
            runtime: Handle::current(),
            reads: FairPermits::new(config.max_concurrent_reads.max(1)),
            slow_reads: Semaphore::new(
                config
                    .max_concurrent_reads
                    .max(1)
                    .saturating_mul(SLOW_READS_PER_READ),
            ),
            budget: Budget::new(config.max_buffered_bytes),
            config,
            idle: Mutex::default(),
            counters: Counters::default(),
        })
    }

    /// Notes that subscribers of a topic were removed. `idle_epoch` is the topic's idle epoch if
    /// they were the last.
    pub(super) fn subscribers_removed(&self, topic: &Topic, count: usize, idle_epoch: Option<u32>) {
        self.counters
            .subscriptions
            .fetch_sub(count as u64, Ordering::Relaxed);
        if let Some(epoch) = idle_epoch {
            self.idle.lock().push_back(IdleTopic {
                since: Instant::now(),
                topic: Arc::clone(topic),
                epoch,
            });
        }
    }

    /// Reads a page of at most `bytes` of a log. Calls `on_slow` if the read takes longer than
    /// [`SLOW_READ_THRESHOLD`].
    pub(super) async fn read(
        &self,
        topic: &Topic,
        after: Position,
        bytes: usize,
        on_slow: impl FnOnce(),
    ) -> Result<ReplayPage<'_>, SourceError> {
        let permit = self
            .reads
            .acquire(self.source.party(topic))
            .await
            .map_err(|_| SourceError("too many reads wait".into()))?;
        let permit = ReadPermit::InTurn { _permit: permit };
        let limit = PageLimit {
            records: self.config.page_records,
            bytes: bytes.min(self.config.page_bytes),
        };
        let mut reading = std::pin::pin!(self.source.read(topic, after, limit));
        if let Ok(replay) = timeout(SLOW_READ_THRESHOLD, &mut reading).await {
            return Ok(ReplayPage {
                replay: replay?,
                permit,
            });
        }
        // A part of the store is probably unavailable. Release the permit for topics in other
        // parts.
        on_slow();
        let permit = match self.slow_reads.try_acquire() {
            Ok(slow) => ReadPermit::Slow { _permit: slow },
            Err(_) => permit,
        };
        Ok(ReplayPage {
            replay: reading.await?,
            permit,
        })
    }

    /// Returns the subjects that may not subscribe to the topic any more.
    pub(super) async fn removed_subjects(
        &self,
        topic: &Topic,
        subjects: Vec<Bytes>,
    ) -> Result<HashSet<Bytes>, SourceError> {
        let admitted = self.source.may_subscribe(topic, &subjects).await?;
        Ok(subjects
            .into_iter()
            .zip(admitted)
            .filter_map(|(subject, is_admitted)| (!is_admitted).then_some(subject))
            .collect())
    }
}

/// Returns the pause after a number of failed attempts: doubles from 50 ms to 2 s, with jitter.
pub(super) fn backoff(attempts: u32) -> Duration {
    jittered(Duration::from_millis((50u64 << attempts.min(6)).min(2_000)))
}
