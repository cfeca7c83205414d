//! What a feed knows under its lock, and how a record continues its position.

use std::collections::VecDeque;
use std::sync::Arc;

use super::ring::Ring;
use super::seats::{Seats, Standing, Ticket};
use crate::record::Record;
use crate::{Outbox, Position};

/// Reads that may find less than the bus has announced, before the announcement is taken for a write that was lost.
const PATIENCE: u32 = 5;

/// Records that may wait for the broadcaster, and their bytes: what is beyond is read from the log.
const WAITING: usize = 4_096;
const WAITING_BYTES: usize = 4 << 20;

/// Records that the bus brought and nobody was told yet, the newest of them.
#[derive(Default)]
pub(super) struct Pending {
    records: VecDeque<Record>,
    bytes: usize,
}

impl Pending {
    /// Adds one. Where there are too many the oldest go. Whether the log has something that is not here any more.
    #[must_use]
    pub(super) fn push(&mut self, record: Record) -> bool {
        self.bytes += record.body.len();
        self.records.push_back(record);
        let mut is_lossy = false;
        while self.records.len() > WAITING || self.bytes > WAITING_BYTES {
            let Some(oldest) = self.records.pop_front() else {
                break;
            };
            self.bytes -= oldest.body.len();
            is_lossy |= oldest.is_durable();
        }
        is_lossy
    }

    /// Forgets durable ones, which may be of a history that is none any more. Whether there were any: those that are not are in the log.
    pub(super) fn forget_durable(&mut self) -> bool {
        let before = self.records.len();
        self.records.retain(|record| !record.is_durable());
        self.bytes = self.records.iter().map(|record| record.body.len()).sum();
        self.records.len() < before
    }

    /// What they take.
    #[cfg(all(test, not(shuttle)))]
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// All of them, in order.
    pub(super) fn take(&mut self) -> VecDeque<Record> {
        self.bytes = 0;
        std::mem::take(&mut self.records)
    }
}

/// How the feed stands with the bus.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Membership {
    #[default]
    Unconfirmed,
    Confirmed,
    /// Being removed: whoever finds it looks again.
    Gone,
}

/// The state of a feed.
#[derive(Default)]
pub(super) struct State {
    pub(super) seats: Seats,
    pub(super) membership: Membership,
    /// Counts how often the last subscriber left.
    pub(super) epoch: u32,
    /// The newest record told. `None` until somebody starts or something arrives.
    pub(super) position: Option<Position>,
    pub(super) pending: Pending,
    /// The broadcaster is at work.
    pub(super) broadcasting: bool,
    /// The log is read from the position on, and durable records from the bus wait.
    pub(super) repairing: bool,
    /// The `seq` of the record that began a repair, and how often the log did not have it.
    pub(super) announced: u64,
    pub(super) disappointed: u32,
    /// Something may have been missed; to be compared with the log's head.
    pub(super) doubtful: bool,
    /// Something durable came since the last comparison.
    pub(super) busy: bool,
    pub(super) ring: Option<Box<Ring>>,
    /// Those who left, or were ended, while a batch was on its way to them.
    pub(super) departed: Vec<usize>,
    /// Those who left, or were ended, while their pump was at work, and their outboxes.
    pub(super) pumped: Vec<(Ticket, usize)>,
}

impl State {
    /// The position, which is this one if there was none.
    pub(super) fn establish(&mut self, position: Position) -> Position {
        *self.position.get_or_insert(position)
    }

    /// Ends a subscription, whoever wishes it. Whether it was there.
    pub(super) fn dismiss(&mut self, ticket: Ticket) -> bool {
        let Some(seat) = self.seats.remove(ticket) else {
            return false;
        };
        let outbox = Arc::as_ptr(&seat.outbox).addr();
        match seat.standing {
            Standing::Live { .. } if self.broadcasting => self.departed.push(outbox),
            Standing::Behind {
                is_pumped: true, ..
            } => self.pumped.push((ticket, outbox)),
            _ => {}
        }
        true
    }

    /// Whether something may still be on its way to an earlier subscription of this outbox.
    pub(super) fn is_departing(&self, outbox: &Arc<Outbox>) -> bool {
        let outbox = Arc::as_ptr(outbox).addr();
        self.departed.contains(&outbox) || self.pumped.iter().any(|(_, pumped)| *pumped == outbox)
    }

    /// Whether a record from the bus is told: a passing one, or the next one. Durable ones are not asked about during a repair.
    pub(super) fn accept(&mut self, record: &Record, doubles: &mut u64) -> bool {
        if !record.is_durable() {
            return true;
        }
        let next = record.position;
        self.busy = true;
        match self.position {
            Some(position) if self.seats.count() > 0 => {
                // The store's clock never runs backwards in a topic: what is newer than this position and numbered
                // below it belongs to another history.
                let is_double =
                    next == position || (next.seq < position.seq && next.at <= position.at);
                let is_next = next.seq == position.seq + 1 && record.before == position.at;
                if is_next {
                    self.advance(record);
                } else if is_double {
                    *doubles += 1;
                } else {
                    self.start_repair();
                    self.announced = next.seq;
                }
                is_next
            }
            // Nobody was told anything yet.
            _ => {
                self.set_position(next);
                true
            }
        }
    }

    /// Whether a record from the log is told: the next one.
    pub(super) fn accept_logged(&mut self, record: &Record) -> bool {
        let is_next = self
            .position
            .is_some_and(|position| record.position.seq == position.seq + 1);
        if is_next {
            self.busy = true;
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

    /// Jumps to a position that does not continue the one before.
    pub(super) fn set_position(&mut self, position: Position) {
        self.position = Some(position);
        self.ring = None;
        self.keep_ring();
    }

    /// Keeps recent records while, and only while, somebody has to catch up with them.
    pub(super) fn keep_ring(&mut self) {
        if self.seats.unsettled() == 0 {
            self.ring = None;
        } else if let (None, Some(position)) = (&self.ring, self.position) {
            self.ring = Some(Box::new(Ring::new(position)));
        }
    }

    /// From now on the log is read, and what the bus brings waits.
    pub(super) fn start_repair(&mut self) {
        self.repairing = true;
        self.announced = 0;
        self.disappointed = 0;
    }

    /// Ends the repair if the position is the log's head, and the record that began it is there or was announced in vain.
    pub(super) fn close_repair(&mut self, head: Position) -> bool {
        let position = self.position.unwrap_or_default();
        let reached = position.seq >= head.seq;
        if reached && self.announced > position.seq {
            self.disappointed += 1;
        }
        // Something may have been missed since that read: it is read once more.
        let is_sure = reached && !std::mem::take(&mut self.doubtful);
        let is_over = is_sure && (self.announced <= position.seq || self.disappointed >= PATIENCE);
        self.repairing = !is_over;
        is_over
    }
}
