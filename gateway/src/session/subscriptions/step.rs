//! What a session does about its subscriptions outside of requests, and why.

use std::time::Instant;

use fanout::Position;
use protocol::ChannelId;

/// A subscription at the hub.
pub trait Handle {
    /// Whether the hub ended it: the user was removed, or the channel deleted.
    fn is_ended(&self) -> bool;

    /// Where its topic stands on this node.
    fn topic_position(&self) -> Position;
}

/// Why a channel is subscribed to outside of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// The user's stream told `channel.added` with this position.
    Added(Position),
    /// A request that failed had taken the subscription away, whose topic stood here.
    Interrupted(Position),
    /// The hub ended the subscription at this position, and the user's stream has not told
    /// `channel.removed`. After a failover the removal may never have been.
    Doubted(Position),
    /// The user's own stream lost events, and the store says that the user is in the channel. The
    /// client may not know of it.
    Listed,
}

impl Why {
    /// Up to where the client has been told of the channel, at most.
    pub fn position(self) -> Position {
        match self {
            Self::Added(position) | Self::Interrupted(position) | Self::Doubted(position) => {
                position
            }
            Self::Listed => Position::default(),
        }
    }

    /// Whether many sessions of a node may have this reason in the same moment.
    pub fn is_shared(self) -> bool {
        matches!(self, Self::Doubted(_) | Self::Listed)
    }

    /// Whether the client may have missed events, whatever the log says.
    pub fn may_have_missed(self) -> bool {
        !matches!(self, Self::Added(_))
    }
}

/// What to do outside of requests.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing. The next notice or [`doubt_ended`](super::Subscriptions::doubt_ended) says so when there is.
    Nothing,
    /// Nothing before this instant.
    At(Instant),
    /// These steps.
    Now(Vec<Step>),
}

/// A step outside of requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Subscribe to a channel. Ends with [`start`](super::Subscriptions::start),
    /// [`retry`](super::Subscriptions::retry), [`postpone`](super::Subscriptions::postpone) or
    /// [`not_a_participant`](super::Subscriptions::not_a_participant).
    Subscribe {
        /// The channel.
        id: ChannelId,
        /// Why, and after which position.
        why: Why,
        /// Whether an earlier attempt failed or found that the user is not in the channel.
        is_retry: bool,
    },
    /// Compare the subscriptions with the user's channels in the store. Ends with
    /// [`listed`](super::Subscriptions::listed), [`retry_comparison`](super::Subscriptions::retry_comparison) or
    /// [`compare`](super::Subscriptions::compare).
    Compare {
        /// How many attempts have failed.
        attempts: u32,
    },
    /// Tell a gap: the session has as many subscriptions as it may.
    TellLimit {
        /// The channel.
        id: ChannelId,
        /// Where it stood when the user was added.
        position: Position,
    },
}

/// What a request for a subscription comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// It is a new one.
    New,
    /// It replaces one whose topic stands here.
    Restart(Position),
    /// The session has as many as it may.
    OverLimit,
}
