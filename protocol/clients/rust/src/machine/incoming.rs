//! Handling of entries, events and gaps.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use protocol::{
    ChannelId, EventMessage,
    entity::{Entry, EntryResult, Gap},
    event::Event,
    operation::session::Watch,
};
use serde::Deserialize;

use super::{
    Anomaly, Machine, Update,
    channel_streams::SubscriptionState,
    recovery::{ChannelListRecovery, GapRecovery},
    replies::no_reply_error,
};
use crate::{Position, policy::EventOrder};

impl Machine {
    /// Handles the entries of a reply to `connect` or `channel.subscribe`.
    pub(super) fn handle_entries(&mut self, entries: Vec<EntryResult>, now: Instant) {
        let mut unknown = BTreeSet::new();
        for entry in entries {
            match entry {
                EntryResult::Entry(entry) => {
                    if self.is_unknown(&entry) {
                        unknown.insert(entry.channel_id.clone());
                    }
                    self.handle_entry(&entry);
                }
                EntryResult::Failed(failed) => {
                    self.subscribe_failed(failed.channel_id, failed.error, now)
                }
            }
        }
        if !unknown.is_empty() {
            self.list_recovery = Some(ChannelListRecovery::with_unknown(
                self.list_recovery.take(),
                unknown,
            ));
        }
        // Channels missing in the reply are requested again.
        for id in self.streams.joining() {
            self.subscribe_failed(id, no_reply_error(), now);
        }
    }

    /// Returns whether an entry has positions alone, for lack of room in its reply, and the
    /// application does not know the channel. A channel that was resumed is known, and events tell
    /// what has changed.
    fn is_unknown(&self, entry: &Entry) -> bool {
        let stream = self.streams.get(&entry.channel_id);
        let was_resumed =
            stream.is_some_and(|stream| stream.position.is_some()) && entry.gap.is_none();
        let is_followed = self.settings.watch == Watch::All || stream.is_some();
        entry.channel.is_none() && is_followed && !was_resumed
    }

    fn handle_entry(&mut self, entry: &Entry) {
        let (id, head) = (
            &entry.channel_id,
            Position {
                seq: entry.seq,
                at: entry.at,
            },
        );
        let position = self.streams.get(id).and_then(|stream| stream.position);
        match (self.streams.state(id), position, entry.gap) {
            (Some(SubscriptionState::Joining), Some(from), Some(gap)) => {
                self.handle_gap(id, gap, Some(from), head)
            }
            (Some(SubscriptionState::Joining | SubscriptionState::Unsubscribed), None, _) => {
                self.set_live(id, head)
            }
            (Some(SubscriptionState::Joining), Some(from), None) => self.set_live(id, from),
            // The server subscribed to it by its own choice. It is subscribed to again from its
            // position.
            (Some(SubscriptionState::Unsubscribed), Some(_), _) => {}
            (Some(SubscriptionState::Live | SubscriptionState::Leaving { .. }), ..) => {}
            (None, ..) if self.settings.watch == Watch::All => {
                self.streams
                    .insert(id.clone(), Some(head), SubscriptionState::Live)
            }
            (None, ..) => {}
        }
    }

    fn set_live(&mut self, id: &ChannelId, position: Position) {
        if let Some(stream) = self.streams.get_mut(id) {
            (stream.position, stream.retry) = (Some(position), super::retry::RetryTimer::default());
        }
        self.streams.set_state(id, SubscriptionState::Live);
    }

    fn handle_gap(&mut self, id: &ChannelId, gap: Gap, from: Option<Position>, to: Position) {
        self.emit(Update::Gap {
            channel_id: Some(id.clone()),
            gap,
            from,
            to,
        });
        if gap == Gap::LimitReached {
            self.streams.remove(id);
            return;
        }
        self.set_live(id, to);
        self.streams.start_recovery(id, |before| {
            GapRecovery::after(gap, from.map_or(0, |from| from.seq), before)
        });
    }

    pub(super) fn handle_own_gap(&mut self, gap: Gap, from: Position, to: Position) {
        self.user_position = Some(to);
        self.list_recovery = Some(ChannelListRecovery::default());
        self.emit(Update::Gap {
            channel_id: None,
            gap,
            from: Some(from),
            to,
        });
    }

    /// Handles an event.
    pub(super) fn handle_event(&mut self, event: EventMessage, now: Instant) {
        match (&event.channel_id, event.seq, event.at) {
            (Some(id), Some(seq), Some(at)) => {
                self.handle_channel_event(id.clone(), Position { seq, at }, event)
            }
            (None, Some(seq), Some(at)) => self.handle_own_event(Position { seq, at }, event),
            _ => self.handle_passing_event(event, now),
        }
    }

    fn handle_channel_event(&mut self, id: ChannelId, position: Position, event: EventMessage) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return self.emit(Update::Anomaly(Anomaly::Foreign(event)));
        };
        let at = stream.position.unwrap_or(Position { seq: 0, at: 0 });
        let is_live = self.streams.state(&id) == Some(SubscriptionState::Live);
        match at.order_of(position.seq) {
            // It is replayed after the position, or not wanted.
            _ if !is_live => return,
            EventOrder::Repeated => {
                return self.emit(Update::Anomaly(Anomaly::Repeated { at, event }));
            }
            EventOrder::AfterHole => {
                self.emit(Update::Anomaly(Anomaly::Hole {
                    at,
                    event: event.clone(),
                }));
                self.streams.start_recovery(&id, |before| {
                    GapRecovery::after(Gap::Trimmed, at.seq, before)
                });
            }
            EventOrder::Next => {}
        }
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.position = Some(position);
        }
        // No event follows.
        if event.event == "channel.deleted" {
            self.streams.remove(&id);
        }
        self.emit(Update::Event(event));
    }

    fn handle_own_event(&mut self, position: Position, event: EventMessage) {
        let at = self.user_position.unwrap_or(Position { seq: 0, at: 0 });
        match at.order_of(position.seq) {
            EventOrder::Repeated => {
                return self.emit(Update::Anomaly(Anomaly::Repeated { at, event }));
            }
            EventOrder::AfterHole => {
                self.emit(Update::Anomaly(Anomaly::Hole {
                    at,
                    event: event.clone(),
                }));
                self.list_recovery = Some(ChannelListRecovery::default());
            }
            EventOrder::Next => {}
        }
        self.user_position = Some(position);
        match event.event.as_str() {
            "channel.added" | "channel.removed" => match event.read() {
                Ok(Event::ChannelAdded(entry)) => self.channel_added(&entry),
                Ok(Event::ChannelRemoved(id)) => self.streams.remove(&id),
                _ => return self.emit(Update::Anomaly(Anomaly::Unreadable(event))),
            },
            _ => {}
        }
        self.emit(Update::Event(event));
    }

    /// Follows a channel that the user was added to. If a reply was faster, its head stays: the
    /// events after it follow, and a hole would be noticed.
    fn channel_added(&mut self, entry: &Entry) {
        let (id, head) = (
            &entry.channel_id,
            Position {
                seq: entry.seq,
                at: entry.at,
            },
        );
        match self.settings.watch {
            _ if self.streams.get(id).is_some() => {}
            Watch::All => self
                .streams
                .insert(id.clone(), Some(head), SubscriptionState::Live),
            Watch::None if self.followed.contains(id) => {
                self.streams
                    .insert(id.clone(), Some(head), SubscriptionState::Unsubscribed)
            }
            Watch::None => {}
        }
    }

    fn handle_passing_event(&mut self, event: EventMessage, now: Instant) {
        let number = |name| event.data.get(name).and_then(serde_json::Value::as_u64);
        match event.event.as_str() {
            "channel.gap" => match (&event.channel_id, number("seq"), number("at")) {
                (Some(id), Some(seq), Some(at)) => {
                    // An unknown reason is handled like `trimmed`.
                    let gap = event
                        .data
                        .get("reason")
                        .and_then(|reason| Gap::deserialize(reason).ok())
                        .unwrap_or(Gap::Trimmed);
                    self.handle_gap_event(&id.clone(), gap, Position { seq, at }, event);
                }
                // A gap of the user's own stream. The session may lack subscriptions.
                (None, Some(_), Some(_)) => self.reconnect_after_own_gap(now),
                _ => self.emit(Update::Anomaly(Anomaly::Unreadable(event))),
            },
            "token.expiring" => match number("expires_at") {
                Some(expires_at) => self.token_expires(expires_at, now),
                None => self.emit(Update::Anomaly(Anomaly::Unreadable(event))),
            },
            "server.draining" => self.node_draining(
                Duration::from_millis(number("reconnect_after_ms").unwrap_or_default()),
                now,
            ),
            _ => self.emit(Update::Event(event)),
        }
    }

    fn handle_gap_event(&mut self, id: &ChannelId, gap: Gap, to: Position, event: EventMessage) {
        match self.streams.state(id) {
            Some(SubscriptionState::Live) => {
                let from = self.streams.get(id).and_then(|stream| stream.position);
                self.handle_gap(id, gap, from, to);
            }
            // It is subscribed to from its position.
            Some(
                SubscriptionState::Unsubscribed
                | SubscriptionState::Joining
                | SubscriptionState::Leaving { .. },
            ) => {}
            None => self.emit(Update::Anomaly(Anomaly::Foreign(event))),
        }
    }
}
