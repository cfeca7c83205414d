//! Compares a session's subscriptions with the user's channels in the store, after the user's own
//! stream may have lost additions.
//!
//! Only additions are compared. After a removal, the channel's own topic ends the subscription;
//! that topic is compared with its log after a loss, too.

use std::{collections::HashSet, time::Instant};

use chaos_redis::jittered;
use domain::{channel_order, error::Result, index};
use protocol::ChannelId;

use super::{connect::room, session::Session, shared::Sessions};

/// Compares a session's subscriptions. No other change of them may be in progress.
pub(super) async fn compare(session: &Session, sessions: &Sessions, attempts: u32) {
    match missing(session, sessions).await {
        Ok(missing) => {
            if !missing.is_empty() {
                tracing::debug!(session = %session.id, channels = missing.len(), "session subscribes to channels whose additions its stream has lost");
            }
            let mut state = session.state.lock();
            state.active.channels.listed(missing, Instant::now());
        }
        Err(error) => {
            tracing::debug!(session = %session.id, %error, "cannot compare subscriptions with the store, will retry");
            let mut state = session.state.lock();
            state
                .active
                .channels
                .retry_comparison(attempts, Instant::now(), jittered);
        }
    }
}

/// Returns the channels that a `connect` would subscribe to now and that the session has no
/// subscription to, except those that it unsubscribed from.
async fn missing(session: &Session, sessions: &Sessions) -> Result<Vec<ChannelId>> {
    let (scope, user) = (session.scope(), session.user());
    let channels = index::channel_ids_of(&sessions.services, scope, user).await?;
    let (mut missing, followed) = session.state.lock().active.channels.missing(channels);
    let room = room(sessions, followed).min(watched_room(sessions, followed));
    if missing.len() > room {
        let most = followed.saturating_add(room);
        let by_activity =
            channel_order::channels_by_activity(&sessions.services, scope, user, most).await?;
        let unranked: HashSet<ChannelId> = missing.into_iter().collect();
        missing = by_activity
            .into_iter()
            .map(|(_, id)| id)
            .filter(|id| unranked.contains(id))
            .take(room)
            .collect();
    }
    Ok(missing)
}

/// Returns the number of channels that `watched_channels` still allows.
fn watched_room(sessions: &Sessions, followed: usize) -> usize {
    match sessions.limits.watched_channels {
        0 => usize::MAX,
        limit => (limit as usize).saturating_sub(followed),
    }
}
