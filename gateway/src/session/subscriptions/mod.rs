//! A session's subscriptions to channels, current and pending.
//!
//! A session subscribes to a channel by a request, or outside of one: because the user was added to
//! it, because a subscription was lost, or because the user's own stream lost events and a
//! comparison with the store finds that the user is in the channel. [`next`](Subscriptions::next)
//! returns the steps to take outside of requests. The driver takes them and reports the results; it
//! begins no change before the last one has ended. Notices of the user's own stream may arrive at
//! any time.

mod pending;
mod step;
#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, HashSet, VecDeque},
    time::{Duration, Instant},
};

use fanout::Position;
use protocol::ChannelId;

use pending::{ChangingChannel, Comparison, PendingSubscription, added_after, retry_pause};
pub use step::{
    Next, SubscribeReason, SubscriptionAdmission, SubscriptionHandle, SubscriptionStep,
};

/// Interval of checks whether a topic has reached the position of an addition.
const ADDITION_POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Time from the end of a subscription by the hub until the store is asked whether the user is
/// still in the channel: longer than a removal usually takes to reach the user's stream. Doubles
/// with each attempt up to [`MAX_REMOVAL_GRACE`].
const REMOVAL_GRACE: Duration = Duration::from_secs(8);
const MAX_REMOVAL_GRACE: Duration = Duration::from_secs(300);

/// Maximum number of subscriptions of one step.
const SUBSCRIPTIONS_PER_STEP: usize = 100;

/// A change that the user's stream delivered before the session was open.
#[derive(Debug)]
enum Notice {
    Added(ChannelId, Position),
    Removed(ChannelId),
}

#[derive(Debug)]
enum Phase {
    /// `connect` is in progress; notices are queued.
    Opening(VecDeque<Notice>),
    Open,
    Closed,
}

/// The subscriptions of a session to channels.
#[derive(Debug)]
pub struct Subscriptions<S> {
    phase: Phase,
    /// Whether the session subscribes to channels that the user is added to.
    follows_additions: bool,
    limit: usize,
    live: HashMap<ChannelId, S>,
    /// Channels of the request in progress.
    requested: HashMap<ChannelId, ChangingChannel>,
    pending: HashMap<ChannelId, PendingSubscription>,
    /// Channels that the client unsubscribed from; comparisons skip them.
    unsubscribed: HashSet<ChannelId>,
    comparison: Option<Comparison>,
}

impl<S: SubscriptionHandle> Subscriptions<S> {
    /// Creates the subscriptions of a session that opens: at most `limit`; 0 means no limit.
    pub fn new(follows_additions: bool, limit: u64) -> Self {
        Self {
            phase: Phase::Opening(VecDeque::new()),
            follows_additions,
            limit: match limit {
                0 => usize::MAX,
                limit => usize::try_from(limit).unwrap_or(usize::MAX),
            },
            live: HashMap::new(),
            requested: HashMap::new(),
            pending: HashMap::new(),
            unsubscribed: HashSet::new(),
            comparison: None,
        }
    }

    /// Returns the running subscription to a channel.
    pub fn get_mut(&mut self, id: &ChannelId) -> Option<&mut S> {
        self.live
            .get_mut(id)
            .filter(|subscription| !subscription.is_ended())
    }

    /// Handles `channel.added` of the user's stream.
    pub fn added(&mut self, id: ChannelId, position: Position, now: Instant) {
        if !self.follows_additions {
            return;
        }
        match &mut self.phase {
            Phase::Opening(notices) => notices.push_back(Notice::Added(id, position)),
            Phase::Open => {
                if let Some(requested) = self.requested.get_mut(&id) {
                    requested.was_added = true;
                }
                self.unsubscribed.remove(&id);
                let why = added_after(self.pending.get(&id), position);
                self.pending.insert(id, PendingSubscription::new(why, now));
            }
            Phase::Closed => {}
        }
    }

    /// Handles `channel.removed` of the user's stream, before it is delivered. Returns the ended
    /// subscription, to be dropped outside of locks.
    ///
    /// This also ends a subscription that a request made after the user was added again; the stream
    /// delivers `channel.added` next. The reply of a request in progress [may be stale](Self::is_stale).
    pub fn removed(&mut self, id: ChannelId) -> Option<S> {
        if let Phase::Opening(notices) = &mut self.phase {
            notices.push_back(Notice::Removed(id));
            return None;
        }
        if let Some(requested) = self.requested.get_mut(&id) {
            *requested = ChangingChannel::removed();
        }
        self.pending.remove(&id);
        self.unsubscribed.remove(&id);
        self.live.remove(&id)
    }

    /// Opens the session and handles the queued notices. Returns the ended subscriptions, to be
    /// dropped outside of locks.
    pub fn opened(&mut self, now: Instant) -> Vec<S> {
        let Phase::Opening(notices) = &mut self.phase else {
            return Vec::new();
        };
        let notices = std::mem::take(notices);
        self.phase = Phase::Open;
        let mut ended = Vec::new();
        for notice in notices {
            match notice {
                Notice::Added(id, position) => self.added(id, position, now),
                Notice::Removed(id) => ended.extend(self.removed(id)),
            }
        }
        ended
    }

    /// Ends the session. Returns all subscriptions, to be dropped outside of locks.
    pub fn close(&mut self) -> Vec<S> {
        self.phase = Phase::Closed;
        self.pending = HashMap::new();
        self.unsubscribed = HashSet::new();
        self.comparison = None;
        std::mem::take(&mut self.live).into_values().collect()
    }

    /// Returns for each requested channel whether it may be subscribed to.
    pub fn admit<'a>(
        &mut self,
        asked: impl Iterator<Item = &'a ChannelId> + Clone,
        now: Instant,
    ) -> Vec<SubscriptionAdmission> {
        self.recover_ended(now);
        let is_counted =
            |id: &ChannelId| self.live.contains_key(id) || asked.clone().any(|asked| asked == id);
        // Pending subscriptions count towards the limit.
        let waiting = self.pending.keys().filter(|id| !is_counted(id)).count();
        let mut room = self.limit.saturating_sub(self.live.len() + waiting);
        asked
            .map(|id| match self.live.get(id) {
                Some(subscription) => SubscriptionAdmission::Restart(subscription.topic_position()),
                None if room > 0 => {
                    room -= 1;
                    SubscriptionAdmission::New
                }
                None => SubscriptionAdmission::OverLimit,
            })
            .collect()
    }

    /// Returns whether a subscription is pending for this reason.
    pub fn is_pending(&self, id: &ChannelId, why: SubscribeReason) -> bool {
        self.pending
            .get(id)
            .is_some_and(|pending| pending.why == why)
    }

    /// Returns whether the session has ended.
    pub fn is_closed(&self) -> bool {
        matches!(self.phase, Phase::Closed)
    }

    /// Begins a request that subscribes to channels.
    pub fn begin<'a>(&mut self, ids: impl IntoIterator<Item = &'a ChannelId>) {
        self.requested = ids
            .into_iter()
            .map(|id| (id.clone(), ChangingChannel::default()))
            .collect();
    }

    /// Removes subscriptions that a request or step replaces, to be dropped outside of locks.
    pub fn take<'a>(&mut self, ids: impl IntoIterator<Item = &'a ChannelId>) -> Vec<S> {
        let mut taken = Vec::new();
        for id in ids {
            if let Some(subscription) = self.live.remove(id) {
                if let Some(requested) = self.requested.get_mut(id) {
                    requested.has_taken = true;
                }
                taken.push(subscription);
            }
        }
        taken
    }

    /// Returns whether what the request in progress has read of a channel is older than a notice that
    /// arrived since it [began](Self::begin): an entry before `channel.removed`, or that there is none
    /// before `channel.added`. The client must not receive it.
    pub fn is_stale(&self, id: &ChannelId, is_found: bool) -> bool {
        (self.requested.get(id)).is_some_and(|requested| match is_found {
            true => requested.was_removed,
            false => requested.was_added,
        })
    }

    /// Starts the subscription of a request whose reply was sent (`why` is `None`), or of a step,
    /// unless `channel.removed` or a request cancelled it since. Returns the subscription that it replaces, to be dropped
    /// outside of locks.
    ///
    /// `start` is called in the same critical section as the check, so that no subscription starts
    /// after `channel.removed`.
    pub fn start(
        &mut self,
        id: ChannelId,
        why: Option<SubscribeReason>,
        start: impl FnOnce() -> S,
    ) -> Option<S> {
        let is_removed = |notice: &Notice| matches!(notice, Notice::Removed(out) if *out == id);
        let is_pending = match (&self.phase, why) {
            (Phase::Closed, _) => false,
            (Phase::Opening(notices), _) if notices.iter().any(is_removed) => false,
            (_, None) => !self.is_stale(&id, true),
            (_, Some(why)) => self.complete(&id, why),
        };
        if is_pending {
            self.unsubscribed.remove(&id);
            self.live.insert(id, start())
        } else {
            None
        }
    }

    /// Schedules a retry of a failed step. `jitter` shortens the pause at random, so that sessions
    /// that failed together do not retry together.
    pub fn retry(
        &mut self,
        id: &ChannelId,
        why: SubscribeReason,
        now: Instant,
        jitter: impl FnOnce(Duration) -> Duration,
    ) {
        if let Some(pending) = self.pending_for(id, why) {
            pending.attempts += 1;
            pending.due = now + jitter(retry_pause(pending.attempts));
        }
    }

    /// Postpones a step that was not begun. Does not count as an attempt.
    pub fn postpone(&mut self, id: &ChannelId, why: SubscribeReason, due: Instant) {
        if let Some(pending) = self.pending_for(id, why) {
            pending.due = due;
        }
    }

    /// Schedules a comparison with the user's channels in the store, since the user's stream may
    /// have lost events. A comparison that is scheduled already keeps its time.
    pub fn compare(&mut self, due: Instant) {
        if self.follows_additions && !self.is_closed() {
            self.comparison
                .get_or_insert(Comparison { due, attempts: 0 });
        }
    }

    /// Schedules a retry of a failed comparison.
    pub fn retry_comparison(
        &mut self,
        attempts: u32,
        now: Instant,
        jitter: impl FnOnce(Duration) -> Duration,
    ) {
        let attempts = attempts.saturating_add(1);
        self.compare(now + jitter(retry_pause(attempts)));
        if let Some(comparison) = &mut self.comparison {
            comparison.attempts = attempts;
        }
    }

    /// Returns those of the user's channels that the session should be subscribed to and is not,
    /// and the number of its current and pending subscriptions.
    pub fn missing(&self, mut channels: Vec<ChannelId>) -> (Vec<ChannelId>, usize) {
        channels.retain(|id| {
            let is_followed = self.live.contains_key(id) || self.pending.contains_key(id);
            !is_followed && !self.unsubscribed.contains(id)
        });
        let pending = self.pending.keys();
        let waiting = pending.filter(|id| !self.live.contains_key(*id)).count();
        (channels, self.live.len() + waiting)
    }

    /// Schedules subscriptions to channels that a comparison found [missing](Self::missing).
    pub fn listed(&mut self, missing: Vec<ChannelId>, now: Instant) {
        if self.is_closed() {
            return;
        }
        for id in missing {
            // Notices may have arrived since.
            if !self.live.contains_key(&id) {
                // The user's stream may be about to deliver the addition, which then replaces this.
                let pending =
                    PendingSubscription::new(SubscribeReason::Listed, now + REMOVAL_GRACE);
                self.pending.entry(id).or_insert(pending);
            }
        }
    }

    /// Handles a step that did not find the user in the channel. A failover may still lose the
    /// removal, so the store is asked again until the user's stream confirms it.
    pub fn not_found_in_channel(&mut self, id: &ChannelId, why: SubscribeReason, now: Instant) {
        if why == SubscribeReason::Listed {
            self.complete(id, why);
        } else if let Some(pending) = self.pending_for(id, why) {
            let pause = REMOVAL_GRACE * 2u32.saturating_pow(pending.attempts.min(16));
            pending.why = SubscribeReason::EndedByHub(why.position());
            pending.attempts += 1;
            pending.due = now + pause.min(MAX_REMOVAL_GRACE);
        }
    }

    /// Cancels a pending recovery, since the user's stream has delivered the removal or is about
    /// to.
    pub fn confirm_removal(&mut self, id: &ChannelId) {
        let is_recovery =
            |pending: &PendingSubscription| matches!(pending.why, SubscribeReason::EndedByHub(_));
        if self.pending.get(id).is_some_and(is_recovery) {
            self.pending.remove(id);
        }
    }

    /// Schedules subscriptions in place of those that a failed request removed.
    pub fn interrupted(&mut self, interrupted: Vec<(ChannelId, Position)>, now: Instant) {
        if !matches!(self.phase, Phase::Open) {
            return;
        }
        for (id, position) in interrupted {
            // A later addition takes precedence.
            let is_newer =
                |pending: &PendingSubscription| pending.why.position().seq > position.seq;
            let has_taken = (self.requested.remove(&id)).is_some_and(|asked| asked.has_taken);
            if has_taken && !self.pending.get(&id).is_some_and(is_newer) {
                let pending = PendingSubscription::new(SubscribeReason::Interrupted(position), now);
                self.pending.insert(id, pending);
            }
        }
    }

    /// Ends current and pending subscriptions, to be dropped outside of locks.
    pub fn unsubscribe(&mut self, ids: &[ChannelId]) -> Vec<S> {
        let mut ended = Vec::new();
        for id in ids {
            let live = self.live.remove(id);
            let was_followed = self.pending.remove(id).is_some() || live.is_some();
            if was_followed && self.follows_additions {
                self.unsubscribed.insert(id.clone());
            }
            ended.extend(live);
        }
        ended
    }

    /// Schedules the recovery of subscriptions that the hub ended, in case the removal is lost.
    pub fn recover_ended(&mut self, now: Instant) {
        if !self.live.values().any(SubscriptionHandle::is_ended) {
            return;
        }
        let ended = self
            .live
            .extract_if(|_, subscription| subscription.is_ended());
        for (id, subscription) in ended {
            let why = SubscribeReason::EndedByHub(subscription.topic_position());
            self.pending
                .entry(id)
                .or_insert(PendingSubscription::new(why, now + REMOVAL_GRACE));
        }
    }

    /// Returns whether steps outside of requests are due, now or later.
    pub fn has_steps(&self) -> bool {
        !self.pending.is_empty() || self.comparison.is_some()
    }

    /// Returns the next steps outside of requests. Call it while no change is in progress.
    pub fn next(&mut self, now: Instant) -> Next {
        let mut due: Vec<(Instant, &ChannelId, &PendingSubscription)> = self
            .pending
            .iter()
            .filter(|(_, pending)| pending.due <= now)
            .map(|(id, pending)| (pending.due, id, pending))
            .collect();
        due.sort_unstable_by_key(|(due, id, _)| (*due, *id));
        // A step that failed before is retried alone, since it may be the only one that fails.
        let max = match due.first() {
            Some((_, _, first)) if first.attempts > 0 => 1,
            _ => SUBSCRIPTIONS_PER_STEP,
        };
        let due: Vec<ChannelId> = due
            .into_iter()
            .take_while(|(_, _, pending)| max == 1 || pending.attempts == 0)
            .take(max)
            .map(|(_, id, _)| id.clone())
            .collect();
        let mut steps = Vec::new();
        let mut room = self.limit.saturating_sub(self.live.len());
        for id in due {
            steps.extend(self.step(id, &mut room, now));
        }
        if !steps.is_empty() {
            return Next::Now(steps);
        }
        let is_open = matches!(self.phase, Phase::Open);
        if let Some(Comparison { attempts, .. }) = self
            .comparison
            .take_if(|comparison| is_open && comparison.due <= now)
        {
            return Next::Now(vec![SubscriptionStep::Compare { attempts }]);
        }
        let comparison = self.comparison.filter(|_| is_open);
        self.pending
            .values()
            .map(|pending| pending.due)
            .chain(comparison.map(|comparison| comparison.due))
            .min()
            .map_or(Next::Nothing, Next::At)
    }

    fn step(&mut self, id: ChannelId, room: &mut usize, now: Instant) -> Option<SubscriptionStep> {
        let pending = self.pending.get_mut(&id)?;
        let (why, is_retry) = (pending.why, pending.attempts > 0);
        match (self.live.get(&id), why) {
            (Some(running), _) if running.is_ended() => {}
            (Some(running), SubscribeReason::Added(position)) => {
                let has_reached = running.topic_position().seq >= position.seq;
                if has_reached && pending.is_running {
                    self.complete(&id, why);
                } else {
                    // A subscription from before a removal ends when the topic delivers that.
                    pending.is_running = has_reached;
                    pending.due = now + ADDITION_POLL_INTERVAL;
                }
                return None;
            }
            (
                Some(_),
                SubscribeReason::Interrupted(_)
                | SubscribeReason::EndedByHub(_)
                | SubscribeReason::Listed,
            ) => {
                self.complete(&id, why);
                return None;
            }
            (None, _) => {}
        }
        if *room == 0 && !self.live.contains_key(&id) {
            self.complete(&id, why);
            // Report the limit, so that the client can unsubscribe from other channels and
            // subscribe to this one. A client does not know a channel that was only listed.
            return (why != SubscribeReason::Listed).then(|| SubscriptionStep::ReportLimit {
                id,
                position: why.position(),
            });
        }
        *room = room.saturating_sub(1);
        Some(SubscriptionStep::Subscribe { id, why, is_retry })
    }

    fn pending_for(
        &mut self,
        id: &ChannelId,
        why: SubscribeReason,
    ) -> Option<&mut PendingSubscription> {
        self.pending
            .get_mut(id)
            .filter(|pending| pending.why == why)
    }

    /// Removes a pending subscription. Returns whether it was pending for this reason.
    fn complete(&mut self, id: &ChannelId, why: SubscribeReason) -> bool {
        self.is_pending(id, why) && self.pending.remove(id).is_some()
    }
}
