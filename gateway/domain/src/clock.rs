//! The clock of a node: estimates the store's clock, and measures ages of caches.

use std::{
    sync::atomic::{AtomicI64, AtomicU64, Ordering},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// A clock that tests can move.
#[derive(Debug)]
pub struct Clock {
    source: Source,
    /// The store's clock minus this machine's, in milliseconds.
    offset: AtomicI64,
}

#[derive(Debug)]
enum Source {
    System { started: Instant },
    Manual { start: u64, passed: AtomicU64 },
}

impl Clock {
    /// Returns the machine's clock. [`Clock::adjust`] sets the offset of the store's.
    pub fn system() -> Self {
        Self {
            source: Source::System {
                started: Instant::now(),
            },
            offset: AtomicI64::new(0),
        }
    }

    /// Returns a clock at this many milliseconds since the Unix epoch, which only
    /// [`Clock::advance`] moves.
    pub fn manual(start: u64) -> Self {
        Self {
            source: Source::Manual {
                start,
                passed: AtomicU64::new(0),
            },
            offset: AtomicI64::new(0),
        }
    }

    /// Returns the estimate of the store's clock, in milliseconds since the Unix epoch.
    pub fn now_ms(&self) -> u64 {
        self.machine_ms()
            .saturating_add_signed(self.offset.load(Ordering::Relaxed))
    }

    /// Returns this machine's clock, in milliseconds since the Unix epoch.
    pub fn machine_ms(&self) -> u64 {
        match &self.source {
            Source::System { .. } => SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| since.as_millis() as u64),
            Source::Manual { start, passed } => start + passed.load(Ordering::Relaxed),
        }
    }

    /// Returns the time since the clock was created. It never goes backwards.
    pub fn elapsed(&self) -> Duration {
        match &self.source {
            Source::System { started } => started.elapsed(),
            Source::Manual { passed, .. } => Duration::from_millis(passed.load(Ordering::Relaxed)),
        }
    }

    /// Sets the offset: the store's clock showed `store_ms` when this machine's showed
    /// `machine_ms`, both in milliseconds since the Unix epoch.
    pub fn adjust(&self, store_ms: u64, machine_ms: u64) {
        self.offset.store(
            store_ms
                .cast_signed()
                .wrapping_sub(machine_ms.cast_signed()),
            Ordering::Relaxed,
        );
    }

    /// Moves a manual clock forwards. Does nothing to a system clock.
    pub fn advance(&self, by: Duration) {
        if let Source::Manual { passed, .. } = &self.source {
            passed.fetch_add(by.as_millis() as u64, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stores_clock_is_this_machines_with_an_offset() {
        let clock = Clock::manual(10_000);
        clock.adjust(9_400, 10_000);
        assert_eq!(clock.now_ms(), 9_400);
        clock.advance(Duration::from_secs(1));
        assert_eq!(clock.now_ms(), 10_400);
        assert_eq!(clock.machine_ms(), 11_000);
        assert_eq!(clock.elapsed(), Duration::from_secs(1));
    }
}
