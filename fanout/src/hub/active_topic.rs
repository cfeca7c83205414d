//! A topic that this node listens to. Its position and its subscribers advance together, under one
//! lock.

use std::fmt;
use std::sync::{Arc, Weak};

use super::shared::{Shared, TopicKind};
use super::subscribers::{SubscriberId, SubscriberSnapshot, SubscriberState};
use super::topic_state::{TopicMembership, TopicState};
use crate::digest::{DigestLine, topic_hash};
use crate::record::Record;
use crate::sync::{Mutex, MutexGuard};
use crate::{Outbox, Position, Topic};

pub(super) struct ActiveTopic {
    pub(super) topic: Topic,
    pub(super) kind: TopicKind,
    /// The topic's hash in digests.
    pub(super) hash: u64,
    /// Weak, to avoid a cycle: the bus holds topics, and a source may hold the bus.
    shared: Weak<Shared>,
    pub(super) state: Mutex<TopicState>,
}

/// Which topics to compare with the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ComparedTopics {
    /// Topics that may have missed records.
    Suspects,
    /// Every topic.
    All,
}

/// A position that is to be compared with the log's head.
pub(super) struct PositionToCompare {
    pub(super) position: Position,
    /// Whether the bus reported a loss, which subscribers learn after the comparison.
    pub(super) is_loss_reported: bool,
}

/// The next step of a subscriber that is catching up.
pub(super) enum CatchUpStep {
    /// It is live.
    Live,
    /// It was evicted or has unsubscribed.
    Ended,
    /// It delivers these records.
    Recent(Vec<Record>),
    /// It reads the log.
    ReadLog,
    /// Its cursor is beyond the topic's position.
    Ahead,
    /// It waits until all frames of an earlier subscription of the same outbox are pushed.
    Wait,
}

impl ActiveTopic {
    pub(super) fn new(topic: Topic, kind: TopicKind, shared: &Arc<Shared>) -> Arc<Self> {
        Arc::new(Self {
            hash: topic_hash(&topic),
            topic,
            kind,
            shared: Arc::downgrade(shared),
            state: Mutex::new(TopicState::new(&shared.budget)),
        })
    }

    /// Returns the shared state of the hub; `None` after the hub was dropped.
    pub(super) fn shared(&self) -> Option<Arc<Shared>> {
        self.shared.upgrade()
    }

    /// Adds a subscriber and returns whether the bus has confirmed the topic; `None` if the topic
    /// is being removed.
    pub(super) fn subscribe(&self, outbox: &Arc<Outbox>) -> Option<(SubscriberId, bool)> {
        let mut state = self.state.lock();
        if state.membership == TopicMembership::Removed {
            return None;
        }
        let subscriber = state.subscribers.insert(Arc::clone(outbox));
        state.update_ring();
        Some((subscriber, state.membership == TopicMembership::Confirmed))
    }

    /// Notes that the bus has confirmed the topic.
    pub(super) fn confirm(&self) {
        let mut state = self.state.lock();
        if state.membership == TopicMembership::Unconfirmed {
            state.membership = TopicMembership::Confirmed;
        }
    }

    pub(super) fn is_subscribed(&self, subscriber: SubscriberId) -> bool {
        self.state.lock().subscribers.get(subscriber).is_some()
    }

    pub(super) fn unsubscribe(&self, subscriber: SubscriberId) {
        let mut state = self.state.lock();
        if !state.remove(subscriber) {
            return;
        }
        state.update_ring();
        self.subscribers_removed(state, 1);
    }

    /// Reports to the hub that `count` subscribers were removed, and whether none is left.
    pub(super) fn subscribers_removed(&self, mut state: MutexGuard<'_, TopicState>, count: usize) {
        let is_idle = count > 0 && state.subscribers.count() == 0;
        state.idle_epoch = state.idle_epoch.wrapping_add(u32::from(is_idle));
        let epoch = state.idle_epoch;
        drop(state);
        if let Some(shared) = self.shared() {
            shared.subscribers_removed(&self.topic, count, is_idle.then_some(epoch));
        }
    }

    /// Marks the topic as removed if it has been idle since `epoch`. Returns whether it did.
    pub(super) fn remove_if_idle(&self, epoch: u32) -> bool {
        let mut state = self.state.lock();
        let is_idle = state.subscribers.count() == 0
            && state.idle_epoch == epoch
            && state.membership != TopicMembership::Removed;
        if is_idle {
            state.membership = TopicMembership::Removed;
        }
        is_idle
    }

    pub(super) fn snapshot(&self) -> SubscriberSnapshot {
        self.state.lock().subscribers.snapshot()
    }

    /// Sets the head at which a subscriber that is catching up was admitted again.
    pub(super) fn set_admitted(&self, subscriber: SubscriberId, head: Position) {
        let mut state = self.state.lock();
        if let Some(SubscriberState::CatchingUp {
            has_task, is_held, ..
        }) = state.subscribers.get(subscriber).map(|s| s.state)
        {
            state.subscribers.set_state(
                subscriber,
                SubscriberState::CatchingUp {
                    head: head.seq,
                    has_task,
                    is_held,
                },
            );
        }
    }

    /// Notes that the catch-up task of a subscriber ended and pushes nothing more.
    pub(super) fn catch_up_ended(&self, subscriber: SubscriberId) {
        let mut state = self.state.lock();
        match state.subscribers.get(subscriber).map(|s| s.state) {
            Some(SubscriberState::CatchingUp { head, is_held, .. }) => {
                state.subscribers.set_state(
                    subscriber,
                    SubscriberState::CatchingUp {
                        head,
                        has_task: false,
                        is_held,
                    },
                );
            }
            Some(_) => {}
            None => state
                .removed_with_task
                .retain(|(removed, _)| *removed != subscriber),
        }
    }

    /// Makes a subscriber live if its cursor has reached the topic's position. Otherwise returns
    /// its next step.
    /// Up to the head at which it was admitted, a subscriber reads only the log: the log returns
    /// entities in their current state, and records from the bus may be older. A subscriber ahead
    /// of the topic keeps catching up until the topic reaches it. The history may have been
    /// replaced in between, so the events that the topic will deliver up to the cursor are not
    /// known yet.
    pub(super) fn catch_up(&self, subscriber: SubscriberId, cursor: Position) -> CatchUpStep {
        let mut state = self.state.lock();
        let Some(entry) = state.subscribers.get(subscriber) else {
            return CatchUpStep::Ended;
        };
        if state.has_undelivered(&entry.outbox) {
            return CatchUpStep::Wait;
        }
        let SubscriberState::CatchingUp {
            head,
            has_task,
            is_held,
        } = entry.state
        else {
            return CatchUpStep::Ended;
        };
        if is_held {
            entry.outbox.unmute(&self.topic);
            state.subscribers.set_state(
                subscriber,
                SubscriberState::CatchingUp {
                    head,
                    has_task,
                    is_held: false,
                },
            );
        }
        if cursor.seq < head {
            return CatchUpStep::ReadLog;
        }
        let position = state.position_or_set(cursor);
        if position == cursor {
            state
                .subscribers
                .set_state(subscriber, SubscriberState::Live { after: cursor.seq });
            state.update_ring();
            return CatchUpStep::Live;
        }
        match state.ring.as_ref().and_then(|ring| ring.after(cursor)) {
            Some(records) => CatchUpStep::Recent(records),
            None if position.seq < cursor.seq => CatchUpStep::Ahead,
            None => CatchUpStep::ReadLog,
        }
    }

    /// Notes that records may have been missed.
    pub(super) fn mark_suspect(&self) {
        self.state.lock().is_suspect = true;
    }

    /// Notes that the bus may have lost records.
    pub(super) fn mark_loss(&self) {
        let mut state = self.state.lock();
        (state.is_suspect, state.is_loss_reported) = (true, true);
    }

    /// Marks the topic as suspect if the line of a digest does not agree with its position.
    /// Returns whether it did. Whether records were missed, only the log's head tells: the line may
    /// be of another topic with the same hash.
    pub(super) fn check_line(&self, line: &DigestLine) -> bool {
        if self.kind == TopicKind::Passing {
            return false;
        }
        let mut state = self.state.lock();
        if state.subscribers.count() == 0 {
            return false;
        }
        let agrees = match (state.position, line.position) {
            (Some(position), Some(committed)) if !state.is_recovering => {
                position == committed || position.seq > committed.seq
            }
            _ => false,
        };
        state.is_suspect |= !agrees;
        !agrees
    }

    /// Returns whether the topic is one of those, and whether it had durable records since the last
    /// comparison.
    pub(super) fn is_compared(&self, which: ComparedTopics) -> Option<bool> {
        let state = self.state.lock();
        let is_compared = state.position.is_some()
            && !state.is_recovering
            && self.kind != TopicKind::Passing
            && state.subscribers.count() > 0
            && (which == ComparedTopics::All || state.is_suspect);
        is_compared.then_some(state.is_busy)
    }

    /// Returns the position if it is to be compared with the log.
    pub(super) fn position_to_compare(&self, which: ComparedTopics) -> Option<PositionToCompare> {
        self.is_compared(which)?;
        let mut state = self.state.lock();
        let position = state.position?;
        (state.is_busy, state.is_suspect) = (false, false);
        Some(PositionToCompare {
            position,
            is_loss_reported: std::mem::take(&mut state.is_loss_reported),
        })
    }
}

impl fmt::Debug for ActiveTopic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ActiveTopic")
            .field("topic", &self.topic)
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}
