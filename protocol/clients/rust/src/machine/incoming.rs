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
    leaving,
    recovery::{ChannelListRecovery, GapRecovery},
    renewal,
    subscriptions::{self, no_reply_error},
};
use crate::{Position, policy::EventOrder};

/// Handles the entries of a reply to `connect` or `channel.subscribe`.
pub(super) fn handle_entries(machine: &mut Machine, entries: Vec<EntryResult>, now: Instant) {
    let mut unknown = BTreeSet::new();
    for entry in entries {
        match entry {
            EntryResult::Entry(entry) => {
                if is_unknown(machine, &entry) {
                    unknown.insert(entry.channel_id.clone());
                }
                handle_entry(machine, &entry);
            }
            EntryResult::Failed(failed) => {
                subscriptions::subscribe_failed(machine, failed.channel_id, failed.error, now)
            }
        }
    }
    if !unknown.is_empty() {
        machine.list_recovery = Some(ChannelListRecovery::with_unknown(
            machine.list_recovery.take(),
            unknown,
        ));
    }
    // Channels missing in the reply are requested again.
    for id in machine.streams.joining() {
        subscriptions::subscribe_failed(machine, id, no_reply_error(), now);
    }
}

/// Returns whether an entry has only positions, because its reply had no room, and the application
/// does not know the channel. A channel that was resumed is known, and its events report the
/// changes.
fn is_unknown(machine: &Machine, entry: &Entry) -> bool {
    let stream = machine.streams.get(&entry.channel_id);
    let was_resumed = stream.is_some_and(|stream| stream.position.is_some()) && entry.gap.is_none();
    let is_followed = machine.settings.watch == Watch::All || stream.is_some();
    entry.channel.is_none() && is_followed && !was_resumed
}

fn handle_entry(machine: &mut Machine, entry: &Entry) {
    let (id, head) = (
        &entry.channel_id,
        Position {
            seq: entry.seq,
            at: entry.at,
        },
    );
    let position = machine.streams.get(id).and_then(|stream| stream.position);
    match (machine.streams.state(id), position, entry.gap) {
        (Some(SubscriptionState::Joining), Some(from), Some(gap)) => {
            handle_gap(machine, id, gap, Some(from), head)
        }
        (Some(SubscriptionState::Joining | SubscriptionState::Unsubscribed), None, _) => {
            set_live(machine, id, head)
        }
        (Some(SubscriptionState::Joining), Some(from), None) => set_live(machine, id, from),
        // The server subscribed to it by its own choice. It is subscribed to again from its
        // position.
        (Some(SubscriptionState::Unsubscribed), Some(_), _) => {}
        (Some(SubscriptionState::Live | SubscriptionState::Leaving { .. }), ..) => {}
        (None, ..) if machine.settings.watch == Watch::All => {
            machine
                .streams
                .insert(id.clone(), Some(head), SubscriptionState::Live)
        }
        (None, ..) => {}
    }
}

fn set_live(machine: &mut Machine, id: &ChannelId, position: Position) {
    if let Some(stream) = machine.streams.get_mut(id) {
        (stream.position, stream.retry) = (Some(position), super::retry::RetryTimer::default());
    }
    machine.streams.set_state(id, SubscriptionState::Live);
}

fn handle_gap(
    machine: &mut Machine,
    id: &ChannelId,
    gap: Gap,
    from: Option<Position>,
    to: Position,
) {
    machine.emit(Update::Gap {
        channel_id: Some(id.clone()),
        gap,
        from,
        to,
    });
    if gap == Gap::LimitReached {
        machine.streams.remove(id);
        return;
    }
    set_live(machine, id, to);
    machine.streams.start_recovery(id, |before| {
        GapRecovery::after(gap, from.map_or(0, |from| from.seq), before)
    });
}

pub(super) fn handle_own_gap(machine: &mut Machine, gap: Gap, from: Position, to: Position) {
    machine.user_position = Some(to);
    machine.list_recovery = Some(ChannelListRecovery::default());
    machine.emit(Update::Gap {
        channel_id: None,
        gap,
        from: Some(from),
        to,
    });
}

/// Handles an event.
pub(super) fn handle_event(machine: &mut Machine, event: EventMessage, now: Instant) {
    match (&event.channel_id, event.seq, event.at) {
        (Some(id), Some(seq), Some(at)) => {
            handle_channel_event(machine, id.clone(), Position { seq, at }, event)
        }
        (None, Some(seq), Some(at)) => handle_own_event(machine, Position { seq, at }, event),
        _ => handle_passing_event(machine, event, now),
    }
}

fn handle_channel_event(
    machine: &mut Machine,
    id: ChannelId,
    position: Position,
    event: EventMessage,
) {
    let Some(stream) = machine.streams.get_mut(&id) else {
        return machine.emit(Update::Anomaly(Anomaly::Foreign(event)));
    };
    let at = stream.position.unwrap_or(Position { seq: 0, at: 0 });
    let is_live = machine.streams.state(&id) == Some(SubscriptionState::Live);
    match at.order_of(position.seq) {
        // It is replayed after the position, or not wanted.
        _ if !is_live => return,
        EventOrder::Repeated => {
            return machine.emit(Update::Anomaly(Anomaly::Repeated { at, event }));
        }
        EventOrder::AfterHole => {
            machine.emit(Update::Anomaly(Anomaly::Hole {
                at,
                event: event.clone(),
            }));
            machine.streams.start_recovery(&id, |before| {
                GapRecovery::after(Gap::Trimmed, at.seq, before)
            });
        }
        EventOrder::Next => {}
    }
    if let Some(stream) = machine.streams.get_mut(&id) {
        stream.position = Some(position);
    }
    // No event follows.
    if event.event == "channel.deleted" {
        machine.streams.remove(&id);
    }
    machine.emit(Update::Event(event));
}

fn handle_own_event(machine: &mut Machine, position: Position, event: EventMessage) {
    let at = machine.user_position.unwrap_or(Position { seq: 0, at: 0 });
    match at.order_of(position.seq) {
        EventOrder::Repeated => {
            return machine.emit(Update::Anomaly(Anomaly::Repeated { at, event }));
        }
        EventOrder::AfterHole => {
            machine.emit(Update::Anomaly(Anomaly::Hole {
                at,
                event: event.clone(),
            }));
            machine.list_recovery = Some(ChannelListRecovery::default());
        }
        EventOrder::Next => {}
    }
    machine.user_position = Some(position);
    match event.event.as_str() {
        "channel.added" | "channel.removed" => match event.read() {
            Ok(Event::ChannelAdded(entry)) => channel_added(machine, &entry),
            Ok(Event::ChannelRemoved(id)) => machine.streams.remove(&id),
            _ => return machine.emit(Update::Anomaly(Anomaly::Unreadable(event))),
        },
        _ => {}
    }
    machine.emit(Update::Event(event));
}

/// Follows a channel that the user was added to. If a reply was faster, its head stays: the
/// events after it follow, and a hole would be noticed.
fn channel_added(machine: &mut Machine, entry: &Entry) {
    let (id, head) = (
        &entry.channel_id,
        Position {
            seq: entry.seq,
            at: entry.at,
        },
    );
    match machine.settings.watch {
        _ if machine.streams.get(id).is_some() => {}
        Watch::All => machine
            .streams
            .insert(id.clone(), Some(head), SubscriptionState::Live),
        Watch::None if machine.followed.contains(id) => {
            machine
                .streams
                .insert(id.clone(), Some(head), SubscriptionState::Unsubscribed)
        }
        Watch::None => {}
    }
}

fn handle_passing_event(machine: &mut Machine, event: EventMessage, now: Instant) {
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
                handle_gap_event(machine, &id.clone(), gap, Position { seq, at }, event);
            }
            // A gap of the user's own stream. The session may lack subscriptions.
            (None, Some(_), Some(_)) => leaving::reconnect_after_own_gap(machine, now),
            _ => machine.emit(Update::Anomaly(Anomaly::Unreadable(event))),
        },
        "token.expiring" => match number("expires_at") {
            Some(expires_at) => renewal::token_expires(machine, expires_at, now),
            None => machine.emit(Update::Anomaly(Anomaly::Unreadable(event))),
        },
        "server.draining" => leaving::node_draining(
            machine,
            Duration::from_millis(number("reconnect_after_ms").unwrap_or_default()),
            now,
        ),
        _ => machine.emit(Update::Event(event)),
    }
}

fn handle_gap_event(
    machine: &mut Machine,
    id: &ChannelId,
    gap: Gap,
    to: Position,
    event: EventMessage,
) {
    match machine.streams.state(id) {
        Some(SubscriptionState::Live) => {
            let from = machine.streams.get(id).and_then(|stream| stream.position);
            handle_gap(machine, id, gap, from, to);
        }
        // It is subscribed to from its position.
        Some(
            SubscriptionState::Unsubscribed
            | SubscriptionState::Joining
            | SubscriptionState::Leaving { .. },
        ) => {}
        None => machine.emit(Update::Anomaly(Anomaly::Foreign(event))),
    }
}
