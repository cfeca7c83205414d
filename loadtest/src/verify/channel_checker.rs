//! The checker of a channel: takes inputs and checks each at once.

mod event_order;
mod final_checks;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    fmt,
};

use super::{
    Guarantees, MessageIndex, ObservedMessage, Tally, ViolationKind,
    sent_message::{DeletionState, Location, SendOutcome, SentMessage},
    subscriber_history::{SeqStep, SubscriberHistory},
};

/// Checks one channel with stored messages. Subscribers are given by index.
#[derive(Debug)]
pub struct ChannelChecker {
    name: String,
    pub(super) guarantees: Option<Guarantees>,
    subscribers: Vec<SubscriberHistory>,
    sent: HashMap<MessageIndex, SentMessage>,
    /// The message at each `seq`, by the first event or reply that contained it.
    message_at: BTreeMap<u64, MessageIndex>,
    last_acknowledged: u64,
    /// Logical clock, to order connects and deletions.
    tick: u64,
    /// Events and replies that contradict each other. Whether they are violations is
    /// [decided at the end](final_checks::settle_conflicts).
    conflicts: Vec<(ViolationKind, String)>,
    /// Whether any subscriber received `diverged`.
    diverged: bool,
    /// The number of each listed message.
    listed_numbers: HashMap<MessageIndex, u64>,
    /// Subscribers that were removed, with the `seq` of the channel's event.
    removals: BTreeSet<(usize, u64)>,
    /// Subscribers that were added, with the `seq` of the channel's event.
    additions: BTreeSet<(usize, u64)>,
    /// Subscribers that received an event after they learned of their removal, with its `seq`.
    received_while_removed: Vec<(usize, u64)>,
    tally: Tally,
}

impl ChannelChecker {
    /// Creates the checker of a channel whose subscribers have these names.
    pub fn new(
        name: impl Into<String>,
        subscribers: impl IntoIterator<Item = impl Into<String>>,
    ) -> Self {
        Self {
            name: name.into(),
            guarantees: None,
            subscribers: subscribers
                .into_iter()
                .map(|name| SubscriberHistory::new(name.into()))
                .collect(),
            sent: HashMap::new(),
            message_at: BTreeMap::new(),
            last_acknowledged: 0,
            tick: 0,
            conflicts: Vec::new(),
            diverged: false,
            listed_numbers: HashMap::new(),
            removals: BTreeSet::new(),
            additions: BTreeSet::new(),
            received_while_removed: Vec::new(),
            tally: Tally::default(),
        }
    }

    /// Adds guarantees. Then every message must also be answered and not refused, and every
    /// subscriber must be a participant at the end.
    pub fn with_guarantees(mut self, guarantees: Guarantees) -> Self {
        self.guarantees = Some(guarantees);
        self
    }

    /// A subscriber is about to connect.
    pub fn connecting(&mut self, subscriber: usize) {
        self.tick += 1;
        self.subscribers[subscriber].connected_tick = self.tick;
    }

    /// A subscriber subscribed after this head: by the reply to `connect`, or when it was added.
    pub fn subscribed(&mut self, subscriber: usize, seq: u64, number: u64) {
        let state = &mut self.subscribers[subscriber];
        state.skip_to(seq);
        (state.number, state.is_participant) = (Some(number), true);
        state.subscriptions.push((seq, seq));
        // It discarded the history of an earlier subscription when it was removed.
        state.discarded_up_to = seq;
    }

    /// A subscriber resumed from its position, in a channel with this head.
    pub fn resumed(&mut self, subscriber: usize, head: u64) {
        self.subscribers[subscriber].subscriptions.push((head, 0));
    }

    /// A subscriber learned that it was removed. Events may follow that were on their way, since
    /// channel and user have separate streams: they are discarded, and [must be older than the
    /// removal](final_checks::check_removals).
    pub fn removed(&mut self, subscriber: usize) {
        self.subscribers[subscriber].is_participant = false;
    }

    /// The channel's event at this `seq` says that this subscriber was removed.
    pub fn removal_event(&mut self, subscriber: usize, seq: u64) {
        self.removals.insert((subscriber, seq));
    }

    /// The channel's event at this `seq` says that this subscriber was added.
    pub fn addition_event(&mut self, subscriber: usize, seq: u64) {
        self.additions.insert((subscriber, seq));
    }

    /// A message is about to be sent. Called in the order in which a sender sends.
    pub fn sending(&mut self, message: MessageIndex, sender: usize) {
        self.tally.sent += 1;
        self.sent.insert(message, SentMessage::new(sender));
    }

    /// A message is about to be sent again with the same id, since it got no reply. Its order among
    /// the sender's messages is undefined from now on.
    pub fn retrying(&mut self, message: MessageIndex) {
        if let Some(sent) = self.sent.get_mut(&message) {
            sent.retried = true;
        }
    }

    /// A message was refused for another reason than its sender's rate.
    pub fn denied(&mut self, message: MessageIndex, reason: &str) {
        self.refused(message);
        if self.guarantees.is_some() {
            self.add_violation(
                ViolationKind::Denied,
                format_args!("message {message} was refused: {reason}"),
            );
        }
    }

    /// A message was refused.
    pub fn refused(&mut self, message: MessageIndex) {
        if let Some(sent) = self.sent.get_mut(&message) {
            sent.outcome = SendOutcome::Refused;
        }
    }

    /// The deletion of a message is about to be requested.
    pub fn deleting(&mut self, message: MessageIndex) {
        if let Some(sent) = self.sent.get_mut(&message) {
            sent.deletion.get_or_insert(DeletionState::Requested);
        }
    }

    /// The deletion of a message was acknowledged.
    pub fn deleted(&mut self, message: MessageIndex) {
        self.tick += 1;
        self.tally.deleted += 1;
        if let Some(sent) = self.sent.get_mut(&message) {
            sent.deletion = Some(DeletionState::Acknowledged { tick: self.tick });
        }
    }

    /// A message was acknowledged with this reply.
    pub fn acknowledged(&mut self, message: MessageIndex, reply: ObservedMessage) {
        self.tally.acknowledged += 1;
        if reply.message != Some(message) {
            return self.add_violation(
                ViolationKind::Foreign,
                format_args!(
                    "the reply to message {message} contains another message: {:?}",
                    reply.message
                ),
            );
        }
        if let Some(sent) = self.sent.get_mut(&message) {
            sent.outcome = SendOutcome::Acknowledged;
        }
        self.last_acknowledged = self.last_acknowledged.max(reply.seq);
        if !reply.intact {
            self.add_violation(
                ViolationKind::Altered,
                format_args!("the reply contains message {message} with another text or sender"),
            );
        }
        event_order::record_location(
            self,
            message,
            Location {
                seq: reply.seq,
                number: reply.number,
            },
            None,
        );
    }

    /// A subscriber received `message.created`.
    pub fn message_received(&mut self, subscriber: usize, observed: ObservedMessage) {
        let ObservedMessage { seq, number, .. } = observed;
        let Some(step) = event_order::advance(
            self,
            subscriber,
            seq,
            format_args!("message {:?}, number {number}", observed.message),
        ) else {
            return;
        };
        self.tally.delivered += 1;
        if step != SeqStep::Late {
            let state = &mut self.subscribers[subscriber];
            let before = state.number.replace(number);
            if let Some(before) =
                before.filter(|before| step == SeqStep::Next && number != before + 1)
            {
                let kind = if number > before {
                    ViolationKind::Hole
                } else {
                    ViolationKind::Reordered
                };
                let evidence = format!(
                    "{} received number {before}, then number {number} at seq {seq}",
                    state.name
                );
                self.add_violation(kind, format_args!("{evidence}"));
            }
        }
        let SubscriberHistory {
            name,
            connected_tick,
            ..
        } = &self.subscribers[subscriber];
        let was_sent = |message: &MessageIndex| {
            self.sent
                .get(message)
                .is_some_and(|sent| sent.retried || sent.outcome != SendOutcome::Refused)
        };
        let Some(message) = observed.message.filter(was_sent) else {
            let evidence = format!(
                "{name} received a message at seq {seq} that was not sent here, or was refused: {:?}",
                observed.message
            );
            return self.add_violation(ViolationKind::Foreign, format_args!("{evidence}"));
        };
        let deletion = self.sent[&message].deletion.as_ref();
        let violation = match deletion {
            _ if !observed.intact || observed.deleted && deletion.is_none() => {
                Some((ViolationKind::Altered, "with another text or sender"))
            }
            Some(DeletionState::Acknowledged { tick })
                if !observed.deleted && tick < connected_tick =>
            {
                Some((
                    ViolationKind::Undeleted,
                    "with its text, in a session that began after its deletion",
                ))
            }
            _ => None,
        };
        if let Some((kind, how)) = violation {
            let evidence = format!("{name} received message {message} at seq {seq} {how}");
            self.add_violation(kind, format_args!("{evidence}"));
        }
        event_order::record_location(self, message, Location { seq, number }, Some(subscriber));
    }

    /// A subscriber received another durable event of the channel.
    pub fn other_received(&mut self, subscriber: usize, seq: u64, event: &str) {
        if event_order::advance(self, subscriber, seq, format_args!("{event}")).is_some()
            && self.message_at.contains_key(&seq)
        {
            self.subscribers[subscriber].deviations.insert(seq, None);
        }
    }

    /// A subscriber received something of another channel.
    pub fn foreign_received(&mut self, subscriber: usize, what: &str) {
        let name = self.subscribers[subscriber].name.clone();
        self.add_violation(
            ViolationKind::Foreign,
            format_args!("{name} received {what}"),
        );
    }

    /// A subscriber received a gap, and continues from this head.
    pub fn gap_received(&mut self, subscriber: usize, head: u64) {
        let SubscriberHistory { name, seq, .. } = &self.subscribers[subscriber];
        if let Some(Guarantees { log_events, .. }) = self.guarantees
            && head.saturating_sub(*seq) < log_events
        {
            let evidence = format!(
                "{name} had seq {seq} and received a gap up to {head}, although {log_events} events are kept"
            );
            self.add_violation(ViolationKind::Needless, format_args!("{evidence}"));
        }
        self.skip_to_head(subscriber, head);
    }

    fn skip_to_head(&mut self, subscriber: usize, head: u64) {
        self.tally.gaps += 1;
        let state = &mut self.subscribers[subscriber];
        state.skip_to(head);
        state.number = None;
        state.subscriptions.push((head, 0));
    }

    /// A subscriber received `diverged`: it discards its history, and continues from this head.
    pub fn divergence_received(&mut self, subscriber: usize, head: u64) {
        if self
            .guarantees
            .is_some_and(|guarantees| !guarantees.may_diverge)
        {
            let evidence = format!(
                "{} received `diverged` with head {head}, although the store loses nothing",
                self.subscribers[subscriber].name
            );
            self.add_violation(ViolationKind::Needless, format_args!("{evidence}"));
        }
        self.skip_to_head(subscriber, head);
        self.diverged = true;
        let state = &mut self.subscribers[subscriber];
        state.discarded_up_to = head;
        state.deviations.clear();
        self.last_acknowledged = self.last_acknowledged.min(head);
    }

    /// After a trimmed gap a subscriber read what changed after its position, up to the gap's head
    /// or later.
    pub fn changes_read(
        &mut self,
        subscriber: usize,
        after: u64,
        head: u64,
        messages: impl IntoIterator<Item = ObservedMessage>,
    ) {
        let read = messages
            .into_iter()
            .filter_map(|observed| observed.message)
            .collect();
        self.subscribers[subscriber]
            .reads_after_gap
            .push((after + 1..head + 1, read));
    }

    /// Whether every subscriber has received everything that was acknowledged so far.
    pub fn is_complete(&self) -> bool {
        self.subscribers.iter().all(|subscriber| {
            if subscriber.is_participant {
                subscriber.seq >= self.last_acknowledged && subscriber.missing.is_empty()
            } else {
                self.guarantees.is_none()
            }
        })
    }

    /// The whole list of the channel, oldest message first. It must contain every acknowledged
    /// message exactly once, at the location of its reply.
    pub fn listed(&mut self, messages: impl IntoIterator<Item = ObservedMessage>) {
        let mut listed = HashSet::new();
        let mut number = 0;
        for observed in messages {
            self.tally.listed += 1;
            let Some(message) = observed
                .message
                .filter(|message| self.sent.contains_key(message))
            else {
                let evidence = format!(
                    "the list contains a message at number {} that was not sent here: {:?}",
                    observed.number, observed.message
                );
                self.add_violation(ViolationKind::Foreign, format_args!("{evidence}"));
                continue;
            };
            if observed.number != number + 1 {
                let kind = if observed.number > number {
                    ViolationKind::Hole
                } else {
                    ViolationKind::Reordered
                };
                self.add_violation(
                    kind,
                    format_args!(
                        "number {number} is followed by number {} in the list",
                        observed.number
                    ),
                );
            }
            number = observed.number;
            if !listed.insert(message) {
                self.add_violation(
                    ViolationKind::Doubled,
                    format_args!("the list contains message {message} twice, the second time at number {number}"),
                );
            } else if !observed.intact {
                self.add_violation(
                    ViolationKind::Altered,
                    format_args!("the list contains message {message} with another text or sender"),
                );
            }
            self.listed_numbers.insert(message, number);
            let sent = &self.sent[&message];
            if matches!(sent.deletion, Some(DeletionState::Acknowledged { .. }))
                && !observed.deleted
            {
                self.add_violation(
                    ViolationKind::Undeleted,
                    format_args!(
                        "the list contains message {message} with its text, after its deletion"
                    ),
                );
            } else if let Some(location) = sent.location
                && (location.number != number
                    || if observed.deleted {
                        observed.seq <= location.seq
                    } else {
                        observed.seq != location.seq
                    })
            {
                let listed = Location {
                    seq: observed.seq,
                    number,
                };
                let evidence = format!(
                    "message {message} was at {location}, and the list contains it at {listed}"
                );
                self.conflicts.push((ViolationKind::Reordered, evidence));
            }
        }
        let acknowledged = self
            .sent
            .iter()
            .filter(|(_, sent)| sent.outcome == SendOutcome::Acknowledged);
        let lost: Vec<MessageIndex> = acknowledged
            .map(|(message, _)| *message)
            .filter(|message| !listed.contains(message))
            .collect();
        for message in lost {
            self.add_violation(
                ViolationKind::Lost,
                format_args!("message {message} was acknowledged and is not in the list"),
            );
        }
    }

    /// Makes the final checks, when no more events come.
    pub fn finish(mut self) -> Tally {
        self.tally.unknown = self
            .sent
            .values()
            .filter(|sent| sent.outcome == SendOutcome::Unknown)
            .count() as u64;
        final_checks::settle_conflicts(&mut self);
        final_checks::count_lost(&mut self);
        final_checks::check_reads_after_gaps(&mut self);
        final_checks::check_removals(&mut self);
        final_checks::check_sender_order(&mut self);
        if self.guarantees.is_some() {
            final_checks::check_everything_answered(&mut self);
        }
        self.tally
    }

    pub(super) fn add_violation(&mut self, kind: ViolationKind, evidence: fmt::Arguments<'_>) {
        self.tally
            .add_violation(kind, format_args!("{}: {evidence}", self.name));
    }
}
