//! The bounds of outboxes, each and together.

use std::sync::Arc;
use std::time::Duration;

use super::frame::Excess;
use crate::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// The bounds and the totals of a node's outboxes, which share one.
///
/// While the outboxes hold more than `total` bytes, each outbox that is pushed to or checked ends
/// if it holds at least the average of the outboxes that are not empty. So the total falls, slowest
/// readers first.
#[derive(Debug)]
pub struct OutboxLimits {
    /// Maximum bytes that one outbox queues, with
    /// [`ENTRY_OVERHEAD_BYTES`](super::ENTRY_OVERHEAD_BYTES) per frame. An empty outbox accepts a
    /// frame of any size. `usize::MAX` for no bound.
    pub bytes: usize,
    /// Maximum age of a queued frame. [`Duration::MAX`] for no bound.
    pub age: Duration,
    /// Maximum bytes that all outboxes queue, counted in the same way. `usize::MAX` for no bound.
    pub total: usize,
    held: AtomicUsize,
    holders: AtomicUsize,
    dropped: AtomicU64,
    too_slow: [AtomicU64; 3],
}

/// Gauges and counters of the outboxes that share [`OutboxLimits`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OutboxCounts {
    /// Queued bytes, with [`ENTRY_OVERHEAD_BYTES`](super::ENTRY_OVERHEAD_BYTES) per frame.
    pub queued_bytes: usize,
    /// Outboxes that are not empty.
    pub queues: usize,
    /// Droppable frames that were dropped, and droppable and control frames that were replaced by a
    /// newer one.
    pub dropped: u64,
    /// Outboxes that ended by their bytes, their age, and the total.
    pub too_slow: [u64; 3],
}

impl OutboxLimits {
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

    /// Returns the gauges and counters.
    pub fn counts(&self) -> OutboxCounts {
        OutboxCounts {
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

    /// Returns whether the total is exceeded and an outbox with `bytes` holds at least the average.
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
