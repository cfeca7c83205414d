//! What was counted, and the evidence for what should not be.

use std::fmt;

use serde::Serialize;

/// How many pieces of evidence are kept of each kind: the first ones say most.
const EVIDENCE: usize = 3;

/// What breaks a promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A subscriber never got an acknowledged message, or the list lacks it.
    Lost,
    /// A subscriber got an event twice, or a message stands twice.
    Doubled,
    /// An event came late, two subscribers have different orders, or a sender's messages do.
    Reordered,
    /// What was not sent to this channel, or was refused.
    Foreign,
    /// A `seq` or `number` was left out, at least until then.
    Hole,
    /// A message has another text or sender than it was sent with.
    Altered,
    /// A user got something of a channel after its removal.
    AfterRemoval,
    /// The text of a message was told, or is listed, after its deletion.
    Undeleted,
    /// A gap was told that need not be.
    Needless,
    /// What should have been taken was refused or never answered, or who is in the channel was not told so.
    Denied,
}

impl fmt::Display for Kind {
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

/// How often each promise was broken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Violations {
    /// [`Kind::Lost`].
    pub lost: u64,
    /// [`Kind::Doubled`].
    pub doubled: u64,
    /// [`Kind::Reordered`].
    pub reordered: u64,
    /// [`Kind::Foreign`].
    pub foreign: u64,
    /// [`Kind::Hole`].
    pub holes: u64,
    /// [`Kind::Altered`].
    pub altered: u64,
    /// [`Kind::AfterRemoval`].
    pub after_removal: u64,
    /// [`Kind::Undeleted`].
    pub undeleted: u64,
    /// [`Kind::Needless`].
    pub needless: u64,
    /// [`Kind::Denied`].
    pub denied: u64,
}

impl Violations {
    fn of(&mut self, kind: Kind) -> &mut u64 {
        match kind {
            Kind::Lost => &mut self.lost,
            Kind::Doubled => &mut self.doubled,
            Kind::Reordered => &mut self.reordered,
            Kind::Foreign => &mut self.foreign,
            Kind::Hole => &mut self.holes,
            Kind::Altered => &mut self.altered,
            Kind::AfterRemoval => &mut self.after_removal,
            Kind::Undeleted => &mut self.undeleted,
            Kind::Needless => &mut self.needless,
            Kind::Denied => &mut self.denied,
        }
    }

    /// Whether there is none.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// What a channel, or a whole run, comes to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// Messages sent.
    pub sent: u64,
    /// Those acknowledged.
    pub acknowledged: u64,
    /// Those that were neither acknowledged nor refused: whether they are stored is unknown.
    pub unknown: u64,
    /// Messages that subscribers got, each counted once a subscriber.
    pub delivered: u64,
    /// Messages that the channels listed afterwards.
    pub listed: u64,
    /// Messages whose deletion was acknowledged.
    pub deleted: u64,
    /// Gaps that subscribers were told of.
    pub gaps: u64,
    /// What broke a promise.
    pub violations: Violations,
    /// The first few of each kind, in the order in which they were found.
    pub evidence: Vec<(Kind, String)>,
}

impl Tally {
    pub(super) fn violates(&mut self, kind: Kind, evidence: fmt::Arguments<'_>) {
        *self.violations.of(kind) += 1;
        self.keep(kind, || evidence.to_string());
    }

    fn keep(&mut self, kind: Kind, evidence: impl FnOnce() -> String) {
        if self.evidence.iter().filter(|(of, _)| *of == kind).count() < EVIDENCE {
            self.evidence.push((kind, evidence()));
        }
    }

    /// Adds another channel's.
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
            (Kind::Lost, lost),
            (Kind::Doubled, doubled),
            (Kind::Reordered, reordered),
            (Kind::Foreign, foreign),
            (Kind::Hole, holes),
            (Kind::Altered, altered),
            (Kind::AfterRemoval, after_removal),
            (Kind::Undeleted, undeleted),
            (Kind::Needless, needless),
            (Kind::Denied, denied),
        ];
        counts
            .into_iter()
            .for_each(|(kind, count)| *self.violations.of(kind) += count);
        other
            .evidence
            .into_iter()
            .for_each(|(kind, evidence)| self.keep(kind, || evidence));
    }
}
