//! Updates for the application.

use std::{fmt, time::Duration};

use protocol::{
    ChannelId, ErrorBody, EventMessage, MessageId,
    entity::{Entry, Gap, Message, Participant},
    operation::session::Connected,
};

use super::TokenUnavailable;
use crate::{Closed, ConnectError, Position};

/// An update that the client reports to the application. Updates are in order.
///
/// The durable events of a channel are in `seq` order, each once, across any number of connections.
/// Otherwise there is a [`Gap`](Update::Gap) or an [`Anomaly`](Update::Anomaly) between them. Each
/// accepted message is [`Acknowledged`](Update::Acknowledged) once or [`Failed`](Update::Failed)
/// once.
#[derive(Debug)]
pub enum Update {
    /// A session began. Missed events follow.
    Connected(Box<Connected>),
    /// The session ended, or an attempt to connect failed. The client tries again.
    Away {
        /// The cause.
        why: DisconnectCause,
        /// Time until the next attempt. Asking the application for a token may add to it.
        wait: Duration,
    },
    /// A durable or passing event. `token.expiring`, `server.draining` and `channel.gap` are
    /// handled by the client instead.
    Event(EventMessage),
    /// A channel was subscribed to other than by `connect`.
    Joined(Box<Entry>),
    /// The server refuses the subscription of a channel, which is not followed any more.
    Lost {
        /// The channel.
        channel_id: ChannelId,
        /// The server's error.
        error: ErrorBody,
    },
    /// A stream has a gap, and continues from a new head. The client reads the missing entities,
    /// and reports them as [`Messages`](Update::Messages) and
    /// [`Participants`](Update::Participants) (for the user's own stream as
    /// [`Channels`](Update::Channels)) until [`Recovered`](Update::Recovered). Events after the
    /// head may come in between.
    Gap {
        /// The channel, or `None` for the user's own stream.
        channel_id: Option<ChannelId>,
        /// The kind of gap. After `diverged` the application must discard what it has of the
        /// channel. After `limit_reached` the client no longer follows the channel, and reads
        /// nothing.
        gap: Gap,
        /// The position before the gap.
        from: Option<Position>,
        /// The position after the gap.
        to: Position,
    },
    /// Messages of a channel that were read after a gap, in their current state.
    Messages {
        /// The channel.
        channel_id: ChannelId,
        /// Not ordered with the events around them: of two states of a message the one with the
        /// greater `seq` is newer.
        messages: Vec<Message>,
    },
    /// A page of a channel's participants, read after a gap.
    Participants {
        /// The channel.
        channel_id: ChannelId,
        /// The participants in their current state.
        participants: Vec<Participant>,
    },
    /// A page of the user's channels, read after a gap of the user's own stream, or because a reply
    /// had no room for an entry in full and had only its positions.
    Channels(Vec<Entry>),
    /// All that a gap requires was read, or cannot be read.
    Recovered {
        /// The channel, or `None` for the user's own stream.
        channel_id: Option<ChannelId>,
        /// The reason why the rest cannot be read; `None` if all was read.
        error: Option<ErrorBody>,
    },
    /// A message was stored.
    Acknowledged(Box<Message>),
    /// An accepted message will not be sent any more.
    Failed {
        /// The channel.
        channel_id: ChannelId,
        /// The message.
        message_id: MessageId,
        /// The cause.
        why: SendFailure,
    },
    /// The server broke a promise of the protocol.
    Anomaly(Anomaly),
    /// The client ended. No update follows.
    Ended(DisconnectCause),
}

/// The reason why an accepted message will not be sent again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendFailure {
    /// The server refused the message.
    #[error(transparent)]
    Refused(ErrorBody),
    /// The client ended before the message was acknowledged.
    #[error("the client ended before it was acknowledged")]
    Ended {
        /// Whether the message was sent, and so may be stored.
        was_sent: bool,
    },
}

/// The reason why there is no session.
#[derive(Debug)]
pub enum DisconnectCause {
    /// The application has no token.
    TokenUnavailable(TokenUnavailable),
    /// An attempt to connect failed.
    Failed(ConnectError),
    /// The session ended.
    Closed(Closed),
    /// The node drains, and the client left it.
    Draining,
    /// A request got no reply in time, and nothing else was received since.
    Silent,
    /// The user's own stream has a gap. The next session says which channels the user is in.
    UserStreamGap,
    /// The application ended the client.
    ClosedByApplication,
}

impl fmt::Display for DisconnectCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TokenUnavailable(error) => error.fmt(f),
            Self::Failed(error) => error.fmt(f),
            Self::Closed(closed) => closed.fmt(f),
            Self::Draining => f.write_str("the node is draining"),
            Self::Silent => f.write_str("the node does not answer"),
            Self::UserStreamGap => f.write_str("the user's own stream has a gap"),
            Self::ClosedByApplication => f.write_str("ended by the application"),
        }
    }
}

/// A broken promise of the server.
#[derive(Debug, Clone, PartialEq)]
pub enum Anomaly {
    /// A durable event at or before the current position. It is reported only here.
    Repeated {
        /// The position of the stream.
        at: Position,
        /// The event.
        event: EventMessage,
    },
    /// A hole: events between the position and this one are missing. The event is also reported as
    /// an update, and the missing ones are read as after a gap.
    Hole {
        /// The position of the stream.
        at: Position,
        /// The event.
        event: EventMessage,
    },
    /// An event of a channel without a subscription. It is reported only here. Also an event that
    /// overtakes `channel.added` after the user was removed and added again.
    Foreign(EventMessage),
    /// An event that the client must understand and cannot parse.
    Unreadable(EventMessage),
}
