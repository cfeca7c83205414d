//! The state of a topic under its lock, and the rules by which a record continues its position.

use std::collections::VecDeque;
use std::sync::Arc;

use super::budget::{Account, Budget};
use super::ring::Ring;
use super::subscribers::{SubscriberId, SubscriberState, Subscribers};
use crate::record::Record;
use crate::{Outbox, Position};

/// Reads of the log without the record that started the recovery, after which the record is
/// considered a lost write.
const MAX_READS_WITHOUT_RECORD: u32 = 5;

/// Maximum records that wait for the broadcaster, and their bytes. Older ones are read from the
/// log.
const MAX_PENDING_RECORDS: usize = 4_096;
const MAX_PENDING_BYTES: usize = 4 << 20;

/// Records from the bus that were not delivered yet.
pub(super) struct Pending {
    records: VecDeque<Record>,
    account: Account,
}

impl Pending {
    fn new(account: Account) -> Self {
        Self {
            records: VecDeque::new(),
            account,
        }
    }

    /// Adds a record and drops the oldest ones beyond the limits. Returns whether a durable record
    /// was dropped.
    #[must_use]
    pub(super) fn push(&mut self, record: Record) -> bool {
        self.account.add(record.body.len());
        self.records.push_back(record);
        let mut is_lossy = false;
        while self.records.len() > MAX_PENDING_RECORDS
            || self.account.bytes() > MAX_PENDING_BYTES
            || self.account.is_overdrawn()
        {
            let Some(oldest) = self.records.pop_front() else {
                break;
            };
            self.account.subtract(oldest.body.len());
            is_lossy |= oldest.is_durable();
        }
        is_lossy
    }

    /// Removes durable records, which may belong to a superseded history. Returns whether there
    /// were any.
    pub(super) fn remove_durable(&mut self) -> bool {
        let before = self.records.len();
        self.records.retain(|record| !record.is_durable());
        self.account.clear();
        self.account
            .add(self.records.iter().map(|record| record.body.len()).sum());
        self.records.len() < before
    }

    #[cfg(all(test, not(shuttle)))]
    pub(super) fn bytes(&self) -> usize {
        self.account.bytes()
    }

    pub(super) fn take(&mut self) -> VecDeque<Record> {
        self.account.clear();
        std::mem::take(&mut self.records)
    }
}

/// Whether the topic is joined on the bus.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum TopicMembership {
    #[default]
    Unconfirmed,
    Confirmed,
    /// The topic is being left. Subscribers wait for its successor.
    Removed,
}

pub(super) struct TopicState {
    pub(super) subscribers: Subscribers,
    pub(super) membership: TopicMembership,
    /// Number of times that the last subscriber was removed.
    pub(super) idle_epoch: u32,
    /// The newest record delivered. `None` until a subscriber starts or a record arrives.
    pub(super) position: Option<Position>,
    pub(super) pending: Pending,
    /// Whether the broadcaster runs.
    pub(super) is_broadcasting: bool,
    /// Whether the topic reads the log. Durable records from the bus wait meanwhile.
    pub(super) is_recovering: bool,
    /// The `seq` of the record that started the recovery.
    announced_seq: u64,
    /// Reads that reached the log's head without that record.
    reads_without_record: u32,
    /// Whether records may have been missed, so that the position is to be compared with the log's
    /// head.
    pub(super) is_suspect: bool,
    /// Whether the bus reported so since the last comparison.
    pub(super) is_loss_reported: bool,
    /// Whether durable records arrived since the last comparison.
    pub(super) is_busy: bool,
    pub(super) ring: Option<Box<Ring>>,
    /// Addresses of the outboxes of live subscribers that were removed while a batch was being
    /// delivered.
    pub(super) removed_during_broadcast: Vec<usize>,
    /// Subscribers that were removed while their catch-up task ran, and the addresses of their
    /// outboxes.
    pub(super) removed_with_task: Vec<(SubscriberId, usize)>,
}

impl TopicState {
    pub(super) fn new(budget: &Arc<Budget>) -> Self {
        Self {
            subscribers: Subscribers::default(),
            membership: TopicMembership::default(),
            idle_epoch: 0,
            position: None,
            pending: Pending::new(budget.open()),
            is_broadcasting: false,
            is_recovering: false,
            announced_seq: 0,
            reads_without_record: 0,
            is_suspect: false,
            is_loss_reported: false,
            is_busy: false,
            ring: None,
            removed_during_broadcast: Vec::new(),
            removed_with_task: Vec::new(),
        }
    }

    /// Returns the position, after setting it to `position` if there was none.
    pub(super) fn position_or_set(&mut self, position: Position) -> Position {
        *self.position.get_or_insert(position)
    }

    /// Removes a subscriber. Returns whether it was there.
    pub(super) fn remove(&mut self, id: SubscriberId) -> bool {
        let Some(subscriber) = self.subscribers.remove(id) else {
            return false;
        };
        let outbox = Arc::as_ptr(&subscriber.outbox).addr();
        match subscriber.state {
            SubscriberState::Live { .. } if self.is_broadcasting => {
                self.removed_during_broadcast.push(outbox)
            }
            SubscriberState::CatchingUp { has_task: true, .. } => {
                self.removed_with_task.push((id, outbox))
            }
            _ => {}
        }
        true
    }

    /// Returns whether frames may still be pushed to this outbox for a subscription that was
    /// removed.
    pub(super) fn has_undelivered(&self, outbox: &Arc<Outbox>) -> bool {
        let outbox = Arc::as_ptr(outbox).addr();
        self.removed_during_broadcast.contains(&outbox)
            || self
                .removed_with_task
                .iter()
                .any(|(_, removed)| *removed == outbox)
    }

    /// Returns whether to deliver a record from the bus, and advances the position to it. Not
    /// called with durable records during a recovery.
    pub(super) fn accept(&mut self, record: &Record, duplicates: &mut u64) -> bool {
        if !record.is_durable() {
            return true;
        }
        let next = record.position;
        self.is_busy = true;
        match self.position {
            Some(position) if self.subscribers.count() > 0 => {
                // The store's clock never runs backwards within a topic: a record with a lower
                // number and a later time belongs to another history.
                let is_duplicate =
                    next == position || (next.seq < position.seq && next.at <= position.at);
                let is_next = next.seq == position.seq + 1 && record.before == position.at;
                if is_next {
                    self.advance(record);
                } else if is_duplicate {
                    *duplicates += 1;
                } else {
                    self.begin_recovery();
                    self.announced_seq = next.seq;
                }
                is_next
            }
            // Nothing was delivered yet.
            _ => {
                self.set_position(next);
                true
            }
        }
    }

    /// Returns whether to deliver a record from the log, and advances the position to it.
    pub(super) fn accept_logged(&mut self, record: &Record) -> bool {
        let is_next = self
            .position
            .is_some_and(|position| record.position.seq == position.seq + 1);
        if is_next {
            self.is_busy = true;
            self.advance(record);
        }
        is_next
    }

    fn advance(&mut self, record: &Record) {
        self.position = Some(record.position);
        if let Some(ring) = &mut self.ring {
            ring.push(record.clone());
        }
    }

    /// Moves to a position that does not continue the previous one.
    pub(super) fn set_position(&mut self, position: Position) {
        self.position = Some(position);
        self.ring = None;
        self.update_ring();
    }

    /// Keeps recent records only while a subscriber may have to catch up with them.
    pub(super) fn update_ring(&mut self) {
        if self.subscribers.not_live() == 0 {
            self.ring = None;
        } else if let (None, Some(position)) = (&self.ring, self.position) {
            self.ring = Some(Box::new(Ring::new(position, self.pending.account.open())));
        }
    }

    pub(super) fn begin_recovery(&mut self) {
        self.is_recovering = true;
        self.announced_seq = 0;
        self.reads_without_record = 0;
    }

    /// Ends the recovery if the position is the log's head and the record that started it was read,
    /// or is considered lost. Returns whether it ended.
    pub(super) fn finish_recovery(&mut self, head: Position) -> bool {
        let position = self.position.unwrap_or_default();
        let reached = position.seq >= head.seq;
        if reached && self.announced_seq > position.seq {
            self.reads_without_record += 1;
        }
        // Records may have been missed since that read: read once more.
        let is_certain = reached && !std::mem::take(&mut self.is_suspect);
        let is_finished = is_certain
            && (self.announced_seq <= position.seq
                || self.reads_without_record >= MAX_READS_WITHOUT_RECORD);
        self.is_recovering = !is_finished;
        is_finished
    }
}
