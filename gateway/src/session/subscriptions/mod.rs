//! Which channels a session listens to, and which it is about to.
//!
//! A channel is subscribed to by a request, or outside of one: because the user was added to it,
//! because a subscription was lost, or because the user's own stream lost events and a comparison
//! with the store finds that the user is in the channel. [`next`](Subscriptions::next) says what to do outside of requests;
//! whoever drives the machine does it and reports how it went. Changes are made one after the other:
//! the driver begins none before the last one has ended. Notices of the user's own stream come at any
//! time.

mod step;
#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, HashSet, VecDeque},
    time::{Duration, Instant},
};

use fanout::Position;
use protocol::ChannelId;

pub use step::{Admission, Handle, Next, Step, Why};

/// Pause before the first retry of a failed step. It grows with each failure, up to
/// [`MAX_RETRY_PAUSES`] times that.
const RETRY_PAUSE: Duration = Duration::from_millis(200);
const MAX_RETRY_PAUSES: u32 = 10;

/// How often the machine looks whether a topic has reached the position of an addition.
const SETTLING: Duration = Duration::from_millis(20);

/// How long after the hub ended a subscription the machine asks the store whether the user is still
/// in the channel: longer than a removal takes from the channel to the user's stream, also while the
/// store is away for a moment. The pause doubles up to [`LONGEST_DOUBT`].
const DOUBT: Duration = Duration::from_secs(8);
const LONGEST_DOUBT: Duration = Duration::from_secs(300);

/// The most subscriptions of one step.
const STEP: usize = 100;

/// A change that the user's stream told before the session was open.
#[derive(Debug)]
enum Notice {
    Added(ChannelId, Position),
    Removed(ChannelId),
}

#[derive(Debug)]
enum Phase {
    /// `connect` is under way: notices wait.
    Opening(VecDeque<Notice>),
    Open,
    Closed,
}

/// A channel that is to be subscribed to outside of a request.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    why: Why,
    due: Instant,
    attempts: u32,
    /// A look has found a running subscription that has reached the addition. The topic may be just
    /// about to end it: a second look decides.
    is_running: bool,
}

impl Wanted {
    fn new(why: Why, due: Instant) -> Self {
        Self {
            why,
            due,
            attempts: 0,
            is_running: false,
        }
    }
}

/// The subscriptions of a session to channels.
#[derive(Debug)]
pub struct Subscriptions<S> {
    phase: Phase,
    /// Whether the session subscribes to channels that the user is added to.
    follows_additions: bool,
    limit: usize,
    live: HashMap<ChannelId, S>,
    /// Those that the change under way has taken, and that `channel.removed` has not ended since.
    taken: HashSet<ChannelId>,
    wanted: HashMap<ChannelId, Wanted>,
    /// Those that the client unsubscribed from: a comparison leaves them out.
    unsubscribed: HashSet<ChannelId>,
    comparison: Option<Comparison>,
}

/// A comparison with the user's channels in the store.
#[derive(Debug, Clone, Copy)]
struct Comparison {
    due: Instant,
    attempts: u32,
}

impl<S: Handle> Subscriptions<S> {
    /// Of a session that opens. It has at most `limit` subscriptions; 0 means any number.
    pub fn new(follows_additions: bool, limit: u64) -> Self {
        Self {
            phase: Phase::Opening(VecDeque::new()),
            follows_additions,
            limit: match limit {
                0 => usize::MAX,
                limit => usize::try_from(limit).unwrap_or(usize::MAX),
            },
            live: HashMap::new(),
            taken: HashSet::new(),
            wanted: HashMap::new(),
            unsubscribed: HashSet::new(),
            comparison: None,
        }
    }

    /// The running subscription to a channel.
    pub fn get_mut(&mut self, id: &ChannelId) -> Option<&mut S> {
        self.live
            .get_mut(id)
            .filter(|subscription| !subscription.is_ended())
    }

    /// The user's stream told `channel.added`, with this position.
    pub fn added(&mut self, id: ChannelId, position: Position, now: Instant) {
        if !self.follows_additions {
            return;
        }
        match &mut self.phase {
            Phase::Opening(notices) => notices.push_back(Notice::Added(id, position)),
            Phase::Open => {
                self.unsubscribed.remove(&id);
                self.wanted
                    .insert(id, Wanted::new(Why::Added(position), now));
            }
            Phase::Closed => {}
        }
    }

    /// The user's stream is about to tell `channel.removed`. The subscription that ends by that, to be
    /// dropped outside of locks.
    ///
    /// One that a request made after the user came in again ends, too: the stream tells
    /// `channel.added` next.
    pub fn removed(&mut self, id: ChannelId) -> Option<S> {
        if let Phase::Opening(notices) = &mut self.phase {
            notices.push_back(Notice::Removed(id));
            return None;
        }
        self.taken.remove(&id);
        self.wanted.remove(&id);
        self.unsubscribed.remove(&id);
        self.live.remove(&id)
    }

    /// The session is open: notices that waited are taken. What ends by them, to be dropped outside
    /// of locks.
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

    /// The session ends: everything that it had, to be dropped outside of locks.
    pub fn close(&mut self) -> Vec<S> {
        self.phase = Phase::Closed;
        self.wanted = HashMap::new();
        self.unsubscribed = HashSet::new();
        self.comparison = None;
        std::mem::take(&mut self.live).into_values().collect()
    }

    /// Whether each channel that a request asks for may be subscribed to.
    pub fn admit<'a>(
        &mut self,
        asked: impl Iterator<Item = &'a ChannelId> + Clone,
        now: Instant,
    ) -> Vec<Admission> {
        self.doubt_ended(now);
        let is_counted =
            |id: &ChannelId| self.live.contains_key(id) || asked.clone().any(|asked| asked == id);
        // Those that are to come back count.
        let waiting = self.wanted.keys().filter(|id| !is_counted(id)).count();
        let mut room = self.limit.saturating_sub(self.live.len() + waiting);
        asked
            .map(|id| match self.live.get(id) {
                Some(subscription) => Admission::Restart(subscription.topic_position()),
                None if room > 0 => {
                    room -= 1;
                    Admission::New
                }
                None => Admission::OverLimit,
            })
            .collect()
    }

    /// Whether a step still has to be taken for this reason.
    pub fn is_wanted(&self, id: &ChannelId, why: Why) -> bool {
        self.wanted.get(id).is_some_and(|wanted| wanted.why == why)
    }

    /// Whether the session has ended.
    pub fn is_closed(&self) -> bool {
        matches!(self.phase, Phase::Closed)
    }

    /// Takes subscriptions away that are about to begin anew, to be dropped outside of locks.
    pub fn take<'a>(&mut self, ids: impl IntoIterator<Item = &'a ChannelId>) -> Vec<S> {
        self.taken = HashSet::new();
        let mut taken = Vec::new();
        for id in ids {
            if let Some(subscription) = self.live.remove(id) {
                self.taken.insert(id.clone());
                taken.push(subscription);
            }
        }
        taken
    }

    /// Starts a subscription whose reply was sent, or that was a step, unless it is wanted no more.
    ///
    /// `start` runs only if it is: in one step with the look, so that nothing is started behind
    /// `channel.removed`. A subscription that it replaces, to be dropped outside of locks.
    pub fn start(
        &mut self,
        id: ChannelId,
        why: Option<Why>,
        start: impl FnOnce() -> S,
    ) -> Option<S> {
        let is_removed = |notice: &Notice| matches!(notice, Notice::Removed(out) if *out == id);
        let is_wanted = match (&self.phase, why) {
            (Phase::Closed, _) => false,
            (Phase::Opening(notices), _) if notices.iter().any(is_removed) => false,
            (_, None) => true,
            (_, Some(why)) => self.settle(&id, why),
        };
        if is_wanted {
            self.unsubscribed.remove(&id);
            self.live.insert(id, start())
        } else {
            None
        }
    }

    /// A step failed, and is tried again later. `jitter` shortens the pause at random, so that
    /// sessions that failed together do not retry together.
    pub fn retry(
        &mut self,
        id: &ChannelId,
        why: Why,
        now: Instant,
        jitter: impl FnOnce(Duration) -> Duration,
    ) {
        if let Some(wanted) = self.wanted_for(id, why) {
            wanted.attempts += 1;
            wanted.due = now + jitter(retry_pause(wanted.attempts));
        }
    }

    /// A step was not begun, and is due again later. It counts as no attempt.
    pub fn postpone(&mut self, id: &ChannelId, why: Why, due: Instant) {
        if let Some(wanted) = self.wanted_for(id, why) {
            wanted.due = due;
        }
    }

    /// The user's own stream may have lost events: the subscriptions are compared with the user's
    /// channels in the store at `due`, or earlier if a comparison is due already.
    pub fn compare(&mut self, due: Instant) {
        if self.follows_additions && !self.is_closed() {
            self.comparison
                .get_or_insert(Comparison { due, attempts: 0 });
        }
    }

    /// A comparison failed, and is tried again later.
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

    /// Returns those of the user's channels that the session should listen to and does not, and how
    /// many it listens to, or is about to.
    pub fn missing(&self, mut channels: Vec<ChannelId>) -> (Vec<ChannelId>, usize) {
        channels.retain(|id| {
            let is_followed = self.live.contains_key(id) || self.wanted.contains_key(id);
            !is_followed && !self.unsubscribed.contains(id)
        });
        let wanted = self.wanted.keys();
        let waiting = wanted.filter(|id| !self.live.contains_key(*id)).count();
        (channels, self.live.len() + waiting)
    }

    /// A comparison found these channels [missing](Self::missing): they are subscribed to.
    pub fn listed(&mut self, missing: Vec<ChannelId>, now: Instant) {
        if self.is_closed() {
            return;
        }
        for id in missing {
            // Notices may have come since.
            if !self.live.contains_key(&id) {
                // The user's stream may be about to tell the addition, which then replaces this.
                let wanted = Wanted::new(Why::Listed, now + DOUBT);
                self.wanted.entry(id).or_insert(wanted);
            }
        }
    }

    /// A step found that the user is not in the channel, of which the user's stream has not told. A
    /// failover may still lose the removal: the store is asked again, until the stream ends the doubt.
    pub fn not_a_participant(&mut self, id: &ChannelId, why: Why, now: Instant) {
        if why == Why::Listed {
            self.settle(id, why);
        } else if let Some(wanted) = self.wanted_for(id, why) {
            let pause = DOUBT * 2u32.saturating_pow(wanted.attempts.min(16));
            wanted.why = Why::Doubted(why.position());
            wanted.attempts += 1;
            wanted.due = now + pause.min(LONGEST_DOUBT);
        }
    }

    /// The user's stream has told, or is about to tell, that the user is out of a channel.
    pub fn end_doubt(&mut self, id: &ChannelId) {
        let is_doubted = |wanted: &Wanted| matches!(wanted.why, Why::Doubted(_));
        if self.wanted.get(id).is_some_and(is_doubted) {
            self.wanted.remove(id);
        }
    }

    /// Requests took these subscriptions and failed: they are subscribed to again.
    pub fn interrupted(&mut self, had: Vec<(ChannelId, Position)>, now: Instant) {
        if !matches!(self.phase, Phase::Open) {
            return;
        }
        for (id, position) in had {
            // An addition that came after what the subscription was told says better why.
            let is_newer = |wanted: &Wanted| wanted.why.position().seq > position.seq;
            if self.taken.remove(&id) && !self.wanted.get(&id).is_some_and(is_newer) {
                let wanted = Wanted::new(Why::Interrupted(position), now);
                self.wanted.insert(id, wanted);
            }
        }
    }

    /// Ends subscriptions, and those that wait to begin. They are to be dropped outside of locks.
    pub fn unsubscribe(&mut self, ids: &[ChannelId]) -> Vec<S> {
        let mut ended = Vec::new();
        for id in ids {
            let live = self.live.remove(id);
            let was_followed = self.wanted.remove(id).is_some() || live.is_some();
            if was_followed && self.follows_additions {
                self.unsubscribed.insert(id.clone());
            }
            ended.extend(live);
        }
        ended
    }

    /// Doubts the subscriptions that the hub ended.
    pub fn doubt_ended(&mut self, now: Instant) {
        if !self.live.values().any(Handle::is_ended) {
            return;
        }
        let ended = self
            .live
            .extract_if(|_, subscription| subscription.is_ended());
        for (id, subscription) in ended {
            let why = Why::Doubted(subscription.topic_position());
            self.wanted
                .entry(id)
                .or_insert(Wanted::new(why, now + DOUBT));
        }
    }

    /// Whether there is anything to be done outside of requests, now or later.
    pub fn has_steps(&self) -> bool {
        !self.wanted.is_empty() || self.comparison.is_some()
    }

    /// What is to be done outside of requests. To be asked while no change is under way.
    pub fn next(&mut self, now: Instant) -> Next {
        let mut due: Vec<(Instant, &ChannelId, &Wanted)> = self
            .wanted
            .iter()
            .filter(|(_, wanted)| wanted.due <= now)
            .map(|(id, wanted)| (wanted.due, id, wanted))
            .collect();
        due.sort_unstable_by_key(|(due, id, _)| (*due, *id));
        // One that failed before is tried alone: it may be the only one that fails.
        let most = match due.first() {
            Some((_, _, first)) if first.attempts > 0 => 1,
            _ => STEP,
        };
        let due: Vec<ChannelId> = due
            .into_iter()
            .take_while(|(_, _, wanted)| most == 1 || wanted.attempts == 0)
            .take(most)
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
            return Next::Now(vec![Step::Compare { attempts }]);
        }
        let comparison = self.comparison.filter(|_| is_open);
        self.wanted
            .values()
            .map(|wanted| wanted.due)
            .chain(comparison.map(|comparison| comparison.due))
            .min()
            .map_or(Next::Nothing, Next::At)
    }

    fn step(&mut self, id: ChannelId, room: &mut usize, now: Instant) -> Option<Step> {
        let wanted = self.wanted.get_mut(&id)?;
        let (why, is_retry) = (wanted.why, wanted.attempts > 0);
        match (self.live.get(&id), why) {
            (Some(running), _) if running.is_ended() => {}
            (Some(running), Why::Added(position)) => {
                let has_reached = running.topic_position().seq >= position.seq;
                if has_reached && wanted.is_running {
                    self.settle(&id, why);
                } else {
                    // One from before a removal that the topic has not told yet ends soon.
                    wanted.is_running = has_reached;
                    wanted.due = now + SETTLING;
                }
                return None;
            }
            (Some(_), Why::Interrupted(_) | Why::Doubted(_) | Why::Listed) => {
                self.settle(&id, why);
                return None;
            }
            (None, _) => {}
        }
        if *room == 0 && !self.live.contains_key(&id) {
            self.settle(&id, why);
            // Never silence: the client may make room and subscribe. It has not been told of a
            // channel that was only listed.
            return (why != Why::Listed).then(|| Step::TellLimit {
                id,
                position: why.position(),
            });
        }
        *room = room.saturating_sub(1);
        Some(Step::Subscribe { id, why, is_retry })
    }

    fn wanted_for(&mut self, id: &ChannelId, why: Why) -> Option<&mut Wanted> {
        self.wanted.get_mut(id).filter(|wanted| wanted.why == why)
    }

    /// Whether the channel was still wanted for this reason. It is no more.
    fn settle(&mut self, id: &ChannelId, why: Why) -> bool {
        self.is_wanted(id, why) && self.wanted.remove(id).is_some()
    }
}

fn retry_pause(attempts: u32) -> Duration {
    RETRY_PAUSE * attempts.min(MAX_RETRY_PAUSES)
}
