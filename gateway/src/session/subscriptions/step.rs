//! Steps that change a session's subscriptions outside of requests, and their reasons.

use std::time::Instant;

use fanout::Position;
use protocol::ChannelId;

/// A subscription at the hub.
pub trait SubscriptionHandle {
    /// Returns whether the hub ended it: the user was removed, or the channel deleted.
    fn is_ended(&self) -> bool;

    /// Returns the position of its topic on this node.
    fn topic_position(&self) -> Position;
}

/// Reason to subscribe to a channel outside of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SubscribeReason {
    /// The user's stream delivered `channel.added` with this position.
    Added(Position),
    /// A failed request ended the subscription, whose topic was at this position.
    Interrupted(Position),
    /// The hub ended the subscription at this position, and the user's stream has not delivered
    /// `channel.removed`. A failover may have lost the removal.
    EndedByHub(Position),
    /// The user's stream lost events, and the store lists the user as a participant. The client may
    /// not know the channel.
    Listed,
}

impl SubscribeReason {
    /// Returns the position up to which the client knows the channel's events, at most.
    pub fn position(self) -> Position {
        match self {
            Self::Added(position) | Self::Interrupted(position) | Self::EndedByHub(position) => {
                position
            }
            Self::Listed => Position::default(),
        }
    }

    /// Returns whether many sessions of a node may have this reason at the same time.
    pub fn is_shared(self) -> bool {
        matches!(self, Self::EndedByHub(_) | Self::Listed)
    }

    /// Returns whether the client may have missed events even if the log is continuous.
    pub fn may_have_missed(self) -> bool {
        !matches!(self, Self::Added(_))
    }
}

/// The next steps outside of requests.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing. The next notice or [`recover_ended`](super::Subscriptions::recover_ended) says so
    /// when there is.
    Nothing,
    /// No step before this instant.
    At(Instant),
    /// Take these steps.
    Now(Vec<SubscriptionStep>),
}

/// A step outside of requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SubscriptionStep {
    /// Subscribe to a channel. Ends with [`start`](super::Subscriptions::start),
    /// [`retry`](super::Subscriptions::retry), [`postpone`](super::Subscriptions::postpone) or
    /// [`not_found_in_channel`](super::Subscriptions::not_found_in_channel).
    Subscribe {
        /// The channel.
        id: ChannelId,
        /// The reason.
        why: SubscribeReason,
        /// Whether an earlier attempt failed, or did not find the user in the channel.
        is_retry: bool,
    },
    /// Compare the subscriptions with the user's channels in the store. Ends with
    /// [`listed`](super::Subscriptions::listed),
    /// [`retry_comparison`](super::Subscriptions::retry_comparison) or
    /// [`compare`](super::Subscriptions::compare).
    Compare {
        /// Number of failed attempts.
        attempts: u32,
    },
    /// Report a gap, since the session has reached its maximum number of subscriptions.
    ReportLimit {
        /// The channel.
        id: ChannelId,
        /// The position of the addition.
        position: Position,
    },
}

/// How a requested subscription is treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SubscriptionAdmission {
    /// It is new.
    New,
    /// It replaces one whose topic is at this position.
    Restart(Position),
    /// The session has reached its maximum number of subscriptions.
    OverLimit,
}
