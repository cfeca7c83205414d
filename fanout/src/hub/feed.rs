//! One topic on this node: its position and its subscribers, which advance together.
//!
//! Whatever is told goes through one serial broadcaster, a task that exists only while there is something to tell or to repair.
//! Its steps are taken under the feed's lock, and nothing is read or written while that is held.

use std::fmt;
use std::sync::{Arc, Weak};

use super::broadcaster::broadcast;
use super::seats::{Snapshot, Standing, Ticket};
use super::state::{Membership, State};
use super::{Hub, Kind};
use crate::record::Record;
use crate::sync::{Mutex, MutexGuard};
use crate::{Outbox, Position, Topic};

/// A topic.
pub(super) struct Feed {
    pub(super) topic: Topic,
    pub(super) kind: Kind,
    hub: Weak<Hub>,
    pub(super) state: Mutex<State>,
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
    /// As far as is known it has more than the topic.
    Ahead,
    /// What an earlier subscription of the same outbox was to be told is still on its way.
    Wait,
}

impl Feed {
    pub(super) fn new(topic: Topic, kind: Kind, hub: &Arc<Hub>) -> Arc<Self> {
        Arc::new(Self {
            topic,
            kind,
            hub: Arc::downgrade(hub),
            state: Mutex::default(),
        })
    }

    pub(super) fn hub(&self) -> Option<Arc<Hub>> {
        self.hub.upgrade()
    }

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
        if !state.dismiss(ticket) {
            return;
        }
        state.keep_ring();
        self.left(state, 1);
    }

    /// After `seats` subscribers went.
    pub(super) fn left(self: &Arc<Self>, mut state: MutexGuard<'_, State>, seats: usize) {
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
        let idle = state.seats.count() == 0
            && state.epoch == epoch
            && state.membership != Membership::Gone;
        if idle {
            state.membership = Membership::Gone;
        }
        idle
    }

    /// All seats at this instant.
    pub(super) fn audience(&self) -> Snapshot {
        self.state.lock().seats.snapshot()
    }

    /// Starts a subscriber that was let in at `head` and has what stands up to `cursor`.
    pub(super) fn start(
        self: &Arc<Self>,
        ticket: Ticket,
        cursor: Position,
        head: Position,
    ) -> Start {
        let mut state = self.state.lock();
        let Some(seat) = state.seats.get(ticket) else {
            return Start::Ended;
        };
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
        let position = state.establish(head);
        let is_other_history = position.seq == head.seq && position.at != head.at;
        let is_held = state.is_departing(&outbox);
        if !is_held {
            outbox.unmute(&self.topic);
        }
        let is_current = cursor == head && position == head && !is_held;
        let standing = if is_current {
            Standing::Live { after: head.seq }
        } else {
            Standing::Behind {
                head: head.seq,
                is_pumped: true,
                is_held,
            }
        };
        state.seats.stand(ticket, standing);
        state.keep_ring();
        if std::mem::take(&mut state.doubtful) || is_other_history {
            self.repair(&mut state);
        }
        if is_current {
            Start::Live
        } else {
            Start::Behind(outbox)
        }
    }

    /// Notes that a subscriber that is behind was let in anew, at this head.
    pub(super) fn admit(&self, ticket: Ticket, head: Position) {
        let mut state = self.state.lock();
        if let Some(Standing::Behind {
            is_pumped, is_held, ..
        }) = state.seats.get(ticket).map(|seat| seat.standing)
        {
            state.seats.stand(
                ticket,
                Standing::Behind {
                    head: head.seq,
                    is_pumped,
                    is_held,
                },
            );
        }
    }

    /// The pump of this subscriber has ended: it tells nothing more.
    pub(super) fn pump_ended(&self, ticket: Ticket) {
        let mut state = self.state.lock();
        match state.seats.get(ticket).map(|seat| seat.standing) {
            Some(Standing::Behind { head, is_held, .. }) => state.seats.stand(
                ticket,
                Standing::Behind {
                    head,
                    is_pumped: false,
                    is_held,
                },
            ),
            Some(_) => {}
            None => state.pumped.retain(|(pumped, _)| *pumped != ticket),
        }
    }

    /// Lets a subscriber that is behind go live where the topic stands.
    ///
    /// Up to the head at which it was let in it reads the log, which tells everything as it is now: what the topic still has to
    /// tell of that, or told lately, is as it was. One that is ahead of the topic stays behind until the topic comes there: which
    /// events the topic tells on its way, if a history was replaced meanwhile, nobody knows before.
    pub(super) fn catch_up(&self, ticket: Ticket, cursor: Position) -> CatchUp {
        let mut state = self.state.lock();
        let Some(seat) = state.seats.get(ticket) else {
            return CatchUp::Ended;
        };
        if state.is_departing(&seat.outbox) {
            return CatchUp::Wait;
        }
        let Standing::Behind {
            head,
            is_pumped,
            is_held,
        } = seat.standing
        else {
            return CatchUp::Ended;
        };
        if is_held {
            seat.outbox.unmute(&self.topic);
            state.seats.stand(
                ticket,
                Standing::Behind {
                    head,
                    is_pumped,
                    is_held: false,
                },
            );
        }
        if cursor.seq < head {
            return CatchUp::Read;
        }
        let position = state.establish(cursor);
        if position == cursor {
            state
                .seats
                .stand(ticket, Standing::Live { after: cursor.seq });
            state.keep_ring();
            return CatchUp::Live;
        }
        match state.ring.as_ref().and_then(|ring| ring.after(cursor)) {
            Some(records) => CatchUp::Recent(records),
            None if position.seq < cursor.seq => CatchUp::Ahead,
            None => CatchUp::Read,
        }
    }

    /// Takes a record from the bus.
    pub(super) fn arrive(self: &Arc<Self>, record: Record) {
        let mut state = self.state.lock();
        let is_lossy = state.pending.push(record);
        state.doubtful |= is_lossy;
        self.broadcast(&mut state);
    }

    /// Notes that something may have been missed.
    pub(super) fn doubt(&self) {
        self.state.lock().doubtful = true;
    }

    /// The position, if it is to be compared with the log: of those in doubt, or of those that were quiet since the last time.
    pub(super) fn question(&self, doubtful: bool) -> Option<Position> {
        let mut state = self.state.lock();
        let busy = if doubtful {
            !state.doubtful
        } else {
            std::mem::take(&mut state.busy)
        };
        if busy || state.repairing || self.kind == Kind::Passing || state.seats.count() == 0 {
            return None;
        }
        let position = state.position?;
        state.doubtful = false;
        Some(position)
    }

    /// Reads the log if its head is not where this feed stood when the head was asked for, or is beyond where it stands now.
    pub(super) fn compare(self: &Arc<Self>, asked: Position, head: Position) {
        let mut state = self.state.lock();
        let is_elsewhere = state.position.is_some_and(|position| {
            if position == asked {
                head != asked
            } else {
                head.seq > position.seq
            }
        });
        if is_elsewhere {
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
            hub.runtime
                .clone()
                .spawn(async move { broadcast(feed, hub).await });
        }
    }
}

impl fmt::Debug for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Feed")
            .field("topic", &self.topic)
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}
