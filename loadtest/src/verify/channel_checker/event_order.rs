//! Checks of the order of events, and of where messages are stored.

use std::fmt;

use super::ChannelChecker;
use crate::verify::{
    MessageIndex, ViolationKind, sent_message::Location, subscriber_history::SeqStep,
};

/// Advances a subscriber to an event's `seq`. Returns `None` if it has received the event
/// before, or is not a participant.
pub(super) fn advance(
    checker: &mut ChannelChecker,
    subscriber: usize,
    seq: u64,
    event: fmt::Arguments<'_>,
) -> Option<SeqStep> {
    let state = &mut checker.subscribers[subscriber];
    if !state.is_participant {
        checker.received_while_removed.push((subscriber, seq));
        return None;
    }
    let (last, expected) = (state.seq, state.seq + 1);
    if let Some((_, last)) = state.subscriptions.last_mut() {
        *last = seq.max(*last);
    }
    let (step, kind, how) = match seq {
        _ if seq == expected => {
            state.seq = seq;
            return Some(SeqStep::Next);
        }
        _ if seq > expected => {
            state.missing.add(expected..seq);
            state.seq = seq;
            (Some(SeqStep::Ahead), ViolationKind::Hole, "then")
        }
        _ if state.missing.remove(seq) => {
            (Some(SeqStep::Late), ViolationKind::Reordered, "and late")
        }
        _ => (None, ViolationKind::Doubled, "and again"),
    };
    let evidence = format!(
        "{} received seq {last}, {how} seq {seq} ({event})",
        state.name
    );
    checker.add_violation(kind, format_args!("{evidence}"));
    step
}

/// Records where a message is stored, by an event of a subscriber or by the reply (`observer` is
/// `None`), and compares the location with an earlier record.
pub(super) fn record_location(
    checker: &mut ChannelChecker,
    message: MessageIndex,
    location: Location,
    observer: Option<usize>,
) {
    let source = observer.map_or("the reply".to_owned(), |subscriber| {
        checker.subscribers[subscriber].name.clone()
    });
    let Some(sent) = checker.sent.get_mut(&message) else {
        return;
    };
    let seq = location.seq;
    if let Some(subscriber) = observer
        && checker
            .message_at
            .get(&seq)
            .is_some_and(|first| *first != message)
    {
        checker.subscribers[subscriber]
            .deviations
            .insert(seq, Some(message));
    }
    match sent.location {
        Some(before) if before == location => return,
        Some(before) => {
            let received_twice = before.seq != seq
                && observer.is_some_and(|subscriber| {
                    checker.subscribers[subscriber].received_expected(before.seq)
                });
            sent.other_locations.push(location);
            if let Some(subscriber) = observer {
                checker.subscribers[subscriber]
                    .deviations
                    .insert(seq, Some(message));
            }
            let kind = if received_twice {
                ViolationKind::Doubled
            } else {
                ViolationKind::Reordered
            };
            let evidence =
                format!("message {message} was at {before}, and {source} has it at {location}");
            return checker.conflicts.push((kind, evidence));
        }
        None => sent.location = Some(location),
    }
    let first = *checker.message_at.entry(seq).or_insert(message);
    if first != message {
        let evidence =
            format!("message {first} was at seq {seq}, and {source} has message {message} there");
        checker.conflicts.push((ViolationKind::Reordered, evidence));
    }
}
