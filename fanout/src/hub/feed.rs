//! One topic on this node: its position and its subscribers, which advance together.
//!
//! Whatever is told goes through one serial broadcaster, a task that exists only while there is something to tell or to repair.
//! Its steps are taken under the feed's lock, and nothing is read or written while that is held.

use std::fmt;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};

use super::batch::{Batch, Load};
use super::ring::Ring;
use super::seats::{Seats, Snapshot, Standing, Ticket};
use super::{Hub, Kind};
use crate::record::{Control, Record};
use crate::{Continuity, Gap, Outbox, Position, Replay, Topic};

/// Passing records that wait during a repair; older ones go first.
const PASSING: usize = 1_024;

/// Reads that may find less than the bus has announced, before the announcement is taken for a write that was lost.
const PATIENCE: u32 = 5;

/// A topic.
pub(super) struct Feed {
    pub(super) topic: Topic,
    pub(super) kind: Kind,
    hub: Weak<Hub>,
    state: Mutex<State>,
}

/// How the feed stands with the bus.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Membership {
    #[default]
    Unconfirmed,
    Confirmed,
    /// Being removed: whoever finds it looks again.
    Gone,
}

#[derive(Default)]
struct State {
    seats: Seats,
    membership: Membership,
    /// Counts how often the last subscriber left.
    epoch: u32,
    /// The newest record told. `None` until somebody starts or something arrives.
    position: Option<Position>,
    pending: Vec<Record>,
    /// The broadcaster is at work.
    broadcasting: bool,
    /// The log is read from the position on, and durable records from the bus are not taken.
    repairing: bool,
    /// The highest `seq` that the bus announced during a repair, and how often the log did not have it.
    announced: u64,
    disappointed: u32,
    /// Something may have been missed; to be compared with the log's head.
    doubtful: bool,
    /// Something durable came since the last comparison.
    busy: bool,
    ring: Option<Box<Ring>>,
    /// Those who left while a batch was on its way to them.
    departed: Vec<usize>,
}

/// What the broadcaster does next.
enum Step {
    Deliver(Batch),
    Repair(Position),
    Rest,
}

/// What a joining subscriber becomes.
pub(super) enum Start {
    Live,
    Behind(Arc<Outbox>),
    Ended,
}

/// What a subscriber that is behind does next.
pub(super) enum CatchUp {
    /// It is live.
    Live,
    /// It was evicted, or left.
    Ended,
    /// It goes on with these.
    Recent(Vec<Record>),
    /// It reads the log.
    Read,
    /// A batch from an earlier subscription of the same outbox is still on its way.
    Wait,
}

/// What a page of the log did to a repair.
pub(super) enum Repaired {
    /// There is more to read at once.
    More(Batch),
    /// Nothing new yet: read again a little later.
    Later,
}

impl Feed {
    pub(super) fn new(topic: Topic, kind: Kind, hub: &Arc<Hub>) -> Arc<Self> {
        Arc::new(Self { topic, kind, hub: Arc::downgrade(hub), state: Mutex::default() })
    }

    pub(super) fn hub(&self) -> Option<Arc<Hub>> {
        self.hub.upgrade()
    }

    // ── Joining and leaving ──

    /// Takes a seat, and tells whether the bus has confirmed the topic; `None` if the feed is being removed.
    pub(super) fn sit(&self, outbox: &Arc<Outbox>) -> Option<(Ticket, bool)> {
        let mut state = self.state.lock();
        if state.membership == Membership::Gone {
            return None;
        }
        let ticket = state.seats.take(Arc::clone(outbox));
        state.keep_ring();
        Some((ticket, state.membership == Membership::Confirmed))
    }

    pub(super) fn confirm(&self) {
        let mut state = self.state.lock();
        if state.membership == Membership::Unconfirmed {
            state.membership = Membership::Confirmed;
        }
    }

    pub(super) fn is_seated(&self, ticket: Ticket) -> bool {
        self.state.lock().seats.get(ticket).is_some()
    }

    pub(super) fn leave(self: &Arc<Self>, ticket: Ticket) {
        let mut state = self.state.lock();
        let Some(seat) = state.seats.remove(ticket) else { return };
        if state.broadcasting && matches!(seat.standing, Standing::Live { .. }) {
            state.departed.push(Arc::as_ptr(&seat.outbox).addr());
        }
        state.keep_ring();
        self.left(state, 1);
    }

    /// After `seats` subscribers went.
    fn left(self: &Arc<Self>, mut state: MutexGuard<'_, State>, seats: usize) {
        let idle = seats > 0 && state.seats.count() == 0;
        state.epoch = state.epoch.wrapping_add(u32::from(idle));
        let epoch = state.epoch;
        drop(state);
        if let Some(hub) = self.hub.upgrade() {
            hub.left(self, seats, idle.then_some(epoch));
        }
    }

    /// Gives the feed up if nobody came since the last subscriber left for the `epoch`th time.
    pub(super) fn give_up(&self, epoch: u32) -> bool {
        let mut state = self.state.lock();
        let idle = state.seats.count() == 0 && state.epoch == epoch && state.membership != Membership::Gone;
        if idle {
            state.membership = Membership::Gone;
        }
        idle
    }

    pub(super) fn start(self: &Arc<Self>, ticket: Ticket, cursor: Position, head: Position) -> Start {
        let mut state = self.state.lock();
        let Some(seat) = state.seats.get(ticket) else { return Start::Ended };
        let outbox = Arc::clone(&seat.outbox);
        if matches!(seat.standing, Standing::Joining { evicted } if evicted > head.seq) {
            state.seats.remove(ticket);
            state.keep_ring();
            self.left(state, 1);
            return Start::Ended;
        }
        if self.kind == Kind::Passing {
            state.seats.stand(ticket, Standing::Live { after: 0 });
            return Start::Live;
        }
        let position = *state.position.get_or_insert(head);
        let is_other_history = position.seq == head.seq && position.at != head.at;
        let is_current = cursor == head && position.seq <= head.seq && !state.is_departing(&outbox);
        let standing = if is_current { Standing::Live { after: head.seq } } else { Standing::Behind { head: head.seq } };
        state.seats.stand(ticket, standing);
        state.keep_ring();
        if std::mem::take(&mut state.doubtful) || is_other_history {
            self.repair(&mut state);
        }
        if is_current { Start::Live } else { Start::Behind(outbox) }
    }

    /// Lets a subscriber that is behind go live if it has everything. `is_end` tells that the log ended at its cursor just now.
    pub(super) fn catch_up(&self, ticket: Ticket, cursor: Position, is_end: bool) -> CatchUp {
        let mut state = self.state.lock();
        let Some(seat) = state.seats.get(ticket) else { return CatchUp::Ended };
        if state.is_departing(&seat.outbox) {
            return CatchUp::Wait;
        }
        let position = *state.position.get_or_insert(cursor);
        if position == cursor || (is_end && cursor.seq > position.seq) {
            state.seats.stand(ticket, Standing::Live { after: cursor.seq });
            state.keep_ring();
            return CatchUp::Live;
        }
        match state.ring.as_ref().and_then(|ring| ring.after(cursor)) {
            Some(records) => CatchUp::Recent(records),
            None => CatchUp::Read,
        }
    }

    // ── What arrives ──

    pub(super) fn arrive(self: &Arc<Self>, record: Record) {
        let mut state = self.state.lock();
        if state.repairing && record.is_durable() {
            state.announced = state.announced.max(record.position.seq);
            return self.broadcast(&mut state);
        }
        if state.repairing && state.pending.len() >= PASSING {
            state.pending.remove(0);
        }
        state.pending.push(record);
        self.broadcast(&mut state);
    }

    /// Notes that something may have been missed.
    pub(super) fn doubt(&self) {
        self.state.lock().doubtful = true;
    }

    /// The position, if it is to be compared with the log: of those in doubt, or of those that were quiet since the last time.
    pub(super) fn question(&self, doubtful: bool) -> Option<Position> {
        let mut state = self.state.lock();
        let busy = if doubtful { !state.doubtful } else { std::mem::take(&mut state.busy) };
        if busy || state.repairing || self.kind == Kind::Passing || state.seats.count() == 0 {
            return None;
        }
        let position = state.position?;
        state.doubtful = false;
        Some(position)
    }

    /// Reads the log if its head is not where this feed stands, and has stood since before the head was read.
    pub(super) fn compare(self: &Arc<Self>, asked: Position, head: Position) {
        let mut state = self.state.lock();
        if state.position == Some(asked) && head != asked {
            self.repair(&mut state);
        }
    }

    /// Reads the log from the position on.
    pub(super) fn check(self: &Arc<Self>) {
        self.repair(&mut self.state.lock());
    }

    fn repair(self: &Arc<Self>, state: &mut State) {
        if !state.repairing {
            state.start_repair();
            self.broadcast(state);
        }
    }

    /// Sees to it that the broadcaster is at work.
    fn broadcast(self: &Arc<Self>, state: &mut State) {
        if state.broadcasting {
            return;
        }
        if let Some(hub) = self.hub.upgrade() {
            state.broadcasting = true;
            let feed = Arc::clone(self);
            hub.runtime.clone().spawn(async move { broadcast(feed, hub).await });
        }
    }

    // ── The broadcaster's steps ──

    fn next(self: &Arc<Self>) -> Step {
        let mut state = self.state.lock();
        state.departed = Vec::new();
        if state.pending.is_empty() {
            return match state.position {
                Some(position) if state.repairing && state.seats.count() > 0 => Step::Repair(position),
                _ => {
                    // Without subscribers there is nothing to repair: who comes next brings a position along.
                    if state.repairing {
                        state.position = None;
                        state.end_repair();
                    }
                    state.broadcasting = false;
                    Step::Rest
                }
            };
        }
        let arrived = std::mem::take(&mut state.pending);
        let mut doubles = 0;
        let records = arrived.into_iter().filter(|record| self.kind == Kind::Passing || state.accept(record, &mut doubles)).collect();
        let batch = self.batch(state, Load::Records(records));
        if doubles > 0
            && let Some(hub) = self.hub.upgrade()
        {
            hub.count_doubles(doubles);
        }
        Step::Deliver(batch)
    }

    /// Takes the audience's snapshot, and ends the subscriptions that the records end.
    fn batch(self: &Arc<Self>, state: MutexGuard<'_, State>, mut load: Load) -> Batch {
        let (audience, encodings) = (state.seats.snapshot(), state.seats.encodings());
        drop(state);
        if let Load::Records(records) = &mut load {
            // After a close nobody is left to hear the rest.
            let end = records.iter().position(|r| r.control == Control::Close).map_or(records.len(), |index| index + 1);
            records.truncate(end);
            for record in records.iter() {
                match &record.control {
                    Control::Evict(subject) => self.evict(&audience, Some(subject), record),
                    Control::Close => self.evict(&audience, None, record),
                    Control::None | Control::Except(_) => {}
                }
            }
        }
        Batch { load, audience, encodings }
    }

    /// Ends the subscriptions of a subject (or all) that stand before a record. Who joined after it arrived was let in knowing of it.
    fn evict(self: &Arc<Self>, audience: &Snapshot, subject: Option<&Bytes>, record: &Record) {
        let seq = if record.is_durable() { record.position.seq } else { u64::MAX };
        let matches = |outbox: &Outbox| subject.is_none_or(|subject| *subject == outbox.subject());
        let tickets: Vec<Ticket> = audience.iter().filter(|(_, seat)| matches(&seat.outbox)).map(|(ticket, _)| ticket).collect();
        if tickets.is_empty() {
            return;
        }
        let mut state = self.state.lock();
        let before = state.seats.count();
        for ticket in tickets {
            match state.seats.get(ticket).map(|seat| seat.standing) {
                Some(Standing::Joining { evicted }) => state.seats.stand(ticket, Standing::Joining { evicted: evicted.max(seq) }),
                Some(Standing::Behind { head: known } | Standing::Live { after: known }) if known < seq => {
                    state.seats.remove(ticket);
                }
                _ => {}
            }
        }
        state.keep_ring();
        let gone = before - state.seats.count();
        self.left(state, gone);
    }

    /// Takes a page of the log into a repair.
    pub(super) fn repaired(self: &Arc<Self>, replay: Replay) -> Repaired {
        let mut state = self.state.lock();
        let Some(position) = state.position else { return Repaired::Later };
        if let Continuity::Broken(gap) = replay.continuity {
            state.set_position(replay.head);
            if gap == Gap::Diverged {
                state.seats.lower(replay.head.seq);
            }
            state.close_repair(replay.head);
            return Repaired::More(self.batch(state, Load::Gap(gap, replay.head)));
        }
        let records: Vec<Record> = replay.records.into_iter().filter(|record| state.accept_logged(record)).collect();
        if records.is_empty() && replay.head.seq > position.seq {
            return Repaired::Later;
        }
        let is_over = state.close_repair(replay.head);
        if records.is_empty() && !is_over { Repaired::Later } else { Repaired::More(self.batch(state, Load::Records(records))) }
    }
}

impl State {
    fn is_departing(&self, outbox: &Arc<Outbox>) -> bool {
        self.departed.contains(&Arc::as_ptr(outbox).addr())
    }

    /// Whether a record from the bus is told: a passing one, or the next one.
    fn accept(&mut self, record: &Record, doubles: &mut u64) -> bool {
        if !record.is_durable() {
            return true;
        }
        let next = record.position;
        if self.repairing {
            self.announced = self.announced.max(next.seq);
            return false;
        }
        self.busy = true;
        match self.position {
            Some(position) if self.seats.count() > 0 => {
                // The store's clock never runs backwards in a topic: what is newer than this position and numbered
                // below it belongs to another history.
                let is_double = next == position || (next.seq < position.seq && next.at <= position.at);
                let is_next = next.seq == position.seq + 1 && record.before == position.at;
                if is_next {
                    self.advance(record);
                } else if is_double {
                    *doubles += 1;
                } else {
                    self.start_repair();
                    self.announced = next.seq;
                }
                is_next
            }
            // Nobody was told anything yet.
            _ => {
                self.set_position(next);
                true
            }
        }
    }

    /// Whether a record from the log is told: the next one.
    fn accept_logged(&mut self, record: &Record) -> bool {
        let is_next = self.position.is_some_and(|position| record.position.seq == position.seq + 1);
        if is_next {
            self.busy = true;
            self.advance(record);
        }
        is_next
    }

    fn advance(&mut self, record: &Record) {
        self.position = Some(record.position);
        if let Some(ring) = &mut self.ring {
            ring.push(record.clone());
        }
    }

    fn set_position(&mut self, position: Position) {
        self.position = Some(position);
        self.ring = None;
        self.keep_ring();
    }

    /// Keeps recent records while, and only while, somebody has to catch up with them.
    fn keep_ring(&mut self) {
        if self.seats.unsettled() == 0 {
            self.ring = None;
        } else if let (None, Some(position)) = (&self.ring, self.position) {
            self.ring = Some(Box::new(Ring::new(position)));
        }
    }

    fn start_repair(&mut self) {
        self.repairing = true;
        self.announced = 0;
        self.disappointed = 0;
    }

    fn end_repair(&mut self) {
        self.repairing = false;
    }

    /// Ends the repair if the position is the log's head and nothing newer was announced, or that was announced in vain.
    fn close_repair(&mut self, head: Position) -> bool {
        let position = self.position.unwrap_or_default();
        let reached = position.seq >= head.seq;
        if reached && self.announced > position.seq {
            self.disappointed += 1;
        }
        let is_over = reached && (self.announced <= position.seq || self.disappointed >= PATIENCE);
        if is_over {
            self.end_repair();
        }
        is_over
    }
}

/// Tells what there is to tell, in order, until nothing is left.
async fn broadcast(feed: Arc<Feed>, hub: Arc<Hub>) {
    let duty = Duty(&feed);
    let mut attempts = 0;
    loop {
        match feed.next() {
            Step::Rest => break,
            Step::Deliver(batch) => hub.deliver(&feed.topic, batch).await,
            Step::Repair(position) => attempts = hub.repair(&feed, position, attempts).await,
        }
    }
    std::mem::forget(duty);
}

/// Lets the next arrival start a new broadcaster when this one did not come to its end.
struct Duty<'a>(&'a Arc<Feed>);

impl Drop for Duty<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!(topic = %self.0.topic, "a broadcast ended before it was done");
        }
        let mut state = self.0.state.lock();
        state.broadcasting = false;
        state.end_repair();
        state.doubtful = true;
    }
}

impl fmt::Debug for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Feed").field("topic", &self.topic).field("kind", &self.kind).finish_non_exhaustive()
    }
}
