//! How many messages are in flight: so many leave together, and the next ones when every subscriber has all of them.
//!
//! Together, since clients that share a machine with the node are slower than it: where each place were filled again as it
//! became free, messages would come one by one, whatever their number in flight, and the node would have none to merge.

use std::{
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
    time::Duration,
};

use tokio::{sync::Notify, time::timeout};

use crate::{pace::Clock, room::Pacing, verify::Index};

/// The messages in flight.
pub(super) struct Window {
    clock: Clock,
    subscribers: u32,
    /// Message n has the slot n % len.
    slots: Vec<Slot>,
    freed: Notify,
}

struct Slot {
    delivered: AtomicU32,
    began: AtomicU64,
}

impl Window {
    pub(super) fn new(in_flight: usize, subscribers: usize, clock: Clock) -> Self {
        let subscribers = u32::try_from(subscribers).unwrap_or(u32::MAX);
        let slot = || Slot {
            delivered: subscribers.into(),
            began: AtomicU64::default(),
        };
        Self {
            clock,
            subscribers,
            slots: (0..in_flight).map(|_| slot()).collect(),
            freed: Notify::new(),
        }
    }

    /// Waits until this message may leave, and notes that it does. False if those before it did not get through in time.
    pub(super) async fn admits(&self, message: Index, limit: Duration) -> bool {
        if self.is_first(message) && !self.empties(limit).await {
            return false;
        }
        let slot = self.slot(message);
        slot.began.store(self.clock.now(), Ordering::Relaxed);
        slot.delivered.store(0, Ordering::Release);
        true
    }

    /// Waits until nothing is in flight; false if that takes too long.
    pub(super) async fn empties(&self, limit: Duration) -> bool {
        while self
            .slots
            .iter()
            .any(|slot| slot.delivered.load(Ordering::Acquire) < self.subscribers)
        {
            if timeout(limit, self.freed.notified()).await.is_err() {
                return false;
            }
        }
        true
    }

    /// Whether this message is the first of those that leave together.
    pub(super) fn is_first(&self, message: Index) -> bool {
        (message as usize).is_multiple_of(self.slots.len())
    }

    fn slot(&self, message: Index) -> &Slot {
        &self.slots[message as usize % self.slots.len()]
    }
}

impl Pacing for Window {
    fn due(&self, message: Index) -> u64 {
        self.slot(message).began.load(Ordering::Relaxed)
    }

    fn delivered(&self, message: Index) {
        if self.slot(message).delivered.fetch_add(1, Ordering::AcqRel) + 1 == self.subscribers {
            self.freed.notify_one();
        }
    }

    fn refused(&self, message: Index) {
        self.slot(message)
            .delivered
            .store(self.subscribers, Ordering::Release);
        self.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    const SOON: Duration = Duration::from_millis(20);

    #[tokio::test]
    async fn messages_leave_together_when_every_subscriber_has_those_before() {
        let window = Window::new(2, 3, Clock::starting(Instant::now()));
        assert!(window.admits(0, SOON).await && window.admits(1, SOON).await);
        (0..2).for_each(|_| window.delivered(0));
        (0..3).for_each(|_| window.delivered(1));
        assert!(!window.admits(2, SOON).await);
        window.delivered(0);
        assert!(window.admits(2, SOON).await && window.admits(3, SOON).await);
        assert!(!window.empties(SOON).await);
        window.refused(2);
        window.refused(3);
        assert!(window.empties(SOON).await);
    }
}
