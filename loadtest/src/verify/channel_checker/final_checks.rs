//! The checks of a channel that need the whole run.

use std::collections::{BTreeSet, HashMap};

use super::ChannelChecker;
use crate::verify::{
    MessageIndex, ViolationKind,
    sent_message::{Location, SendOutcome},
    subscriber_history::SubscriberHistory,
};

/// Without a divergence every conflict is a violation. If the store diverged, the list decides,
/// and every subscriber that received something else must have received `diverged`.
pub(super) fn settle_conflicts(checker: &mut ChannelChecker) {
    let conflicts = std::mem::take(&mut checker.conflicts);
    if !checker.diverged {
        for (kind, evidence) in conflicts {
            checker.add_violation(kind, format_args!("{evidence}"));
        }
        return;
    }
    let mut superseded = Vec::new();
    for subscriber in &checker.subscribers {
        let expected = checker.message_at.iter().map(|(seq, first)| {
            (
                *seq,
                subscriber
                    .deviations
                    .get(seq)
                    .copied()
                    .unwrap_or(Some(*first)),
            )
        });
        let unexpected = subscriber
            .deviations
            .iter()
            .filter(|(seq, _)| !checker.message_at.contains_key(seq))
            .map(|(seq, message)| (*seq, *message));
        for (seq, message) in expected
            .chain(unexpected)
            .filter(|(seq, _)| subscriber.received(*seq))
        {
            if let Some(message) = message.filter(|message| !is_listed_at(checker, *message, seq)) {
                superseded.push(format!(
                    "{} has message {message} at seq {seq}, where it is not stored, and did not receive `diverged`",
                    subscriber.name
                ));
            }
        }
    }
    add_violations(checker, ViolationKind::Reordered, superseded);
}

/// Whether a message is stored at this `seq`, by its number in the list.
fn is_listed_at(checker: &ChannelChecker, message: MessageIndex, seq: u64) -> bool {
    let (Some(number), Some(sent)) = (
        checker.listed_numbers.get(&message),
        checker.sent.get(&message),
    ) else {
        return false;
    };
    sent.was_at(Location {
        seq,
        number: *number,
    })
}

/// Whether subscribers must have received this message at this `seq`.
fn is_required_at(checker: &ChannelChecker, message: MessageIndex, seq: u64) -> bool {
    let is_acknowledged = checker
        .sent
        .get(&message)
        .is_some_and(|sent| sent.outcome == SendOutcome::Acknowledged);
    is_acknowledged && (!checker.diverged || is_listed_at(checker, message, seq))
}

/// Checks that a subscriber's reads after a trimmed gap contain every message of the gap.
pub(super) fn check_reads_after_gaps(checker: &mut ChannelChecker) {
    let mut lost = Vec::new();
    for subscriber in &checker.subscribers {
        for (range, read) in subscriber
            .reads_after_gap
            .iter()
            .filter(|(range, _)| range.start <= range.end)
        {
            let absent = checker.message_at.range(range.clone());
            let absent = absent.filter(|(seq, message)| {
                !read.contains(message) && is_required_at(checker, **message, **seq)
            });
            lost.extend(absent.map(|(seq, message)| {
                let (name, after) = (&subscriber.name, range.start - 1);
                format!("{name} received a gap, and its changes after seq {after} lack message {message} at seq {seq}")
            }));
        }
    }
    add_violations(checker, ViolationKind::Lost, lost);
}

/// No subscriber may receive an event after its removal, unless it was added again before that
/// event.
pub(super) fn check_removals(checker: &mut ChannelChecker) {
    if checker.diverged {
        return;
    }
    let mut after = Vec::new();
    for (subscriber, removal) in &checker.removals {
        let SubscriberHistory {
            name,
            subscriptions,
            ..
        } = &checker.subscribers[*subscriber];
        let spanning = subscriptions
            .iter()
            .filter(|(head, last)| head < removal && removal <= last);
        after.extend(spanning.map(|(_, last)| {
            format!("{name} was removed at seq {removal}, and received events up to seq {last}")
        }));
    }
    for (subscriber, seq) in &checker.received_while_removed {
        let last = |of: &BTreeSet<(usize, u64)>| {
            of.range((*subscriber, 0)..=(*subscriber, *seq))
                .next_back()
                .map(|(_, seq)| *seq)
        };
        if let Some(removal) = last(&checker.removals)
            .filter(|removal| last(&checker.additions).is_none_or(|addition| addition < *removal))
        {
            after.push(format!(
                "{} was removed at seq {removal}, and received seq {seq}",
                checker.subscribers[*subscriber].name
            ));
        }
    }
    add_violations(checker, ViolationKind::AfterRemoval, after);
}

/// Every subscriber must have received every acknowledged message that no gap covers.
pub(super) fn count_lost(checker: &mut ChannelChecker) {
    let mut lost = Vec::new();
    for subscriber in &checker.subscribers {
        let missing = subscriber.missing.iter().chain(
            subscriber
                .is_participant
                .then_some(subscriber.seq + 1..u64::MAX),
        );
        let absent = missing
            .flat_map(|range| checker.message_at.range(range))
            .filter(|(seq, message)| {
                !subscriber.gaps.iter().any(|gap| gap.contains(seq))
                    && is_required_at(checker, **message, **seq)
            });
        lost.extend(absent.map(|(seq, message)| {
            format!(
                "{} did not receive message {message}, acknowledged at seq {seq}",
                subscriber.name
            )
        }));
    }
    add_violations(checker, ViolationKind::Lost, lost);
}

/// The messages of a sender must be stored in the order in which they were sent, retried ones
/// excepted.
pub(super) fn check_sender_order(checker: &mut ChannelChecker) {
    let mut last_of_sender: HashMap<usize, (MessageIndex, u64)> = HashMap::new();
    let mut swapped = Vec::new();
    for (&seq, &message) in &checker.message_at {
        let Some(sent) = checker.sent.get(&message).filter(|sent| !sent.retried) else {
            continue;
        };
        if let Some((later, at)) = last_of_sender
            .insert(sent.sender, (message, seq))
            .filter(|(before, _)| *before > message)
        {
            swapped.push(format!(
                "message {message} was sent before message {later} by the same session, and is stored after it: seq {seq}, {at}"
            ));
        }
    }
    add_violations(checker, ViolationKind::Reordered, swapped);
}

/// Every message must have been answered, and every subscriber must be a participant.
pub(super) fn check_everything_answered(checker: &mut ChannelChecker) {
    let unknown = checker
        .sent
        .iter()
        .filter(|(_, sent)| sent.outcome == SendOutcome::Unknown);
    let mut unanswered: Vec<MessageIndex> = unknown.map(|(message, _)| *message).collect();
    unanswered.sort_unstable();
    add_violations(
        checker,
        ViolationKind::Denied,
        unanswered
            .iter()
            .map(|message| format!("message {message} was never answered")),
    );
    let removed = checker
        .subscribers
        .iter()
        .filter(|subscriber| !subscriber.is_participant);
    let uninformed: Vec<String> = removed
        .map(|subscriber| {
            format!(
                "{} is in the channel, and did not learn it",
                subscriber.name
            )
        })
        .collect();
    add_violations(checker, ViolationKind::Denied, uninformed);
}

fn add_violations(
    checker: &mut ChannelChecker,
    kind: ViolationKind,
    evidence: impl IntoIterator<Item = String>,
) {
    for evidence in evidence {
        checker.add_violation(kind, format_args!("{evidence}"));
    }
}
