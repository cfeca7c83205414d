//! Sending commands again that a server refused.

use std::time::Duration;

use redis::{Cmd, RedisResult};
use tokio::time::{Instant, sleep};

use super::{answer::CommandReply, refusal::CommandRefusal};
use crate::{
    backoff::Backoff,
    managed::{Lane, ManagedConnection},
};

/// Pauses before a refused command is sent again.
pub(super) const INITIAL_RETRY_BACKOFF: Duration = Duration::from_millis(25);

pub(super) const MAX_RETRY_BACKOFF: Duration = Duration::from_millis(400);

/// The retries of one call.
pub(super) struct Retries {
    backoff: Backoff,
    deadline: Instant,
}

impl Retries {
    pub(super) fn until(deadline: Instant) -> Self {
        Self {
            backoff: Backoff::new(INITIAL_RETRY_BACKOFF, MAX_RETRY_BACKOFF),
            deadline,
        }
    }

    /// Returns whether there is no time for another attempt.
    pub(super) fn are_exhausted(&self) -> bool {
        Instant::now() + self.backoff.peek() >= self.deadline
    }

    pub(super) async fn pause(&mut self) {
        sleep(self.backoff.advance()).await;
    }
}

/// Sends to one server until it accepts the command or the deadline has passed.
pub(super) async fn send_until_accepted(
    connection: &ManagedConnection,
    lane: Lane,
    cmd: &Cmd,
    deadline: Instant,
) -> RedisResult<CommandReply> {
    let mut retries = Retries::until(deadline);
    loop {
        let acquired = connection.acquire(lane, deadline).await?;
        let (generation, replica_ack) = (acquired.generation, acquired.replica_ack.clone());
        let value = connection.send(acquired, cmd, deadline).await?;
        match CommandRefusal::read(&value) {
            Some(refusal) if !retries.are_exhausted() => {
                if matches!(refusal, CommandRefusal::NotMaster) {
                    connection.abandon(generation);
                }
                retries.pause().await;
            }
            _ => {
                return Ok(CommandReply {
                    value,
                    is_from_importing_node: false,
                    replica_ack,
                });
            }
        }
    }
}
