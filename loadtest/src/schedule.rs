//! The open-loop schedule: when each message is due is fixed before the run, and a slow server does
//! not delay the messages after it.

use std::{
    thread,
    time::{Duration, Instant},
};

use tokio::sync::watch;

use crate::verify::MessageIndex;

/// A clock in microseconds since its start.
#[derive(Debug, Clone, Copy)]
pub struct RunClock(Instant);

impl RunClock {
    /// Creates a clock that starts at `at`, which may be in the future.
    pub fn starting(at: Instant) -> Self {
        Self(at)
    }

    /// Returns a clock that starts `micros` later.
    pub fn offset_by(&self, micros: u64) -> Self {
        Self(self.0 + Duration::from_micros(micros))
    }

    /// Microseconds since the start, 0 before it.
    pub fn now(&self) -> u64 {
        u64::try_from(self.0.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

/// When each message of a run is due.
#[derive(Debug, Clone, Copy)]
pub struct Schedule {
    per_second: f64,
    total: MessageIndex,
}

impl Schedule {
    /// Spreads `per_second` messages per second evenly over `seconds`.
    pub fn new(per_second: f64, seconds: f64) -> Self {
        // The cast saturates beyond `MessageIndex`: no run sends four billion messages.
        Self {
            per_second,
            total: (per_second * seconds).round() as MessageIndex,
        }
    }

    /// Number of messages.
    pub fn total(&self) -> MessageIndex {
        self.total
    }

    /// When a message is due, in microseconds since the start.
    pub fn due(&self, message: MessageIndex) -> u64 {
        (f64::from(message) * 1e6 / self.per_second) as u64
    }

    /// Calls `send` for each message when it is due (immediately if it is overdue) until all are
    /// sent or `stopped` is true. Returns the number of sent messages.
    ///
    /// Blocks its thread: `thread::sleep` overshoots by about 0.06 ms, a timer of the runtime by up
    /// to 1 ms.
    pub fn run(
        &self,
        clock: RunClock,
        stopped: &watch::Receiver<bool>,
        mut send: impl FnMut(MessageIndex),
    ) -> MessageIndex {
        for message in 0..self.total {
            let due = self.due(message);
            loop {
                if *stopped.borrow() {
                    return message;
                }
                match due.saturating_sub(clock.now()) {
                    0 => break,
                    // In steps, so that `stopped` is seen at a low rate too.
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
    fn messages_are_evenly_spread_without_drift() {
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
    fn stall_does_not_delay_later_messages() {
        let schedule = Schedule::new(1_000.0, 0.2);
        let clock = RunClock::starting(Instant::now());
        let (_running, stopped) = watch::channel(false);
        let mut sent = Vec::new();
        schedule.run(clock, &stopped, |message| {
            if message == 10 {
                thread::sleep(Duration::from_millis(100));
            }
            sent.push(clock.now());
        });
        assert_eq!(sent.len(), 200);
        // After the stall of 100 ms the 90 overdue messages are sent at once, and no message is
        // early.
        assert!(sent[90] < sent[10] + 20_000, "{sent:?}");
        assert!(
            sent.iter()
                .zip(0..)
                .all(|(at, message)| *at >= schedule.due(message))
        );
    }

    #[test]
    fn stopped_run_sends_no_more_messages() {
        let (stop, stopped) = watch::channel(false);
        let sent = Schedule::new(1e6, 100.0).run(
            RunClock::starting(Instant::now()),
            &stopped,
            |message| {
                if message == 5 {
                    stop.send_replace(true);
                }
            },
        );
        assert_eq!(sent, 6);
    }
}
