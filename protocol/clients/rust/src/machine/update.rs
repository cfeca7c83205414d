//! What the application is told.

use std::{fmt, time::Duration};

use protocol::{
    ChannelId, ErrorBody, EventMessage, MessageId,
    model::{Entry, Gap, Message, Participant},
    results::Connected,
};

use super::NoToken;
use crate::{Closed, ConnectError, Position};

/// What the application is told, in the order in which it is to be believed.
///
/// The durable events of a channel come in `seq` order, each once, across any number of connections; where that does not
/// hold there is a [`Gap`](Update::Gap) or an [`Anomaly`](Update::Anomaly) between them. Each message that was taken for
/// sending is [`Acknowledged`](Update::Acknowledged) once or [`Failed`](Update::Failed) once.
#[derive(Debug)]
pub enum Update {
    /// There is a session. What was missed follows as events.
    Connected(Box<Connected>),
    /// There is none, and the next attempt is made after so long, or as soon as there is a token.
    Away {
        /// Why.
        why: Why,
        /// When it is tried again.
        wait: Duration,
    },
    /// An event, durable or passing. `token.expiring`, `server.draining` and `channel.gap` are not told: the client does what they ask for.
    Event(EventMessage),
    /// A channel was subscribed to beside `connect`.
    Joined(Box<Entry>),
    /// A channel is not followed any more: the server refuses it.
    Lost {
        /// Which.
        channel_id: ChannelId,
        /// Why.
        error: ErrorBody,
    },
    /// A stream does not go on from where it was, but from a new head. What is missing is read, and told as
    /// [`Messages`](Update::Messages) and [`Participants`](Update::Participants) (of the own stream as
    /// [`Channels`](Update::Channels)) until [`Repaired`](Update::Repaired); events behind the head come meanwhile.
    Gap {
        /// Of which channel; of the user's own stream, if there is none.
        channel_id: Option<ChannelId>,
        /// With `diverged` what the application has of it does not hold any more. With `limit_reached` nothing more is
        /// heard of the channel, and nothing is read.
        gap: Gap,
        /// Where it was.
        from: Option<Position>,
        /// Where it goes on.
        to: Position,
    },
    /// Messages of a channel that were read after a gap, as they are now.
    Messages {
        /// Which channel.
        channel_id: ChannelId,
        /// In no order with the events around them: of two states the one with the greater `seq` is newer.
        messages: Vec<Message>,
    },
    /// Participants of a channel, read after a gap: one page.
    Participants {
        /// Which channel.
        channel_id: ChannelId,
        /// As they are now.
        participants: Vec<Participant>,
    },
    /// Channels of the user, read after a gap of the own stream: one page.
    Channels(Vec<Entry>),
    /// All that a gap asks for was read, or cannot be read.
    Repaired {
        /// Of which channel; of the user's own stream, if there is none.
        channel_id: Option<ChannelId>,
        /// Why the rest is not to be had.
        error: Option<ErrorBody>,
    },
    /// A message is stored.
    Acknowledged(Box<Message>),
    /// A message was taken for sending, and is given up.
    Failed {
        /// In which channel.
        channel_id: ChannelId,
        /// Which.
        message_id: MessageId,
        /// Why.
        why: Failure,
    },
    /// The server did what it promises not to do.
    Anomaly(Anomaly),
    /// The client ended, and there is nothing more to come.
    Over(Why),
}

/// Why a message is given up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The server refused it.
    #[error(transparent)]
    Refused(ErrorBody),
    /// The client ended first.
    #[error("the client ended before it was acknowledged")]
    Over {
        /// Whether it was sent: then it may be stored.
        was_sent: bool,
    },
}

/// Why there is no session.
#[derive(Debug)]
pub enum Why {
    /// There is no token.
    NoToken(NoToken),
    /// An attempt failed.
    Failed(ConnectError),
    /// The session ended.
    Closed(Closed),
    /// The node ends, and the client went.
    Draining,
    /// A request was not answered, and nothing was heard since.
    Silent,
    /// The user's own stream does not go on from where it was: the next session tells which channels the user is in.
    Missed,
    /// The application ended it.
    Asked,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoToken(error) => error.fmt(f),
            Self::Failed(error) => error.fmt(f),
            Self::Closed(closed) => closed.fmt(f),
            Self::Draining => f.write_str("the node is going away"),
            Self::Silent => f.write_str("the node does not answer"),
            Self::Missed => f.write_str("something of the user's own stream was missed"),
            Self::Asked => f.write_str("ended by the application"),
        }
    }
}

/// What a server promises not to do. It is handed on rather than hidden.
#[derive(Debug, Clone, PartialEq)]
pub enum Anomaly {
    /// A durable event that was passed already; it is told only here.
    Again {
        /// Where its stream stood.
        at: Position,
        /// What came.
        event: EventMessage,
    },
    /// Events between the position and this one did not come. It is told as an event too, and what is missing is read as
    /// after a gap.
    Hole {
        /// Where its stream stood.
        at: Position,
        /// What came.
        event: EventMessage,
    },
    /// An event of a channel that the session does not listen to; it is told only here. So is one that overtakes
    /// `channel.added` where the user was removed and added again meanwhile.
    Foreign(EventMessage),
    /// An event that the client must understand, and does not.
    Unreadable(EventMessage),
}
