//! Verifies what the subscribers of a channel receive. Without I/O: a checker takes messages that
//! were sent, acknowledged, refused and received, in any interleaving, and returns counts and
//! evidence.
//!
//! The promise: every subscriber receives every acknowledged message exactly once, in the order of
//! `seq` and without a hole; all subscribers receive the same order; nobody receives a message that
//! was not sent to the channel. Messages within a reported gap are not lost. Memory is a few words
//! per subscriber and about 100 bytes per message: deliveries are not kept.
//!
//! [`ChannelChecker`] checks channels with stored messages, [`passing`] checks passing events,
//! which have no `seq`.

mod channel_checker;
pub mod passing;
mod sent_message;
mod seq_ranges;
mod subscriber_history;
mod tally;
#[cfg(test)]
mod tests;

pub use channel_checker::ChannelChecker;
pub use tally::{Tally, ViolationKind, Violations};

/// A message of the run, by its index in the run's schedule.
pub type MessageIndex = u32;

/// A message as an event, a reply or a page of the list contains it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ObservedMessage {
    /// The message; `None` if its id is not one of this run, or it names another channel.
    pub message: Option<MessageIndex>,
    /// Its `seq`.
    pub seq: u64,
    /// Its `number`.
    pub number: u64,
    /// Whether text and sender are those that were sent; of a deleted message, whether the text is
    /// empty.
    pub intact: bool,
    /// Whether it is marked as deleted.
    pub deleted: bool,
}

/// Guarantees of nodes and store beyond the general promise. Known only for nodes that the run
/// started.
#[derive(Debug, Clone, Copy)]
pub struct Guarantees {
    /// Events that the log of a channel keeps: a subscriber that lacks fewer must not receive a
    /// gap.
    pub log_events: u64,
    /// Whether the store may lose commits, as in a failover to an asynchronous replica. Otherwise
    /// no subscriber may receive `diverged`.
    pub may_diverge: bool,
}
