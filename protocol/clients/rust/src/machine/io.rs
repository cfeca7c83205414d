//! What goes into the machine and what comes out of it.

use std::collections::BTreeMap;

use protocol::{
    ChannelId, ErrorBody, EventMessage, Method,
    model::{Entry, EntryResult, Message, Participant},
    params::{Connect, Cursor, ListMessages, ListPage, SendMessage},
    results::{Connected, List, MessageList},
};

use crate::{Closed, ConnectError};

/// Why there is no token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoToken {
    /// Asking again later may help.
    #[error("no token at the moment: {0}")]
    Later(String),
    /// There will be none.
    #[error("no token: {0}")]
    Never(String),
}

/// Which request a reply belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(pub(super) u64);

/// What happened.
#[derive(Debug)]
pub enum Input {
    /// [`Action::AskToken`] has its answer.
    Token(Result<String, NoToken>),
    /// [`Action::Connect`] succeeded.
    Connected(Box<Connected>),
    /// [`Action::Connect`] failed.
    Failed(ConnectError),
    /// An event came. Replies and events are given in the order in which the server sent them.
    Event(EventMessage),
    /// A reply came.
    Reply(Ticket, Result<Answer, ErrorBody>),
    /// The session ended.
    Ended(Closed),
}

/// What the shell has to do.
#[derive(Debug, PartialEq)]
pub enum Action {
    /// Ask the application for a token. Never twice at a time.
    AskToken,
    /// Connect to the address with this index. Never twice at a time, and never beside a session.
    Connect {
        /// Which address.
        address: usize,
        /// What to connect with.
        params: Box<Connect>,
    },
    /// Send a request.
    Ask(Ticket, Ask),
    /// Close the session properly. Its end is not to be told.
    Leave,
    /// Drop the session, of which nothing is heard any more. Its end is not to be told.
    Cut,
}

/// A request.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "each variant is the method of that name")]
pub enum Ask {
    MessageSend {
        channel_id: ChannelId,
        message: Box<SendMessage>,
    },
    MessageList {
        channel_id: ChannelId,
        which: ListMessages,
    },
    ParticipantList {
        channel_id: ChannelId,
        page: ListPage,
    },
    ChannelList(ListPage),
    ChannelSubscribe(BTreeMap<ChannelId, Cursor>),
    ChannelUnsubscribe(Vec<ChannelId>),
    TokenRefresh(String),
    Ping,
}

impl Ask {
    /// Its method.
    pub fn method(&self) -> Method {
        match self {
            Self::MessageSend { .. } => Method::MessageSend,
            Self::MessageList { .. } => Method::MessageList,
            Self::ParticipantList { .. } => Method::ParticipantList,
            Self::ChannelList(_) => Method::ChannelList,
            Self::ChannelSubscribe(_) => Method::ChannelSubscribe,
            Self::ChannelUnsubscribe(_) => Method::ChannelUnsubscribe,
            Self::TokenRefresh(_) => Method::TokenRefresh,
            Self::Ping => Method::Ping,
        }
    }
}

/// A request's result.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "each variant answers the request of that name")]
pub enum Answer {
    MessageSend(Box<Message>),
    MessageList(MessageList),
    ParticipantList(List<Participant>),
    ChannelList(List<Entry>),
    ChannelSubscribe(Vec<EntryResult>),
    ChannelUnsubscribe,
    /// When the token ends, in milliseconds since the Unix epoch.
    TokenRefresh(u64),
    /// The server's clock, in milliseconds since the Unix epoch.
    Ping(u64),
}
