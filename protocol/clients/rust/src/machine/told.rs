//! What the server tells: entries, events and gaps, and where they leave each stream.

use std::time::{Duration, Instant};

use protocol::{
    ChannelId, EventMessage,
    event::Event,
    model::{Entry, EntryResult, Gap},
    params::Watch,
};
use serde::Deserialize;

use super::{
    Anomaly, Machine, Update,
    repair::{Listing, Repair},
    replies::unanswered,
    streams::State,
};
use crate::{Position, policy::Step};

impl Machine {
    /// The answer to `connect` or `channel.subscribe`.
    pub(super) fn entries(&mut self, entries: Vec<EntryResult>, now: Instant) {
        for entry in entries {
            match entry {
                EntryResult::Entry(entry) => self.entry(&entry),
                EntryResult::Failed(failed) => {
                    self.not_joined(failed.channel_id, failed.error, now)
                }
            }
        }
        // What the answer leaves out is asked for again.
        for id in self.streams.joining() {
            self.not_joined(id, unanswered(), now);
        }
    }

    fn entry(&mut self, entry: &Entry) {
        let (id, head) = (
            &entry.channel_id,
            Position {
                seq: entry.seq,
                at: entry.at,
            },
        );
        let place = self.streams.get(id).and_then(|stream| stream.place);
        match (self.streams.state(id), place, entry.gap) {
            (Some(State::Joining), Some(from), Some(gap)) => {
                self.meet_gap(id, gap, Some(from), head)
            }
            (Some(State::Joining | State::Apart), None, _) => self.lives(id, head),
            (Some(State::Joining), Some(from), None) => self.lives(id, from),
            // It was not resumed, but watched by the server's choice: it begins anew from where it stands.
            (Some(State::Apart), Some(_), _) => {}
            (Some(State::Live | State::Leaving { .. }), ..) => {}
            (None, ..) if self.settings.watch == Watch::All => {
                self.streams.insert(id.clone(), Some(head), State::Live)
            }
            (None, ..) => {}
        }
    }

    fn lives(&mut self, id: &ChannelId, place: Position) {
        if let Some(stream) = self.streams.get_mut(id) {
            (stream.place, stream.retry) = (Some(place), super::retry::Retry::default());
        }
        self.streams.enter(id, State::Live);
    }

    fn meet_gap(&mut self, id: &ChannelId, gap: Gap, from: Option<Position>, to: Position) {
        self.tell(Update::Gap {
            channel_id: Some(id.clone()),
            gap,
            from,
            to,
        });
        if gap == Gap::LimitReached {
            self.streams.remove(id);
            return;
        }
        self.lives(id, to);
        self.streams.breaks(id, |before| {
            Repair::of(gap, from.map_or(0, |from| from.seq), before)
        });
    }

    pub(super) fn meet_own_gap(&mut self, gap: Gap, from: Position, to: Position) {
        self.own = Some(to);
        self.listing = Some(Listing::default());
        self.tell(Update::Gap {
            channel_id: None,
            gap,
            from: Some(from),
            to,
        });
    }

    /// An event came.
    pub(super) fn event(&mut self, event: EventMessage, now: Instant) {
        match (&event.channel_id, event.seq, event.at) {
            (Some(id), Some(seq), Some(at)) => {
                self.of_channel(id.clone(), Position { seq, at }, event)
            }
            (None, Some(seq), Some(at)) => self.of_own(Position { seq, at }, event),
            _ => self.passing(event, now),
        }
    }

    fn of_channel(&mut self, id: ChannelId, position: Position, event: EventMessage) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return self.tell(Update::Anomaly(Anomaly::Foreign(event)));
        };
        let at = stream.place.unwrap_or(Position { seq: 0, at: 0 });
        let is_live = self.streams.state(&id) == Some(State::Live);
        match at.step(position.seq) {
            // It comes again behind the position, or is not wanted.
            _ if !is_live => return,
            Step::Again => return self.tell(Update::Anomaly(Anomaly::Again { at, event })),
            Step::Beyond => {
                self.tell(Update::Anomaly(Anomaly::Hole {
                    at,
                    event: event.clone(),
                }));
                self.streams
                    .breaks(&id, |before| Repair::of(Gap::Trimmed, at.seq, before));
            }
            Step::Next => {}
        }
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.place = Some(position);
        }
        // Nothing comes behind it.
        if event.event == "channel.deleted" {
            self.streams.remove(&id);
        }
        self.tell(Update::Event(event));
    }

    fn of_own(&mut self, position: Position, event: EventMessage) {
        let at = self.own.unwrap_or(Position { seq: 0, at: 0 });
        match at.step(position.seq) {
            Step::Again => return self.tell(Update::Anomaly(Anomaly::Again { at, event })),
            Step::Beyond => {
                self.tell(Update::Anomaly(Anomaly::Hole {
                    at,
                    event: event.clone(),
                }));
                self.listing = Some(Listing::default());
            }
            Step::Next => {}
        }
        self.own = Some(position);
        match event.event.as_str() {
            "channel.added" | "channel.removed" => match event.read() {
                Ok(Event::ChannelAdded(entry)) => self.came_into(&entry),
                Ok(Event::ChannelRemoved(id)) => self.streams.remove(&id),
                _ => return self.tell(Update::Anomaly(Anomaly::Unreadable(event))),
            },
            _ => {}
        }
        self.tell(Update::Event(event));
    }

    /// The user came into a channel, and listens to it from here on, unless a reply was faster. What that reply told is
    /// kept: the events behind it come, and were some not to come, it would be noticed.
    fn came_into(&mut self, entry: &Entry) {
        let (id, head) = (
            &entry.channel_id,
            Position {
                seq: entry.seq,
                at: entry.at,
            },
        );
        match self.settings.watch {
            _ if self.streams.get(id).is_some() => {}
            Watch::All => self.streams.insert(id.clone(), Some(head), State::Live),
            Watch::None if self.followed.contains(id) => {
                self.streams.insert(id.clone(), Some(head), State::Apart)
            }
            Watch::None => {}
        }
    }

    fn passing(&mut self, event: EventMessage, now: Instant) {
        let number = |name| event.data.get(name).and_then(serde_json::Value::as_u64);
        match event.event.as_str() {
            "channel.gap" => match (&event.channel_id, number("seq"), number("at")) {
                (Some(id), Some(seq), Some(at)) => {
                    // A reason that is not known is treated like `trimmed`.
                    let gap = event
                        .data
                        .get("reason")
                        .and_then(|reason| Gap::deserialize(reason).ok())
                        .unwrap_or(Gap::Trimmed);
                    self.told_gap(&id.clone(), gap, Position { seq, at }, event);
                }
                // Of the own stream. The session may lack subscriptions by now.
                (None, Some(_), Some(_)) => self.misses(now),
                _ => self.tell(Update::Anomaly(Anomaly::Unreadable(event))),
            },
            "token.expiring" => match number("expires_at") {
                Some(expires_at) => self.token_expires(expires_at, now),
                None => self.tell(Update::Anomaly(Anomaly::Unreadable(event))),
            },
            "server.draining" => self.node_drains(
                Duration::from_millis(number("reconnect_after_ms").unwrap_or_default()),
                now,
            ),
            _ => self.tell(Update::Event(event)),
        }
    }

    fn told_gap(&mut self, id: &ChannelId, gap: Gap, to: Position, event: EventMessage) {
        match self.streams.state(id) {
            Some(State::Live) => {
                let from = self.streams.get(id).and_then(|stream| stream.place);
                self.meet_gap(id, gap, from, to);
            }
            // It begins anew from where it stands.
            Some(State::Apart | State::Joining | State::Leaving { .. }) => {}
            None => self.tell(Update::Anomaly(Anomaly::Foreign(event))),
        }
    }
}
