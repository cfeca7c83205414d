//! The channels that are followed: where each stands, and what is to be read of it after a gap.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use protocol::{ChannelId, params::Cursor};

use super::{Ticket, repair::Repair, retry::Retry};
use crate::Position;

/// Channels in one `connect` or `channel.subscribe`.
pub(super) const AT_ONCE: usize = 200;

/// Whether a session tells a channel's events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// It is to be subscribed to. Events that come all the same will come again behind the position.
    Apart,
    /// The subscription is asked for. Events before the reply will come again behind the position.
    Joining,
    /// It does.
    Live,
    /// The end of the subscription is asked for; followed anew, it is to be subscribed to afterwards.
    Leaving { is_wanted: bool },
}

#[derive(Debug)]
pub(super) struct Stream {
    /// None: from now on, whenever that is.
    pub(super) place: Option<Position>,
    state: State,
    pub(super) retry: Retry,
    pub(super) repair: Option<Repair>,
}

/// The channels, and those of them that something is to be done for.
#[derive(Debug, Default)]
pub(super) struct Streams {
    all: BTreeMap<ChannelId, Stream>,
    apart: BTreeSet<ChannelId>,
    leaving: BTreeSet<ChannelId>,
    broken: BTreeSet<ChannelId>,
}

impl Streams {
    pub(super) fn get(&self, id: &ChannelId) -> Option<&Stream> {
        self.all.get(id)
    }

    pub(super) fn get_mut(&mut self, id: &ChannelId) -> Option<&mut Stream> {
        self.all.get_mut(id)
    }

    pub(super) fn state(&self, id: &ChannelId) -> Option<State> {
        self.all.get(id).map(|stream| stream.state)
    }

    pub(super) fn insert(&mut self, id: ChannelId, place: Option<Position>, state: State) {
        self.all.insert(
            id.clone(),
            Stream {
                place,
                state,
                retry: Retry::default(),
                repair: None,
            },
        );
        self.broken.remove(&id);
        self.index(id, state);
    }

    pub(super) fn enter(&mut self, id: &ChannelId, state: State) {
        if let Some(stream) = self.all.get_mut(id) {
            stream.state = state;
            self.index(id.clone(), state);
        }
    }

    fn index(&mut self, id: ChannelId, state: State) {
        self.apart.remove(&id);
        self.leaving.remove(&id);
        match state {
            State::Apart => drop(self.apart.insert(id)),
            State::Leaving { .. } => drop(self.leaving.insert(id)),
            State::Joining | State::Live => {}
        }
    }

    pub(super) fn remove(&mut self, id: &ChannelId) {
        self.apart.remove(id);
        self.leaving.remove(id);
        self.broken.remove(id);
        self.all.remove(id);
    }

    /// Something is to be read of a channel.
    pub(super) fn breaks(&mut self, id: &ChannelId, repair: impl FnOnce(Option<Repair>) -> Repair) {
        if let Some(stream) = self.all.get_mut(id) {
            stream.repair = Some(repair(stream.repair.take()));
            self.broken.insert(id.clone());
        }
    }

    /// Nothing more is to be read of a channel.
    pub(super) fn mended(&mut self, id: &ChannelId) {
        self.broken.remove(id);
        if let Some(stream) = self.all.get_mut(id) {
            stream.repair = None;
        }
    }

    /// The session ended.
    pub(super) fn disconnected(&mut self) {
        let unwanted = |stream: &Stream| stream.state == State::Leaving { is_wanted: false };
        let gone: Vec<_> = self
            .leaving
            .iter()
            .filter(|id| self.all.get(*id).is_some_and(unwanted))
            .cloned()
            .collect();
        gone.iter().for_each(|id| self.remove(id));
        self.leaving.clear();
        for (id, stream) in &mut self.all {
            stream.state = State::Apart;
            stream.retry = Retry::default();
            if let Some(repair) = &mut stream.repair {
                repair.disconnected();
            }
            self.apart.insert(id.clone());
        }
    }

    /// Those to be resumed by `connect`, in which something happened last; they are joining from here on.
    pub(super) fn resume(&mut self) -> BTreeMap<ChannelId, Cursor> {
        let mut latest: Vec<_> = self
            .apart
            .iter()
            .map(|id| (self.all[id].place.map(|place| place.at), id.clone()))
            .collect();
        latest.sort_by(|(one, _), (other, _)| other.cmp(one));
        latest.truncate(AT_ONCE);
        self.join(latest.into_iter().map(|(_, id)| id))
    }

    /// The next that are to be subscribed to; they are joining from here on.
    pub(super) fn batch(&mut self, now: Instant) -> BTreeMap<ChannelId, Cursor> {
        let due: Vec<_> = self
            .apart
            .iter()
            .filter(|id| self.all[*id].retry.is_due(now))
            .take(AT_ONCE)
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
                    .and_then(|stream| stream.place)
                    .map_or(Cursor::Now, Cursor::from),
            );
            self.enter(&id, State::Joining);
        }
        cursors
    }

    /// Those that were asked for and not answered yet.
    pub(super) fn joining(&self) -> Vec<ChannelId> {
        self.all
            .iter()
            .filter(|(_, stream)| stream.state == State::Joining)
            .map(|(id, _)| id.clone())
            .collect()
    }

    /// Those whose end is to be asked for.
    pub(super) fn leaving(&self) -> Vec<ChannelId> {
        self.leaving.iter().take(AT_ONCE).cloned().collect()
    }

    /// Up to so many of which something is to be read now, beside those of which something is.
    pub(super) fn to_read(&self, most: usize, now: Instant) -> Vec<ChannelId> {
        let repairs = || {
            self.broken
                .iter()
                .filter_map(|id| Some((id, self.all.get(id)?)))
        };
        let reading = repairs()
            .filter(|(_, stream)| stream.repair.as_ref().is_some_and(Repair::is_under_way))
            .count();
        let is_ready = |stream: &Stream| {
            stream.state == State::Live
                && stream
                    .repair
                    .as_ref()
                    .is_some_and(|r| !r.is_under_way() && r.retry.is_due(now))
        };
        repairs()
            .filter(|(_, stream)| is_ready(stream))
            .take(most.saturating_sub(reading))
            .map(|(id, _)| id.clone())
            .collect()
    }

    /// When something may be done that may not be done now.
    pub(super) fn due(&self, now: Instant) -> Option<Instant> {
        let joins = self
            .apart
            .iter()
            .filter_map(|id| self.all.get(id)?.retry.due());
        let reads = self
            .broken
            .iter()
            .filter_map(|id| self.all.get(id)?.repair.as_ref()?.retry.due());
        joins.chain(reads).filter(|at| *at > now).min()
    }

    /// Whether a reply to this request is awaited for a channel's repair.
    pub(super) fn reads(&mut self, id: &ChannelId, ticket: Ticket) -> Option<&mut Repair> {
        self.all
            .get_mut(id)?
            .repair
            .as_mut()
            .filter(|repair| repair.is_answered_by(ticket))
    }
}
