//! Time: the store's clock as this node estimates it, and a steady one for the ages of caches.

use std::{
    sync::atomic::{AtomicI64, AtomicU64, Ordering},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// A clock that services ask, so that tests can move it.
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
    /// The machine's clock, until [`Clock::adjust`] says how far the store's is from it.
    pub fn system() -> Self {
        Self {
            source: Source::System {
                started: Instant::now(),
            },
            offset: AtomicI64::new(0),
        }
    }

    /// A clock that stands at this many milliseconds since the Unix epoch until [`Clock::advance`]
    /// moves it.
    pub fn manual(start: u64) -> Self {
        Self {
            source: Source::Manual {
                start,
                passed: AtomicU64::new(0),
            },
            offset: AtomicI64::new(0),
        }
    }

    /// The store's clock as estimated: milliseconds since the Unix epoch.
    pub fn now_ms(&self) -> u64 {
        self.machine_ms()
            .saturating_add_signed(self.offset.load(Ordering::Relaxed))
    }

    /// This machine's own clock: milliseconds since the Unix epoch.
    pub fn machine_ms(&self) -> u64 {
        match &self.source {
            Source::System { .. } => SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| since.as_millis() as u64),
            Source::Manual { start, passed } => start + passed.load(Ordering::Relaxed),
        }
    }

    /// Time that only runs forwards, since some instant.
    pub fn elapsed(&self) -> Duration {
        match &self.source {
            Source::System { started } => started.elapsed(),
            Source::Manual { passed, .. } => Duration::from_millis(passed.load(Ordering::Relaxed)),
        }
    }

    /// Notes what the store's clock said at an instant of this machine's, both in milliseconds
    /// since the Unix epoch.
    pub fn adjust(&self, store_ms: u64, machine_ms: u64) {
        self.offset.store(
            store_ms
                .cast_signed()
                .wrapping_sub(machine_ms.cast_signed()),
            Ordering::Relaxed,
        );
    }

    /// Moves a manual clock forwards; a system clock ignores it.
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
