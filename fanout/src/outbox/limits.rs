//! What outboxes may hold, each and together.

use std::sync::Arc;
use std::time::Duration;

use super::Excess;
use crate::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// The bounds of a node's outboxes, and what they hold together. Shared by all of them.
///
/// When the node's outboxes hold more than `total` bytes, an outbox that is pushed to (or checked) while it holds more than the
/// average of those that hold anything is ended. At least one of them holds as much as the average, so the total comes down, the slowest first.
#[derive(Debug)]
pub struct Limits {
    /// Bytes that one outbox may queue, each frame with [`ENTRY`](super::ENTRY) more; an empty one takes any one frame. `usize::MAX` for no bound.
    pub bytes: usize,
    /// How long a frame may wait. [`Duration::MAX`] for no bound.
    pub age: Duration,
    /// Bytes that all outboxes may queue, counted in the same way. `usize::MAX` for no bound.
    pub total: usize,
    held: AtomicUsize,
    holders: AtomicUsize,
    dropped: AtomicU64,
    too_slow: [AtomicU64; 3],
}

/// What the outboxes that share [`Limits`] hold and did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Bytes that wait now, each frame with [`ENTRY`](super::ENTRY) more.
    pub queued_bytes: usize,
    /// Outboxes in which something waits now.
    pub queues: usize,
    /// Droppable frames given up, and droppable and control frames replaced by a newer one.
    pub dropped: u64,
    /// Outboxes ended for their bytes, their age, and the total.
    pub too_slow: [u64; 3],
}

impl Limits {
    /// Bounds for the outboxes of a node.
    pub fn new(bytes: usize, age: Duration, total: usize) -> Arc<Self> {
        Arc::new(Self {
            bytes,
            age,
            total,
            held: AtomicUsize::new(0),
            holders: AtomicUsize::new(0),
            dropped: AtomicU64::new(0),
            too_slow: Default::default(),
        })
    }

    /// What they hold and did so far.
    pub fn counts(&self) -> Counts {
        Counts {
            queued_bytes: self.held.load(Ordering::Relaxed),
            queues: self.holders.load(Ordering::Relaxed),
            dropped: self.dropped.load(Ordering::Relaxed),
            too_slow: [0, 1, 2].map(|i: usize| self.too_slow[i].load(Ordering::Relaxed)),
        }
    }

    pub(super) fn hold(&self, before: usize, bytes: usize) {
        self.held.fetch_add(bytes, Ordering::Relaxed);
        if before == 0 && bytes > 0 {
            self.holders.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn release(&self, after: usize, bytes: usize) {
        self.held.fetch_sub(bytes, Ordering::Relaxed);
        if after == 0 && bytes > 0 {
            self.holders.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Whether all hold too much and one with so many bytes is among those that hold the most.
    pub(super) fn is_overdrawn_by(&self, bytes: usize) -> bool {
        let held = self.held.load(Ordering::Relaxed);
        held > self.total && bytes >= held / self.holders.load(Ordering::Relaxed).max(1)
    }

    pub(super) fn count_dropped(&self, frames: u64) {
        if frames > 0 {
            self.dropped.fetch_add(frames, Ordering::Relaxed);
        }
    }

    pub(super) fn count_too_slow(&self, excess: Excess) {
        self.too_slow[excess as usize].fetch_add(1, Ordering::Relaxed);
    }
}
