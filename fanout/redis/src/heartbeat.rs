//! Detection of servers that hang.

use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::{
    ConnectionError,
    timing::{HEARTBEAT_PERIOD, HEARTBEAT_TIMEOUT},
};

/// Missed ticks after which a server counts as hanging.
const MAX_MISSED_TICKS: u32 = (HEARTBEAT_TIMEOUT.as_secs() / HEARTBEAT_PERIOD.as_secs()) as u32;

/// Decides when to send a PING and when the server has been silent for too long.
///
/// Counts ticks instead of measuring time, so that a process that was itself suspended does not
/// blame the server.
#[derive(Debug)]
pub struct ConnectionHeartbeat {
    ticks: Interval,
    /// Ticks without a byte from the server since the PING was sent; `None` while no PING is
    /// unanswered.
    missed: Option<u32>,
}

impl ConnectionHeartbeat {
    /// The first tick is due immediately.
    pub fn new() -> Self {
        let mut ticks = interval(HEARTBEAT_PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            ticks,
            missed: None,
        }
    }

    /// Waits for the next tick and returns whether to send a PING now. Cancel safe.
    ///
    /// # Errors
    /// The server has been silent for [`HEARTBEAT_TIMEOUT`] after a PING.
    pub async fn tick(&mut self) -> Result<bool, ConnectionError> {
        self.ticks.tick().await;
        match &mut self.missed {
            None => {
                self.missed = Some(0);
                Ok(true)
            }
            Some(missed) => {
                *missed += 1;
                if *missed >= MAX_MISSED_TICKS {
                    Err(ConnectionError::Silent)
                } else {
                    Ok(false)
                }
            }
        }
    }

    /// Notes that bytes arrived, though perhaps not the answer to the PING yet.
    pub fn received(&mut self) {
        self.missed = self.missed.map(|_| 0);
    }

    /// Notes that the PING was answered.
    pub fn answered(&mut self) {
        self.missed = None;
    }
}

impl Default for ConnectionHeartbeat {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn silent_server_is_given_up_after_three_ticks_and_a_slow_one_is_not() {
        let mut heartbeat = ConnectionHeartbeat::new();
        assert!(matches!(heartbeat.tick().await, Ok(true)));
        for _ in 0..10 {
            assert!(matches!(heartbeat.tick().await, Ok(false)));
            heartbeat.received();
        }
        heartbeat.answered();
        assert!(matches!(heartbeat.tick().await, Ok(true)));
        assert!(matches!(heartbeat.tick().await, Ok(false)));
        assert!(matches!(heartbeat.tick().await, Ok(false)));
        assert!(matches!(
            heartbeat.tick().await,
            Err(ConnectionError::Silent)
        ));
    }
}
