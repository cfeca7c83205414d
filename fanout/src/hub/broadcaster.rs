//! Delivery of a topic's records by one serial task, which exists only while there is something to
//! deliver or to recover.
//!
//! Each step is decided under the topic's lock. Nothing is read or written while that is held.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;

use super::active_topic::ActiveTopic;
use super::batch::{BatchContent, RecordBatch};
use super::shared::{Counters, ReadPermit, ReplayPage, Shared, TopicKind, backoff};
use super::subscribers::{SubscriberId, SubscriberSnapshot, SubscriberState};
use super::topic_state::TopicState;
use crate::record::{Control, Record};
use crate::sync::{MutexGuard, sleep};
use crate::{Continuity, Gap, Outbox, Position, Replay, Source, SourceError};

/// The next actions of the broadcaster. If both are due, it does both, so that neither delays the
/// other.
struct Step {
    deliver: Option<RecordBatch>,
    recover: Option<Position>,
}

/// The result of applying a page of the log to a recovery.
enum Recovered {
    /// There is something to deliver, and perhaps more to read.
    Deliver(RecordBatch),
    /// The log has nothing new yet.
    Retry,
}

/// The state in which a subscriber starts.
pub(super) enum Started {
    Live,
    CatchingUp(Arc<Outbox>),
    Ended,
}

/// Takes a record from the bus.
pub(super) fn receive(active: &Arc<ActiveTopic>, record: Record) {
    let mut state = active.state.lock();
    let is_lossy = state.pending.push(record);
    state.is_suspect |= is_lossy;
    ensure_running(active, &mut state);
}

/// Starts a subscriber that was admitted at `head` and has everything up to `cursor`.
pub(super) fn start(
    active: &Arc<ActiveTopic>,
    subscriber: SubscriberId,
    cursor: Position,
    head: Position,
) -> Started {
    let mut state = active.state.lock();
    let Some(entry) = state.subscribers.get(subscriber) else {
        return Started::Ended;
    };
    let outbox = Arc::clone(&entry.outbox);
    if matches!(entry.state, SubscriberState::Joining { evicted } if evicted > head.seq) {
        state.subscribers.remove(subscriber);
        state.update_ring();
        active.subscribers_removed(state, 1);
        outbox.notify_ended_subscription();
        return Started::Ended;
    }
    if active.kind == TopicKind::Passing {
        state
            .subscribers
            .set_state(subscriber, SubscriberState::Live { after: 0 });
        return Started::Live;
    }
    let position = state.position_or_set(head);
    let is_other_history = position.seq == head.seq && position.at != head.at;
    let is_held = state.has_undelivered(&outbox);
    if !is_held {
        outbox.unmute(&active.topic);
    }
    let is_current = cursor == head && position == head && !is_held;
    let new_state = match is_current {
        true => SubscriberState::Live { after: head.seq },
        false => SubscriberState::CatchingUp {
            head: head.seq,
            has_task: true,
            is_held,
        },
    };
    state.subscribers.set_state(subscriber, new_state);
    state.update_ring();
    if std::mem::take(&mut state.is_suspect) || is_other_history {
        recover_locked(active, &mut state);
    }
    if is_current {
        Started::Live
    } else {
        Started::CatchingUp(outbox)
    }
}

/// Starts a recovery if the log's head differs from the position that was compared, or is beyond
/// the current one.
pub(super) fn compare(active: &Arc<ActiveTopic>, compared: Position, head: Position) {
    let mut state = active.state.lock();
    let differs = state.position.is_some_and(|position| {
        if position == compared {
            head != compared
        } else {
            head.seq > position.seq
        }
    });
    if differs {
        recover_locked(active, &mut state);
    }
}

/// Starts a recovery, unless one is running.
pub(super) fn recover(active: &Arc<ActiveTopic>) {
    recover_locked(active, &mut active.state.lock());
}

fn recover_locked(active: &Arc<ActiveTopic>, state: &mut TopicState) {
    if !state.is_recovering {
        state.begin_recovery();
        ensure_running(active, state);
    }
}

fn ensure_running(active: &Arc<ActiveTopic>, state: &mut TopicState) {
    if state.is_broadcasting {
        return;
    }
    if let Some(shared) = active.shared() {
        state.is_broadcasting = true;
        let active = Arc::clone(active);
        shared
            .runtime
            .clone()
            .spawn(async move { run(&active, &shared).await });
    }
}

async fn run(active: &ActiveTopic, shared: &Shared) {
    let reset = ResetOnPanic(active);
    let mut attempts = 0;
    while let Some(step) = next_step(active, shared) {
        if let Some(batch) = step.deliver {
            deliver(active, shared, batch).await;
        }
        match step.recover {
            Some(position) => {
                attempts = read_for_recovery(active, shared, position, attempts).await
            }
            None => attempts = 0,
        }
    }
    std::mem::forget(reset);
}

/// Lets the next record start a new broadcaster if this one panicked or was dropped.
struct ResetOnPanic<'a>(&'a ActiveTopic);

impl Drop for ResetOnPanic<'_> {
    fn drop(&mut self) {
        // The model checker drops running tasks at the end of a check, others while they hold the
        // lock. A panic ends a check.
        if cfg!(shuttle) {
            return;
        }
        if std::thread::panicking() {
            tracing::error!(topic = %self.0.topic, "the broadcaster panicked, the topic will recover from the log");
        }
        let mut state = self.0.state.lock();
        state.is_broadcasting = false;
        state.is_recovering = false;
        state.is_suspect = true;
        state.removed_during_broadcast = Vec::new();
    }
}

async fn deliver(active: &ActiveTopic, shared: &Shared, batch: RecordBatch) {
    let is_gap = matches!(batch.content, BatchContent::Gap(..));
    let frames = batch.deliver(&active.topic, &*shared.source).await;
    Counters::add(&shared.counters.deliveries, frames);
    if is_gap {
        Counters::add(&shared.counters.gaps, 1);
        report_loss(active, &*shared.source);
    }
}

/// Reports a loss to the source, for each subscriber.
pub(super) fn report_loss(active: &ActiveTopic, source: &dyn Source) {
    if !source.observes_loss(&active.topic) {
        return;
    }
    for (_, subscriber) in active.snapshot().iter() {
        source.after_loss(&active.topic, &subscriber.outbox);
    }
}

/// Reads and applies one page. Returns the number of consecutive reads that brought nothing.
async fn read_for_recovery(
    active: &ActiveTopic,
    shared: &Shared,
    position: Position,
    attempts: u32,
) -> u32 {
    Counters::add(&shared.counters.recoveries, 1);
    match read_page(active, shared, position).await {
        Ok((Recovered::Deliver(batch), _permit)) => {
            deliver(active, shared, batch).await;
            return 0;
        }
        Ok((Recovered::Retry, _)) => {}
        Err(error) if attempts == 0 => {
            tracing::warn!(topic = %active.topic, %error, "cannot read the log, topic will retry")
        }
        Err(error) => {
            tracing::debug!(topic = %active.topic, %error, attempts, "cannot read the log, topic will retry")
        }
    }
    sleep(backoff(attempts)).await;
    attempts.saturating_add(1)
}

/// The permit is for the records of the page.
async fn read_page<'a>(
    active: &ActiveTopic,
    shared: &'a Shared,
    position: Position,
) -> Result<(Recovered, Option<ReadPermit<'a>>), SourceError> {
    let ReplayPage { replay, permit } = shared
        .read(&active.topic, position, usize::MAX, || {})
        .await?;
    let mut permit = Some(permit);
    let removed_subjects = match replay.continuity {
        Continuity::Continuous => HashSet::new(),
        Continuity::Broken(_) => {
            // The page has no records.
            permit = None;
            let snapshot = active.snapshot();
            let subjects: HashSet<Bytes> = snapshot
                .iter()
                .map(|(_, subscriber)| Bytes::copy_from_slice(subscriber.outbox.subject()))
                .collect();
            shared
                .removed_subjects(&active.topic, subjects.into_iter().collect())
                .await?
        }
    };
    Ok((apply_page(active, replay, &removed_subjects), permit))
}

/// Decides the next step. `None` ends the broadcaster.
fn next_step(active: &ActiveTopic, shared: &Shared) -> Option<Step> {
    let mut state = active.state.lock();
    state.removed_during_broadcast = Vec::new();
    let mut duplicates = 0;
    let mut records = Vec::new();
    for record in state.pending.take() {
        if active.kind == TopicKind::Passing {
            records.push(record);
        } else if state.is_recovering && record.is_durable() {
            let is_lossy = state.pending.push(record);
            state.is_suspect |= is_lossy;
        } else if state.accept(&record, &mut duplicates) {
            records.push(record);
        }
    }
    if duplicates > 0 {
        Counters::add(&shared.counters.duplicates, duplicates);
    }
    if state.is_recovering && state.subscribers.count() == 0 {
        // Without subscribers there is nothing to recover: the next subscriber brings a position.
        state.position = None;
        state.is_recovering = false;
        state.pending.take();
    }
    let recover = state.position.filter(|_| state.is_recovering);
    if records.is_empty() && recover.is_none() {
        state.is_broadcasting = false;
        return None;
    }
    let deliver =
        (!records.is_empty()).then(|| make_batch(active, state, BatchContent::FromBus(records)));
    Some(Step { deliver, recover })
}

/// Takes a snapshot of the subscribers, and ends the subscriptions that the records end.
fn make_batch(
    active: &ActiveTopic,
    state: MutexGuard<'_, TopicState>,
    content: BatchContent,
) -> RecordBatch {
    let (subscribers, encodings) = (state.subscribers.snapshot(), state.subscribers.encodings());
    drop(state);
    for record in content.records() {
        let seq = if record.is_durable() {
            record.position.seq
        } else {
            u64::MAX
        };
        match &record.control {
            Control::Evict(evicted) => {
                end_subscriptions(active, &subscribers, |subject| subject == evicted, seq)
            }
            Control::Close => end_subscriptions(active, &subscribers, |_| true, seq),
            Control::None | Control::Except(_) => {}
        }
    }
    RecordBatch {
        content,
        subscribers,
        encodings,
    }
}

/// Ends the subscriptions of matching subjects that were admitted before `seq`. Subscribers that
/// are not in the snapshot were admitted later.
fn end_subscriptions(
    active: &ActiveTopic,
    snapshot: &SubscriberSnapshot,
    matches: impl Fn(&[u8]) -> bool,
    seq: u64,
) {
    let matching: Vec<_> = snapshot
        .iter()
        .filter(|(_, subscriber)| matches(subscriber.outbox.subject()))
        .collect();
    if matching.is_empty() {
        return;
    }
    let mut ended = Vec::new();
    let mut state = active.state.lock();
    for (id, subscriber) in matching {
        match state.subscribers.get(id).map(|subscriber| subscriber.state) {
            Some(SubscriberState::Joining { evicted }) => {
                state.subscribers.set_state(
                    id,
                    SubscriberState::Joining {
                        evicted: evicted.max(seq),
                    },
                );
            }
            Some(
                SubscriberState::CatchingUp { head: known, .. }
                | SubscriberState::Live { after: known },
            ) if known < seq && state.remove(id) => ended.push(&subscriber.outbox),
            _ => {}
        }
    }
    state.update_ring();
    active.subscribers_removed(state, ended.len());
    for outbox in ended {
        outbox.notify_ended_subscription();
    }
}

/// Applies a page of the log to a recovery. `removed_subjects` are evicted if the log does not
/// continue.
fn apply_page(
    active: &ActiveTopic,
    replay: Replay,
    removed_subjects: &HashSet<Bytes>,
) -> Recovered {
    let mut state = active.state.lock();
    let Some(position) = state.position else {
        return Recovered::Retry;
    };
    if let Continuity::Broken(gap) = replay.continuity {
        state.set_position(replay.head);
        if gap == Gap::Diverged {
            let had_durable = state.pending.remove_durable();
            state.is_suspect |= had_durable;
        }
        state.finish_recovery(replay.head);
        let snapshot = state.subscribers.snapshot();
        drop(state);
        let is_other_history = gap == Gap::Diverged;
        let seq = if is_other_history {
            u64::MAX
        } else {
            replay.head.seq
        };
        end_subscriptions(
            active,
            &snapshot,
            |subject| removed_subjects.contains(subject),
            seq,
        );
        let mut state = active.state.lock();
        if is_other_history {
            state.subscribers.lower(replay.head.seq);
        }
        return Recovered::Deliver(make_batch(
            active,
            state,
            BatchContent::Gap(gap, replay.head),
        ));
    }
    let records: Vec<Record> = replay
        .records
        .into_iter()
        .filter(|record| state.accept_logged(record))
        .collect();
    if records.is_empty() && replay.head.seq > position.seq {
        return Recovered::Retry;
    }
    let is_finished = state.finish_recovery(replay.head);
    match records.is_empty() && !is_finished {
        true => Recovered::Retry,
        false => Recovered::Deliver(make_batch(active, state, BatchContent::FromLog(records))),
    }
}
