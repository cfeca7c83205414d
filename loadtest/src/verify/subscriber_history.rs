//! The events that a subscriber has received so far.

use std::{
    collections::{HashMap, HashSet},
    ops::Range,
};

use super::{MessageIndex, seq_ranges::SeqRanges};

#[derive(Debug)]
pub(super) struct SubscriberHistory {
    pub(super) name: String,
    /// The highest `seq` received.
    pub(super) seq: u64,
    /// `number` of the last message; unknown after a hole or a gap.
    pub(super) number: Option<u64>,
    /// Seqs below `seq` that were not received.
    pub(super) missing: SeqRanges,
    /// Seqs that reported gaps cover.
    pub(super) gaps: Vec<Range<u64>>,
    /// Seqs at which it received another message than the first observer, or an event without one.
    pub(super) deviations: HashMap<u64, Option<MessageIndex>>,
    /// When it last started to connect, on the checker's logical clock.
    pub(super) connected_tick: u64,
    /// Its history up to this `seq` is superseded: it was removed, or received `diverged`.
    pub(super) discarded_up_to: u64,
    /// Whether it is a participant, as far as it knows.
    pub(super) is_participant: bool,
    /// Its subscriptions: the head at the start of each, and the last `seq` received in it.
    pub(super) subscriptions: Vec<(u64, u64)>,
    /// Its reads after `trimmed` gaps: the seqs that each read covers, and the messages.
    pub(super) reads_after_gap: Vec<(Range<u64>, HashSet<MessageIndex>)>,
}

impl SubscriberHistory {
    pub(super) fn new(name: String) -> Self {
        Self {
            name,
            seq: 0,
            number: Some(0),
            missing: SeqRanges::default(),
            gaps: Vec::new(),
            deviations: HashMap::new(),
            connected_tick: 0,
            discarded_up_to: 0,
            is_participant: true,
            subscriptions: Vec::new(),
            reads_after_gap: Vec::new(),
        }
    }

    /// Whether it received the message that is known to be stored at this `seq`.
    pub(super) fn received_expected(&self, seq: u64) -> bool {
        self.received(seq) && !self.deviations.contains_key(&seq)
    }

    /// Whether it received the event at this `seq` and has not discarded it.
    pub(super) fn received(&self, seq: u64) -> bool {
        self.discarded_up_to < seq
            && seq <= self.seq
            && !self
                .missing
                .iter()
                .chain(self.gaps.iter().cloned())
                .any(|range| range.contains(&seq))
    }

    /// Continues from this head. A gap covers all that is missing before it.
    pub(super) fn skip_to(&mut self, head: u64) {
        self.gaps.extend(self.missing.iter());
        self.missing.clear();
        if head > self.seq {
            self.gaps.push(self.seq + 1..head + 1);
        }
        self.seq = head;
    }
}

/// How the `seq` of an event relates to those that the subscriber received before.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum SeqStep {
    Next,
    Ahead,
    Late,
}
