//! The one task that tells a topic's records, in order, for as long as there is something to tell or to repair.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;

use super::batch::{Batch, Load};
use super::feed::Feed;
use super::seats::{Snapshot, Standing, Ticket};
use super::state::State;
use super::{Hub, Kind};
use crate::record::{Control, Record};
use crate::sync::MutexGuard;
use crate::{Continuity, Gap, Position, Replay};

/// What the broadcaster does next. Both, if both is due: neither can hold up the other.
struct Step {
    deliver: Option<Batch>,
    repair: Option<Position>,
}

/// What a page of the log did to a repair.
pub(super) enum Repaired {
    /// There is more to read at once.
    More(Batch),
    /// Nothing new yet: read again a little later.
    Later,
}

/// Tells what there is to tell, in order, until nothing is left.
pub(super) async fn broadcast(feed: Arc<Feed>, hub: Arc<Hub>) {
    let duty = Duty(&feed);
    let mut attempts = 0;
    while let Some(step) = feed.next() {
        if let Some(batch) = step.deliver {
            hub.deliver(&feed.topic, batch).await;
        }
        match step.repair {
            Some(position) => attempts = hub.repair(&feed, position, attempts).await,
            None => attempts = 0,
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
        state.repairing = false;
        state.doubtful = true;
        state.departed = Vec::new();
    }
}

impl Feed {
    /// The next step; `None` ends the broadcaster.
    fn next(self: &Arc<Self>) -> Option<Step> {
        let mut state = self.state.lock();
        state.departed = Vec::new();
        let mut doubles = 0;
        let mut records = Vec::new();
        for record in state.pending.take() {
            if self.kind == Kind::Passing {
                records.push(record);
            } else if state.repairing && record.is_durable() {
                let is_lossy = state.pending.push(record);
                state.doubtful |= is_lossy;
            } else if state.accept(&record, &mut doubles) {
                records.push(record);
            }
        }
        if doubles > 0
            && let Some(hub) = self.hub()
        {
            hub.count_doubles(doubles);
        }
        if state.repairing && state.seats.count() == 0 {
            // Without subscribers there is nothing to repair: who comes next brings a position along.
            state.position = None;
            state.repairing = false;
            state.pending.take();
        }
        let repair = state.position.filter(|_| state.repairing);
        if records.is_empty() && repair.is_none() {
            state.broadcasting = false;
            return None;
        }
        let deliver = (!records.is_empty()).then(|| self.batch(state, Load::Passed(records)));
        Some(Step { deliver, repair })
    }

    /// Takes the audience's snapshot, and ends the subscriptions that the records end.
    fn batch(self: &Arc<Self>, state: MutexGuard<'_, State>, load: Load) -> Batch {
        let (audience, encodings) = (state.seats.snapshot(), state.seats.encodings());
        drop(state);
        for record in load.records() {
            let seq = if record.is_durable() {
                record.position.seq
            } else {
                u64::MAX
            };
            match &record.control {
                Control::Evict(evicted) => self.end(&audience, |subject| subject == evicted, seq),
                Control::Close => self.end(&audience, |_| true, seq),
                Control::None | Control::Except(_) => {}
            }
        }
        Batch {
            load,
            audience,
            encodings,
        }
    }

    /// Ends the subscriptions of those subjects that were let in before `seq`. Who joined after the snapshot was let in knowing of it.
    fn end(self: &Arc<Self>, audience: &Snapshot, ends: impl Fn(&[u8]) -> bool, seq: u64) {
        let tickets: Vec<Ticket> = audience
            .iter()
            .filter(|(_, seat)| ends(seat.outbox.subject()))
            .map(|(ticket, _)| ticket)
            .collect();
        if tickets.is_empty() {
            return;
        }
        let mut state = self.state.lock();
        let before = state.seats.count();
        for ticket in tickets {
            match state.seats.get(ticket).map(|seat| seat.standing) {
                Some(Standing::Joining { evicted }) => state.seats.stand(
                    ticket,
                    Standing::Joining {
                        evicted: evicted.max(seq),
                    },
                ),
                Some(Standing::Behind { head: known, .. } | Standing::Live { after: known })
                    if known < seq =>
                {
                    state.dismiss(ticket);
                }
                _ => {}
            }
        }
        state.keep_ring();
        let gone = before - state.seats.count();
        self.left(state, gone);
    }

    /// Takes a page of the log into a repair. `strangers` may not listen any more: they are asked for where the log does not go on.
    pub(super) fn repaired(
        self: &Arc<Self>,
        replay: Replay,
        strangers: &HashSet<Bytes>,
    ) -> Repaired {
        let mut state = self.state.lock();
        let Some(position) = state.position else {
            return Repaired::Later;
        };
        if let Continuity::Broken(gap) = replay.continuity {
            state.set_position(replay.head);
            if gap == Gap::Diverged {
                let has_forgotten = state.pending.forget_durable();
                state.doubtful |= has_forgotten;
            }
            state.close_repair(replay.head);
            let audience = state.seats.snapshot();
            drop(state);
            let is_other_history = gap == Gap::Diverged;
            self.end(
                &audience,
                |subject| strangers.contains(subject),
                if is_other_history {
                    u64::MAX
                } else {
                    replay.head.seq
                },
            );
            let mut state = self.state.lock();
            if is_other_history {
                state.seats.lower(replay.head.seq);
            }
            return Repaired::More(self.batch(state, Load::Gap(gap, replay.head)));
        }
        let records: Vec<Record> = replay
            .records
            .into_iter()
            .filter(|record| state.accept_logged(record))
            .collect();
        if records.is_empty() && replay.head.seq > position.seq {
            return Repaired::Later;
        }
        let is_over = state.close_repair(replay.head);
        if records.is_empty() && !is_over {
            Repaired::Later
        } else {
            Repaired::More(self.batch(state, Load::Logged(records)))
        }
    }
}
