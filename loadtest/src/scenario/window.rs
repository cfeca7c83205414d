//! The window of messages in flight: a batch of messages is sent together, and the next batch when
//! every subscriber has received all of it.
//!
//! Not a sliding window: clients that share a machine with the node are slower than the node, so
//! single messages would follow each other and the node would never have several frames to merge.

use std::{
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
    time::Duration,
};

use tokio::{sync::Notify, time::timeout};

use crate::{channel::MessageTiming, schedule::RunClock, verify::MessageIndex};

/// The window of messages in flight.
pub(super) struct SendWindow {
    clock: RunClock,
    subscribers: u32,
    /// Message `n` uses slot `n % slots.len()`.
    slots: Vec<WindowSlot>,
    emptied: Notify,
}

struct WindowSlot {
    delivered: AtomicU32,
    sent_at: AtomicU64,
}

impl SendWindow {
    pub(super) fn new(in_flight: usize, subscribers: usize, clock: RunClock) -> Self {
        let subscribers = u32::try_from(subscribers).unwrap_or(u32::MAX);
        let slot = || WindowSlot {
            delivered: subscribers.into(),
            sent_at: AtomicU64::default(),
        };
        Self {
            clock,
            subscribers,
            slots: (0..in_flight).map(|_| slot()).collect(),
            emptied: Notify::new(),
        }
    }

    /// Waits until this message may be sent, and records that it is. Returns false if the batch
    /// before it was not delivered within `limit`.
    pub(super) async fn admit(&self, message: MessageIndex, limit: Duration) -> bool {
        if self.is_first(message) && !self.wait_until_empty(limit).await {
            return false;
        }
        let slot = self.slot(message);
        slot.sent_at.store(self.clock.now(), Ordering::Relaxed);
        slot.delivered.store(0, Ordering::Release);
        true
    }

    /// Waits until no message is in flight. Returns false after `limit` without progress.
    pub(super) async fn wait_until_empty(&self, limit: Duration) -> bool {
        while self
            .slots
            .iter()
            .any(|slot| slot.delivered.load(Ordering::Acquire) < self.subscribers)
        {
            if timeout(limit, self.emptied.notified()).await.is_err() {
                return false;
            }
        }
        true
    }

    /// Whether this message is the first of a batch.
    pub(super) fn is_first(&self, message: MessageIndex) -> bool {
        (message as usize).is_multiple_of(self.slots.len())
    }

    fn slot(&self, message: MessageIndex) -> &WindowSlot {
        &self.slots[message as usize % self.slots.len()]
    }
}

impl MessageTiming for SendWindow {
    fn due(&self, message: MessageIndex) -> u64 {
        self.slot(message).sent_at.load(Ordering::Relaxed)
    }

    fn delivered(&self, message: MessageIndex) {
        if self.slot(message).delivered.fetch_add(1, Ordering::AcqRel) + 1 == self.subscribers {
            self.emptied.notify_one();
        }
    }

    fn refused(&self, message: MessageIndex) {
        self.slot(message)
            .delivered
            .store(self.subscribers, Ordering::Release);
        self.emptied.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    const SOON: Duration = Duration::from_millis(20);

    #[tokio::test]
    async fn next_batch_is_admitted_when_every_subscriber_has_the_previous_one() {
        let window = SendWindow::new(2, 3, RunClock::starting(Instant::now()));
        assert!(window.admit(0, SOON).await && window.admit(1, SOON).await);
        (0..2).for_each(|_| window.delivered(0));
        (0..3).for_each(|_| window.delivered(1));
        assert!(!window.admit(2, SOON).await);
        window.delivered(0);
        assert!(window.admit(2, SOON).await && window.admit(3, SOON).await);
        assert!(!window.wait_until_empty(SOON).await);
        window.refused(2);
        window.refused(3);
        assert!(window.wait_until_empty(SOON).await);
    }
}
