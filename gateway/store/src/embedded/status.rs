//! What operators see of the journal: its length, and how long the disk takes to sync.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use parking_lot::Mutex;

/// Upper bounds of the sync time's buckets, in microseconds. Longer syncs are in a last bucket.
pub const SYNC_BUCKETS_MICROS: [u64; 12] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000,
];

/// Sync time above which the disk is slow.
const SLOW_SYNC: Duration = Duration::from_millis(100);

/// Minimum time between two log lines about a slow disk.
const SLOW_SYNC_LOG_INTERVAL: Duration = Duration::from_secs(60);

/// Length and sync times of the journal.
#[derive(Debug, Default)]
pub struct JournalStatus {
    bytes: AtomicU64,
    syncs: [AtomicU64; SYNC_BUCKETS_MICROS.len() + 1],
    sync_micros: AtomicU64,
    writing_since: Mutex<Option<Instant>>,
    slow: Mutex<SlowSyncs>,
}

#[derive(Debug, Default)]
struct SlowSyncs {
    logged_at: Option<Instant>,
    suppressed: u64,
}

/// Sync times since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SyncTimes {
    /// Number of syncs in each of [`SYNC_BUCKETS_MICROS`], and of longer ones.
    pub counts: [u64; SYNC_BUCKETS_MICROS.len() + 1],
    /// Sum of all sync times, in microseconds.
    pub sum_micros: u64,
}

impl JournalStatus {
    /// Bytes of the journal's files.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// The sync times since the start.
    pub fn sync_times(&self) -> SyncTimes {
        SyncTimes {
            counts: std::array::from_fn(|bucket| self.syncs[bucket].load(Ordering::Relaxed)),
            sum_micros: self.sync_micros.load(Ordering::Relaxed),
        }
    }

    /// Returns how long the write that is under way has lasted; zero if there is none.
    pub(super) fn writing_for(&self) -> Duration {
        self.writing_since
            .lock()
            .map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Runs a write of the journal.
    pub(super) fn writing<T>(&self, write: impl FnOnce() -> T) -> T {
        *self.writing_since.lock() = Some(Instant::now());
        let written = write();
        *self.writing_since.lock() = None;
        written
    }

    pub(super) fn set_bytes(&self, bytes: u64) {
        self.bytes.store(bytes, Ordering::Relaxed);
    }

    /// Counts a sync, and logs a slow one at most once a minute.
    pub(super) fn synced(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let bucket = SYNC_BUCKETS_MICROS.partition_point(|bound| *bound < micros);
        self.syncs[bucket].fetch_add(1, Ordering::Relaxed);
        self.sync_micros.fetch_add(micros, Ordering::Relaxed);
        if time < SLOW_SYNC {
            return;
        }
        let mut slow = self.slow.lock();
        if slow
            .logged_at
            .is_some_and(|at| at.elapsed() < SLOW_SYNC_LOG_INTERVAL)
        {
            slow.suppressed += 1;
            return;
        }
        tracing::warn!(
            sync_ms = time.as_millis() as u64,
            suppressed = slow.suppressed,
            "the disk is slow: commits wait for its sync"
        );
        *slow = SlowSyncs {
            logged_at: Some(Instant::now()),
            suppressed: 0,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn syncs_are_counted_in_their_buckets() {
        let status = JournalStatus::default();
        for micros in [1, 100, 101, 1_000_000, 1_000_001] {
            status.synced(Duration::from_micros(micros));
        }
        let found = status.sync_times();
        assert_eq!(found.sum_micros, 2_000_203);
        assert_eq!(
            (
                found.counts[0],
                found.counts[1],
                found.counts[11],
                found.counts[12]
            ),
            (2, 1, 1, 1)
        );
        assert_eq!(status.slow.lock().suppressed, 1);
    }
}
