//! How far it has come, on standard error.

use std::time::{Duration, Instant};

use super::line::Counts;
use crate::terminal::complain;

/// How often it is told.
const EVERY: Duration = Duration::from_secs(2);

/// Tells now and then.
pub(super) struct Progress {
    done: &'static str,
    told: Instant,
}

impl Progress {
    /// `done` is what is done to things.
    pub(super) fn new(done: &'static str) -> Self {
        Self {
            done,
            told: Instant::now(),
        }
    }

    pub(super) fn tell(&mut self, counts: &Counts) {
        if self.told.elapsed() >= EVERY {
            self.told = Instant::now();
            self.say(counts, " so far");
        }
    }

    pub(super) fn end(&self, counts: &Counts) {
        self.say(counts, "");
    }

    fn say(&self, counts: &Counts, so_far: &str) {
        let Counts {
            partitions,
            documents,
            events,
        } = counts;
        complain!(
            "chaos: {}{so_far}: {documents} documents and {events} events in {partitions} partitions",
            self.done
        );
    }
}
