//! Catching up: a subscriber reads the log from its own cursor, as fast as its outbox drains, until
//! it is live.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chaos_redis::jittered;

use super::active_topic::{ActiveTopic, CatchUpStep};
use super::batch::{Delivery, EncodedBatch};
use super::broadcaster::recover;
use super::permit::CatchUpPermit;
use super::shared::{Counters, ReplayPage, Shared, backoff};
use super::subscribers::SubscriberId;
use crate::outbox::ENTRY_OVERHEAD_BYTES;
use crate::record::{Control, Record};
use crate::sync::{sleep, timeout};
use crate::{Class, Continuity, Gap, Outbox, Position, Replay, SourceError};

/// How long the reader may stall before the task checks whether it is still subscribed.
const STALL_CHECK_PERIOD: Duration = Duration::from_secs(30);

/// Initial backoff of a subscriber that has read the whole log but is not live yet: the bus brings
/// the rest to the topic. Doubles up to [`MAX_BACKOFF_DOUBLINGS`] times.
const INITIAL_BACKOFF: Duration = Duration::from_millis(2);
const MAX_BACKOFF_DOUBLINGS: u32 = 10;

/// Idle polls after which the topic itself reads the log.
const POLLS_PER_RECOVERY: u32 = 5;

/// Polls of a subscriber ahead of its topic before it reads the log: the topic usually follows at
/// once.
const MAX_POLLS_AHEAD: u32 = 4;

/// One subscriber that is catching up.
pub(super) struct CatchUp {
    pub(super) shared: Arc<Shared>,
    pub(super) active: Arc<ActiveTopic>,
    pub(super) id: SubscriberId,
    pub(super) outbox: Arc<Outbox>,
    pub(super) cursor: Position,
    /// The head at which the subscriber was admitted. Evictions up to there were known.
    pub(super) head: Position,
    pub(super) permit: CatchUpPermit,
    /// Size of the next buffer, if it did not fit into the outbox.
    pub(super) needed: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// A record was pushed to the outbox, or waits for room in it.
    Made,
    /// There was nothing to deliver.
    None,
}

/// The subscription is over.
struct Ended;

/// Reports the end even if the task panics, because later subscriptions of the outbox wait for it.
impl Drop for CatchUp {
    fn drop(&mut self) {
        // The model checker unwinds running tasks at the end of a check, others while they hold the
        // lock.
        if std::thread::panicking() && !cfg!(shuttle) {
            self.active.catch_up_ended(self.id);
        }
    }
}

impl CatchUp {
    /// Runs until the subscriber is live or gone.
    pub(super) async fn run(mut self) {
        self.catch_up().await;
        self.active.catch_up_ended(self.id);
    }

    async fn catch_up(&mut self) {
        let (mut idle_polls, mut polls_ahead, mut is_slow) = (0, 0, false);
        let outbox = Arc::clone(&self.outbox);
        loop {
            let mut turn = Some(outbox.acquire_turn().await);
            // Reads nothing, and spends no memory, before there is room for it.
            if self.drained(self.room_to_read()).await.is_err() {
                return;
            }
            let mut is_at_head = false;
            let progress = match self.active.catch_up(self.id, self.cursor) {
                CatchUpStep::Live | CatchUpStep::Ended => return,
                CatchUpStep::Recent(records) => self.deliver(records),
                CatchUpStep::Wait => Ok(Progress::None),
                CatchUpStep::Ahead if polls_ahead < MAX_POLLS_AHEAD => {
                    polls_ahead += 1;
                    is_at_head = true;
                    Ok(Progress::None)
                }
                step @ (CatchUpStep::ReadLog | CatchUpStep::Ahead) => {
                    // While a part of the log is unavailable, the connection's other topics take
                    // their turns.
                    let on_slow = || turn = turn.take().filter(|_| is_slow);
                    let room = self.half().saturating_sub(outbox.queued_bytes());
                    let shared = Arc::clone(&self.shared);
                    let delivered = match shared
                        .read(&self.active.topic, self.cursor, room, on_slow)
                        .await
                    {
                        // The log is available but slow: from now on, keep the turn while waiting
                        // for the log. Without a turn the page is dropped and read again, because
                        // pages that wait for a turn would be unbounded.
                        Ok(_) if turn.is_none() => {
                            is_slow = true;
                            continue;
                        }
                        Ok(page) => self.deliver_page(page, &mut is_at_head).await,
                        Err(error) => Err(error),
                    };
                    match delivered {
                        Ok(progress) => {
                            if matches!(step, CatchUpStep::Ahead) {
                                polls_ahead = 0;
                            }
                            progress
                        }
                        Err(error) => {
                            is_slow = false;
                            tracing::debug!(topic = %self.active.topic, %error, "cannot read the log, subscriber will retry");
                            Ok(Progress::None)
                        }
                    }
                }
            };
            drop(turn);
            match progress {
                Err(Ended) => return,
                Ok(Progress::None) => {
                    self.permit.release();
                    // The topic usually reaches the head at once. If it does not, it has missed
                    // records.
                    if is_at_head && idle_polls > 0 && idle_polls % POLLS_PER_RECOVERY == 0 {
                        recover(&self.active);
                    }
                    let at_head =
                        || jittered(INITIAL_BACKOFF * (1 << idle_polls.min(MAX_BACKOFF_DOUBLINGS)));
                    sleep(if is_at_head {
                        at_head()
                    } else {
                        backoff(idle_polls)
                    })
                    .await;
                    idle_polls += 1;
                }
                Ok(Progress::Made) => idle_polls = 0,
            }
        }
    }

    /// Delivers a page as far as there is room. Sets `is_at_head` to whether the log ended there.
    async fn deliver_page(
        &mut self,
        page: ReplayPage<'_>,
        is_at_head: &mut bool,
    ) -> Result<Result<Progress, Ended>, SourceError> {
        let ReplayPage {
            replay:
                Replay {
                    records,
                    head,
                    continuity,
                },
            permit,
        } = page;
        let Continuity::Broken(gap) = continuity else {
            let progress = self.deliver(records);
            *is_at_head = self.cursor == head;
            if *is_at_head && head.seq < self.head.seq {
                // The store lost writes and went back to this cursor.
                self.head = head;
                self.active.set_admitted(self.id, head);
            }
            return Ok(progress);
        };
        drop(permit);
        if gap == Gap::Diverged || head.seq > self.head.seq {
            let subject = Bytes::copy_from_slice(self.outbox.subject());
            if !self
                .shared
                .removed_subjects(&self.active.topic, vec![subject])
                .await?
                .is_empty()
            {
                return Ok(self.end());
            }
            self.head = head;
            self.active.set_admitted(self.id, head);
        }
        let frame = self
            .shared
            .source
            .gap(&self.active.topic, gap, head, self.outbox.encoding());
        Counters::add(&self.shared.counters.gaps, 1);
        self.cursor = head;
        if self.drained(self.room_for(frame.len())).await.is_err() {
            return Ok(Err(Ended));
        }
        let pushed = self.push(frame);
        if self.shared.source.observes_loss(&self.active.topic) {
            self.shared
                .source
                .after_loss(&self.active.topic, &self.outbox);
        }
        Ok(pushed.map(|()| Progress::Made))
    }

    /// Delivers records up to one that ends the subscription, as far as there is room, and advances
    /// the cursor. Records without room are dropped and read again later, so that a stalled reader
    /// holds no memory.
    fn deliver(&mut self, mut records: Vec<Record>) -> Result<Progress, Ended> {
        let subject = self.outbox.subject();
        let ends = |record: &Record| {
            let ends = match &record.control {
                Control::Evict(evicted) => evicted == subject,
                Control::Close => true,
                Control::None | Control::Except(_) => false,
            };
            ends && record.position.seq > self.head.seq
        };
        let end = records.iter().position(ends);
        if let Some(end) = end {
            // The subscriber receives a close, but not its own eviction.
            records.truncate(end + usize::from(records[end].control == Control::Close));
        }
        let Some(last) = records.last().map(|record| record.position) else {
            return if end.is_some() {
                self.end()
            } else {
                Ok(Progress::None)
            };
        };
        records.retain(
            |record| !matches!(&record.control, Control::Except(excepted) if excepted == subject),
        );
        let (topic, source) = (&self.active.topic, &*self.shared.source);
        let encoded = EncodedBatch::records(
            &records,
            topic,
            source,
            self.outbox.encoding(),
            self.outbox.limits().bytes / 4,
        );
        let delivery = Delivery {
            topic,
            source,
            records: &records,
            outbox: &self.outbox,
        };
        self.needed = 0;
        for buffer in encoded.buffers() {
            if self.outbox.queued_bytes() >= self.room_for(buffer.bytes.len()) {
                self.needed = buffer.bytes.len();
                return Ok(Progress::Made);
            }
            delivery.before_push(buffer.observed.iter());
            self.push(buffer.bytes.clone())?;
            Counters::add(&self.shared.counters.deliveries, buffer.frame_count());
            delivery.after_push(buffer.observed.iter());
            self.cursor = buffer
                .last_record()
                .map_or(self.cursor, |index| records[index].position);
        }
        self.cursor = last;
        if end.is_some() {
            self.end()
        } else {
            Ok(Progress::Made)
        }
    }

    fn end(&self) -> Result<Progress, Ended> {
        self.active.unsubscribe(self.id);
        self.outbox.notify_ended_subscription();
        Err(Ended)
    }

    fn push(&self, frame: Bytes) -> Result<(), Ended> {
        if !self.active.is_subscribed(self.id) {
            return Err(Ended);
        }
        self.outbox
            .push_of(&self.active.topic, frame, Class::Durable)
            .map_err(|_| Ended)
    }

    /// Returns the number of queued bytes below which a buffer fits. A buffer larger than half of
    /// the outbox waits until the outbox is empty.
    fn room_for(&self, bytes: usize) -> usize {
        if bytes + ENTRY_OVERHEAD_BYTES > self.half() {
            1
        } else {
            self.half()
        }
    }

    /// Returns the number of queued bytes below which the next page is read: there is room for most
    /// of it, or for a buffer that did not fit before.
    fn room_to_read(&self) -> usize {
        let page = self.shared.config.page_bytes.min(self.half() / 2);
        self.room_for(self.needed).saturating_sub(page).max(1)
    }

    /// The part of the outbox that is for catching up. The other half is for live records.
    fn half(&self) -> usize {
        (self.outbox.limits().bytes / 2).max(1)
    }

    async fn drained(&self, below: usize) -> Result<(), Ended> {
        if self.outbox.queued_bytes() >= below {
            // From here on the subscriber waits for its reader.
            self.permit.release();
        }
        loop {
            match timeout(STALL_CHECK_PERIOD, self.outbox.drained_below(below)).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(_)) => return Err(Ended),
                Err(_) if self.active.is_subscribed(self.id) => {}
                Err(_) => return Err(Ended),
            }
        }
    }
}
