//! Counts of broken promises, with evidence.

use std::fmt;

use serde::Serialize;

/// Pieces of evidence kept per kind of violation. The first ones say most.
const EVIDENCE_PER_KIND: usize = 3;

/// A way to break a promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ViolationKind {
    /// A subscriber did not receive an acknowledged message, or the list lacks it.
    Lost,
    /// A subscriber received an event twice, or a message is stored twice.
    Doubled,
    /// An event arrived late, two subscribers received different orders, or a sender's messages are
    /// not in order.
    Reordered,
    /// A subscriber received a message that was refused, or not sent to this channel.
    Foreign,
    /// A `seq` or `number` was missing when the next one arrived.
    Hole,
    /// A message has another text or sender than was sent.
    Altered,
    /// A user received an event of a channel after its removal.
    AfterRemoval,
    /// The text of a message was delivered or listed after its deletion.
    Undeleted,
    /// A subscriber received a gap although nothing was missing from the log.
    Needless,
    /// A message was refused or never answered without a reason, or a participant did not learn
    /// that it is one.
    Denied,
}

impl fmt::Display for ViolationKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lost => "lost",
            Self::Doubled => "doubled",
            Self::Reordered => "reordered",
            Self::Foreign => "foreign",
            Self::Hole => "hole",
            Self::Altered => "altered",
            Self::AfterRemoval => "after removal",
            Self::Undeleted => "undeleted",
            Self::Needless => "needless gap",
            Self::Denied => "denied",
        })
    }
}

/// Number of violations of each kind. The field names are those of the report's JSON.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Violations {
    /// [`ViolationKind::Lost`].
    pub lost: u64,
    /// [`ViolationKind::Doubled`].
    pub doubled: u64,
    /// [`ViolationKind::Reordered`].
    pub reordered: u64,
    /// [`ViolationKind::Foreign`].
    pub foreign: u64,
    /// [`ViolationKind::Hole`].
    pub holes: u64,
    /// [`ViolationKind::Altered`].
    pub altered: u64,
    /// [`ViolationKind::AfterRemoval`].
    pub after_removal: u64,
    /// [`ViolationKind::Undeleted`].
    pub undeleted: u64,
    /// [`ViolationKind::Needless`].
    pub needless: u64,
    /// [`ViolationKind::Denied`].
    pub denied: u64,
}

impl Violations {
    fn of(&mut self, kind: ViolationKind) -> &mut u64 {
        match kind {
            ViolationKind::Lost => &mut self.lost,
            ViolationKind::Doubled => &mut self.doubled,
            ViolationKind::Reordered => &mut self.reordered,
            ViolationKind::Foreign => &mut self.foreign,
            ViolationKind::Hole => &mut self.holes,
            ViolationKind::Altered => &mut self.altered,
            ViolationKind::AfterRemoval => &mut self.after_removal,
            ViolationKind::Undeleted => &mut self.undeleted,
            ViolationKind::Needless => &mut self.needless,
            ViolationKind::Denied => &mut self.denied,
        }
    }

    /// Whether there are no violations.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// The result of verifying a channel, or a whole run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// Messages sent.
    pub sent: u64,
    /// Messages acknowledged.
    pub acknowledged: u64,
    /// Messages neither acknowledged nor refused, which may be stored or not.
    pub unknown: u64,
    /// Deliveries, each counted per subscriber.
    pub delivered: u64,
    /// Messages in the lists of the channels.
    pub listed: u64,
    /// Messages whose deletion was acknowledged.
    pub deleted: u64,
    /// Gaps that subscribers received.
    pub gaps: u64,
    /// Number of violations.
    pub violations: Violations,
    /// The first few violations of each kind, in the order in which they were found.
    pub evidence: Vec<(ViolationKind, String)>,
}

impl Tally {
    pub(super) fn add_violation(&mut self, kind: ViolationKind, evidence: fmt::Arguments<'_>) {
        *self.violations.of(kind) += 1;
        self.add_evidence(kind, || evidence.to_string());
    }

    fn add_evidence(&mut self, kind: ViolationKind, evidence: impl FnOnce() -> String) {
        if self
            .evidence
            .iter()
            .filter(|(other, _)| *other == kind)
            .count()
            < EVIDENCE_PER_KIND
        {
            self.evidence.push((kind, evidence()));
        }
    }

    /// Adds the result of another channel.
    pub fn add(&mut self, other: Self) {
        self.sent += other.sent;
        self.acknowledged += other.acknowledged;
        self.unknown += other.unknown;
        self.delivered += other.delivered;
        self.listed += other.listed;
        self.deleted += other.deleted;
        self.gaps += other.gaps;
        let Violations {
            lost,
            doubled,
            reordered,
            foreign,
            holes,
            altered,
            after_removal,
            undeleted,
            needless,
            denied,
        } = other.violations;
        let counts = [
            (ViolationKind::Lost, lost),
            (ViolationKind::Doubled, doubled),
            (ViolationKind::Reordered, reordered),
            (ViolationKind::Foreign, foreign),
            (ViolationKind::Hole, holes),
            (ViolationKind::Altered, altered),
            (ViolationKind::AfterRemoval, after_removal),
            (ViolationKind::Undeleted, undeleted),
            (ViolationKind::Needless, needless),
            (ViolationKind::Denied, denied),
        ];
        counts
            .into_iter()
            .for_each(|(kind, count)| *self.violations.of(kind) += count);
        other
            .evidence
            .into_iter()
            .for_each(|(kind, evidence)| self.add_evidence(kind, || evidence));
    }
}
