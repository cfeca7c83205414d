//! The streams of the followed channels: their positions, subscriptions, and recoveries.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use protocol::{ChannelId, Cursor};

use super::{RequestId, recovery::GapRecovery, retry::RetryTimer};
use crate::Position;

/// Maximum number of channels in one `connect`, `channel.subscribe` or `channel.unsubscribe`.
pub(super) const CHANNELS_PER_REQUEST: usize = 200;

/// The state of a channel's subscription in the current session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SubscriptionState {
    /// Not subscribed. Events that arrive anyway are ignored: they are replayed after the
    /// subscription.
    Unsubscribed,
    /// The subscription was requested. Events before the reply are ignored: they are replayed after
    /// it.
    Joining,
    /// Subscribed.
    Live,
    /// The end of the subscription was requested. If `is_wanted`, the channel is subscribed to
    /// again afterwards.
    Leaving { is_wanted: bool },
}

#[derive(Debug)]
pub(super) struct ChannelStream {
    /// `None` starts with the next subscription.
    pub(super) position: Option<Position>,
    state: SubscriptionState,
    pub(super) retry: RetryTimer,
    pub(super) recovery: Option<GapRecovery>,
}

/// All followed channels, with indexes of those that need an action.
#[derive(Debug, Default)]
pub(super) struct ChannelStreams {
    all: BTreeMap<ChannelId, ChannelStream>,
    unsubscribed: BTreeSet<ChannelId>,
    leaving: BTreeSet<ChannelId>,
    recovering: BTreeSet<ChannelId>,
}

impl ChannelStreams {
    pub(super) fn get(&self, id: &ChannelId) -> Option<&ChannelStream> {
        self.all.get(id)
    }

    pub(super) fn get_mut(&mut self, id: &ChannelId) -> Option<&mut ChannelStream> {
        self.all.get_mut(id)
    }

    pub(super) fn state(&self, id: &ChannelId) -> Option<SubscriptionState> {
        self.all.get(id).map(|stream| stream.state)
    }

    pub(super) fn insert(
        &mut self,
        id: ChannelId,
        position: Option<Position>,
        state: SubscriptionState,
    ) {
        self.all.insert(
            id.clone(),
            ChannelStream {
                position,
                state,
                retry: RetryTimer::default(),
                recovery: None,
            },
        );
        self.recovering.remove(&id);
        self.index(id, state);
    }

    pub(super) fn set_state(&mut self, id: &ChannelId, state: SubscriptionState) {
        if let Some(stream) = self.all.get_mut(id) {
            stream.state = state;
            self.index(id.clone(), state);
        }
    }

    fn index(&mut self, id: ChannelId, state: SubscriptionState) {
        self.unsubscribed.remove(&id);
        self.leaving.remove(&id);
        match state {
            SubscriptionState::Unsubscribed => drop(self.unsubscribed.insert(id)),
            SubscriptionState::Leaving { .. } => drop(self.leaving.insert(id)),
            SubscriptionState::Joining | SubscriptionState::Live => {}
        }
    }

    pub(super) fn remove(&mut self, id: &ChannelId) {
        self.unsubscribed.remove(id);
        self.leaving.remove(id);
        self.recovering.remove(id);
        self.all.remove(id);
    }

    /// Starts a recovery of a channel. `recovery` gets the one that is in progress.
    pub(super) fn start_recovery(
        &mut self,
        id: &ChannelId,
        recovery: impl FnOnce(Option<GapRecovery>) -> GapRecovery,
    ) {
        if let Some(stream) = self.all.get_mut(id) {
            stream.recovery = Some(recovery(stream.recovery.take()));
            self.recovering.insert(id.clone());
        }
    }

    /// Ends the recovery of a channel.
    pub(super) fn recovery_done(&mut self, id: &ChannelId) {
        self.recovering.remove(id);
        if let Some(stream) = self.all.get_mut(id) {
            stream.recovery = None;
        }
    }

    /// The session ended.
    pub(super) fn disconnected(&mut self) {
        let unwanted = |stream: &ChannelStream| {
            stream.state == SubscriptionState::Leaving { is_wanted: false }
        };
        let ended: Vec<_> = self
            .leaving
            .iter()
            .filter(|id| self.all.get(*id).is_some_and(unwanted))
            .cloned()
            .collect();
        ended.iter().for_each(|id| self.remove(id));
        self.leaving.clear();
        for (id, stream) in &mut self.all {
            stream.state = SubscriptionState::Unsubscribed;
            stream.retry = RetryTimer::default();
            if let Some(recovery) = &mut stream.recovery {
                recovery.disconnected();
            }
            self.unsubscribed.insert(id.clone());
        }
    }

    /// Returns the channels for `connect` to resume, those with the latest events first, and marks
    /// them as joining.
    pub(super) fn resume(&mut self) -> BTreeMap<ChannelId, Cursor> {
        let mut latest: Vec<_> = self
            .unsubscribed
            .iter()
            .map(|id| {
                (
                    self.all[id].position.map(|position| position.at),
                    id.clone(),
                )
            })
            .collect();
        latest.sort_by(|(one, _), (other, _)| other.cmp(one));
        latest.truncate(CHANNELS_PER_REQUEST);
        self.join(latest.into_iter().map(|(_, id)| id))
    }

    /// Returns the next channels to subscribe to, and marks them as joining.
    pub(super) fn next_batch(&mut self, now: Instant) -> BTreeMap<ChannelId, Cursor> {
        let due: Vec<_> = self
            .unsubscribed
            .iter()
            .filter(|id| self.all[*id].retry.is_due(now))
            .take(CHANNELS_PER_REQUEST)
            .cloned()
            .collect();
        self.join(due)
    }

    fn join(&mut self, ids: impl IntoIterator<Item = ChannelId>) -> BTreeMap<ChannelId, Cursor> {
        let mut cursors = BTreeMap::new();
        for id in ids {
            cursors.insert(
                id.clone(),
                self.all
                    .get(&id)
                    .and_then(|stream| stream.position)
                    .map_or(Cursor::Now, Cursor::from),
            );
            self.set_state(&id, SubscriptionState::Joining);
        }
        cursors
    }

    /// Channels whose subscription was requested.
    pub(super) fn joining(&self) -> Vec<ChannelId> {
        self.all
            .iter()
            .filter(|(_, stream)| stream.state == SubscriptionState::Joining)
            .map(|(id, _)| id.clone())
            .collect()
    }

    /// Channels to unsubscribe from.
    pub(super) fn leaving(&self) -> Vec<ChannelId> {
        self.leaving
            .iter()
            .take(CHANNELS_PER_REQUEST)
            .cloned()
            .collect()
    }

    /// Returns channels whose recovery may request a page now, so that at most `max_in_flight`
    /// pages are in flight.
    pub(super) fn due_recoveries(&self, max_in_flight: usize, now: Instant) -> Vec<ChannelId> {
        let recoveries = || {
            self.recovering
                .iter()
                .filter_map(|id| Some((id, self.all.get(id)?)))
        };
        let in_flight = recoveries()
            .filter(|(_, stream)| {
                stream
                    .recovery
                    .as_ref()
                    .is_some_and(GapRecovery::is_in_flight)
            })
            .count();
        let is_ready = |stream: &ChannelStream| {
            stream.state == SubscriptionState::Live
                && stream
                    .recovery
                    .as_ref()
                    .is_some_and(|r| !r.is_in_flight() && r.retry.is_due(now))
        };
        recoveries()
            .filter(|(_, stream)| is_ready(stream))
            .take(max_in_flight.saturating_sub(in_flight))
            .map(|(id, _)| id.clone())
            .collect()
    }

    /// When the next subscription or recovery is due that must wait now.
    pub(super) fn due(&self, now: Instant) -> Option<Instant> {
        let joins = self
            .unsubscribed
            .iter()
            .filter_map(|id| self.all.get(id)?.retry.due());
        let reads = self
            .recovering
            .iter()
            .filter_map(|id| self.all.get(id)?.recovery.as_ref()?.retry.due());
        joins.chain(reads).filter(|at| *at > now).min()
    }

    /// Returns the recovery of a channel, if it waits for the reply to this request.
    pub(super) fn recovery_awaiting(
        &mut self,
        id: &ChannelId,
        request_id: RequestId,
    ) -> Option<&mut GapRecovery> {
        self.all
            .get_mut(id)?
            .recovery
            .as_mut()
            .filter(|recovery| recovery.is_answered_by(request_id))
    }
}
