//! Changes of a session that are not complete: subscriptions outside of requests, comparisons with
//! the store, and the channels of a request in progress.

use std::time::{Duration, Instant};

use fanout::Position;

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

/// Returns the reason of a subscription after `channel.added` with this position.
pub(super) fn added_after(
    pending: Option<&PendingSubscription>,
    position: Position,
) -> SubscribeReason {
    match pending.map(|pending| pending.why) {
        // The client keeps the position that it has from a reply.
        Some(SubscribeReason::Interrupted(before) | SubscribeReason::EndedByHub(before)) => {
            SubscribeReason::Interrupted(before)
        }
        _ => SubscribeReason::Added(position),
    }
}

/// A channel that a request in progress subscribes to.
#[derive(Debug, Default)]
pub(super) struct ChangingChannel {
    /// Whether the request has taken a subscription, which its failure restores.
    pub(super) has_taken: bool,
    /// Whether `channel.added` or `channel.removed` arrived since the request began.
    pub(super) was_added: bool,
    pub(super) was_removed: bool,
}

impl ChangingChannel {
    pub(super) fn removed() -> Self {
        Self {
            was_removed: true,
            ..Self::default()
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
