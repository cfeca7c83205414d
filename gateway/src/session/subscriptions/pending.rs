//! Changes that a session makes later: subscriptions outside of requests, and comparisons with the
//! store.

use std::time::{Duration, Instant};

use super::SubscribeReason;

/// Pause before the first retry of a failed step. It grows with each failure, up to
/// [`MAX_RETRY_PAUSES`] times that.
pub(super) const RETRY_PAUSE: Duration = Duration::from_millis(200);
pub(super) const MAX_RETRY_PAUSES: u32 = 10;

/// A pending subscription outside of a request.
#[derive(Debug, Clone, Copy)]
pub(super) struct PendingSubscription {
    pub(super) why: SubscribeReason,
    pub(super) due: Instant,
    pub(super) attempts: u32,
    /// Whether the last check found a running subscription at or after the addition. The topic may
    /// be about to end it, so a second check decides.
    pub(super) is_running: bool,
}

impl PendingSubscription {
    pub(super) fn new(why: SubscribeReason, due: Instant) -> Self {
        Self {
            why,
            due,
            attempts: 0,
            is_running: false,
        }
    }
}

/// A pending comparison with the user's channels in the store.
#[derive(Debug, Clone, Copy)]
pub(super) struct Comparison {
    pub(super) due: Instant,
    pub(super) attempts: u32,
}

pub(super) fn retry_pause(attempts: u32) -> Duration {
    RETRY_PAUSE * attempts.min(MAX_RETRY_PAUSES)
}
