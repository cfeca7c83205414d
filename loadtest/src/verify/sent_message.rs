//! The state of a message that was sent.

use std::fmt;

/// The `seq` and `number` of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Location {
    pub(super) seq: u64,
    pub(super) number: u64,
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seq {}, number {}", self.seq, self.number)
    }
}

#[derive(Debug)]
pub(super) struct SentMessage {
    pub(super) sender: usize,
    pub(super) outcome: SendOutcome,
    pub(super) retried: bool,
    /// Location of the stored message according to the first event or reply that contained it.
    pub(super) location: Option<Location>,
    /// Different locations according to later events or replies.
    pub(super) other_locations: Vec<Location>,
    pub(super) deletion: Option<DeletionState>,
}

impl SentMessage {
    pub(super) fn new(sender: usize) -> Self {
        Self {
            sender,
            outcome: SendOutcome::Unknown,
            retried: false,
            location: None,
            other_locations: Vec::new(),
            deletion: None,
        }
    }

    /// Whether any event or reply located the message here.
    pub(super) fn was_at(&self, location: Location) -> bool {
        self.location == Some(location) || self.other_locations.contains(&location)
    }
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum SendOutcome {
    Unknown,
    Acknowledged,
    Refused,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum DeletionState {
    Requested,
    Acknowledged {
        /// When the reply was received, on the checker's logical clock.
        tick: u64,
    },
}
