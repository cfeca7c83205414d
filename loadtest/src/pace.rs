//! Open loop: what is due when is fixed before the run, and nothing that the server does moves it.

use std::{
    thread,
    time::{Duration, Instant},
};

use tokio::sync::watch;

use crate::verify::Index;

/// A clock that counts microseconds.
#[derive(Debug, Clone, Copy)]
pub struct Clock(Instant);

impl Clock {
    /// Begins at this instant, which may lie ahead.
    pub fn starting(at: Instant) -> Self {
        Self(at)
    }

    /// A clock that starts so many microseconds later.
    pub fn later(&self, micros: u64) -> Self {
        Self(self.0 + Duration::from_micros(micros))
    }

    /// Microseconds since the start; 0 before it.
    pub fn now(&self) -> u64 {
        u64::try_from(self.0.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

/// When each message is due.
#[derive(Debug, Clone, Copy)]
pub struct Schedule {
    per_second: f64,
    total: Index,
}

impl Schedule {
    /// So many messages per second, evenly spread over so many seconds.
    pub fn new(per_second: f64, seconds: f64) -> Self {
        // A float beyond an index saturates: four billion messages are more than a run.
        Self {
            per_second,
            total: (per_second * seconds).round() as Index,
        }
    }

    /// How many messages there are.
    pub fn total(&self) -> Index {
        self.total
    }

    /// When a message is due, in microseconds since the start.
    pub fn due(&self, message: Index) -> u64 {
        (f64::from(message) * 1e6 / self.per_second) as u64
    }

    /// Calls `send` for each message when it is due, or at once where that is past, until all are sent or `stopped`;
    /// answers how many were.
    ///
    /// It blocks its thread: a thread's sleep is some 0.06 ms late, a timer of the runtime up to 1 ms.
    pub fn run(
        &self,
        clock: Clock,
        stopped: &watch::Receiver<bool>,
        mut send: impl FnMut(Index),
    ) -> Index {
        for message in 0..self.total {
            let due = self.due(message);
            loop {
                if *stopped.borrow() {
                    return message;
                }
                match due.saturating_sub(clock.now()) {
                    0 => break,
                    // In steps, so that the end is seen at a slow rate too.
                    wait => thread::sleep(Duration::from_micros(wait.min(100_000))),
                }
            }
            send(message);
        }
        self.total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_spread_evenly_and_do_not_drift() {
        let schedule = Schedule::new(300.0, 10.0);
        assert_eq!(schedule.total(), 3_000);
        assert_eq!(
            (
                schedule.due(0),
                schedule.due(1),
                schedule.due(300),
                schedule.due(2_999)
            ),
            (0, 3_333, 1_000_000, 9_996_666)
        );
    }

    #[test]
    fn a_stall_does_not_move_what_is_due_afterwards() {
        let schedule = Schedule::new(1_000.0, 0.2);
        let clock = Clock::starting(Instant::now());
        let (_running, stopped) = watch::channel(false);
        let mut sent = Vec::new();
        schedule.run(clock, &stopped, |message| {
            if message == 10 {
                thread::sleep(Duration::from_millis(100));
            }
            sent.push(clock.now());
        });
        assert_eq!(sent.len(), 200);
        // After 100 ms away the 90 that became due leave at once, and none is ever early.
        assert!(sent[90] < sent[10] + 20_000, "{sent:?}");
        assert!(
            sent.iter()
                .zip(0..)
                .all(|(at, message)| *at >= schedule.due(message))
        );
    }

    #[test]
    fn a_stopped_run_sends_no_more() {
        let (stop, stopped) = watch::channel(false);
        let sent =
            Schedule::new(1e6, 100.0).run(Clock::starting(Instant::now()), &stopped, |message| {
                if message == 5 {
                    stop.send_replace(true);
                }
            });
        assert_eq!(sent, 6);
    }
}
