//! Progress reports on standard error.

use std::time::{Duration, Instant};

use super::line::TransferCounts;
use crate::terminal::print_error;

const REPORT_INTERVAL: Duration = Duration::from_secs(2);

pub(super) struct Progress {
    /// Past participle of the work, such as `exported`.
    done: &'static str,
    reported_at: Instant,
}

impl Progress {
    pub(super) fn new(done: &'static str) -> Self {
        Self {
            done,
            reported_at: Instant::now(),
        }
    }

    /// Reports the counts, unless it has just done so.
    pub(super) fn update(&mut self, counts: &TransferCounts) {
        if self.reported_at.elapsed() >= REPORT_INTERVAL {
            self.reported_at = Instant::now();
            self.print(counts, " so far");
        }
    }

    /// Reports the final counts.
    pub(super) fn finish(&self, counts: &TransferCounts) {
        self.print(counts, "");
    }

    fn print(&self, counts: &TransferCounts, so_far: &str) {
        let TransferCounts {
            partitions,
            documents,
            events,
        } = counts;
        print_error!(
            "chaos: {}{so_far}: {documents} documents and {events} events in {partitions} partitions",
            self.done
        );
    }
}
