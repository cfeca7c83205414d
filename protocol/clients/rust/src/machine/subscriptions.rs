//! Outcomes of subscribing and unsubscribing.

use std::time::{Duration, Instant};

use protocol::{ChannelId, ErrorBody, ErrorCode};
use rand::RngExt;

use super::{Machine, Update, channel_streams::SubscriptionState};
use crate::Retryability;

/// Returns the error of a request without a reply in time. The server may have executed it.
pub(super) fn no_reply_error() -> ErrorBody {
    ErrorBody::new(ErrorCode::Unavailable, "no reply in time")
}

/// Handles channels whose subscriptions have ended.
pub(super) fn unsubscribed(machine: &mut Machine, ids: Vec<ChannelId>) {
    for id in ids {
        match machine.streams.state(&id) {
            Some(SubscriptionState::Leaving { is_wanted: true }) => machine
                .streams
                .set_state(&id, SubscriptionState::Unsubscribed),
            Some(SubscriptionState::Leaving { is_wanted: false }) => machine.streams.remove(&id),
            _ => {}
        }
    }
}

/// Handles a failed subscription.
pub(super) fn subscribe_failed(
    machine: &mut Machine,
    channel_id: ChannelId,
    error: ErrorBody,
    now: Instant,
) {
    let random = machine.random.random();
    match (Retryability::of(&error), machine.streams.state(&channel_id)) {
        (_, Some(SubscriptionState::Leaving { .. })) => unsubscribed(machine, vec![channel_id]),
        (Retryability::Permanent, Some(_)) => {
            machine.streams.remove(&channel_id);
            machine.emit(Update::Lost { channel_id, error });
        }
        (Retryability::Permanent, None) => {}
        (Retryability::RateLimited(hint) | Retryability::Temporary(hint), _) => {
            retry_subscribe(machine, &channel_id, hint, random, now)
        }
        (Retryability::Defect, _) => retry_subscribe(machine, &channel_id, None, random, now),
    }
}

fn retry_subscribe(
    machine: &mut Machine,
    id: &ChannelId,
    hint: Option<Duration>,
    random: f64,
    now: Instant,
) {
    if let Some(stream) = machine.streams.get_mut(id) {
        stream.retry.schedule(hint, random, now);
    }
    machine
        .streams
        .set_state(id, SubscriptionState::Unsubscribed);
}
