//! Input and output of the machine.

use std::collections::BTreeMap;

use protocol::{
    ChannelId, Cursor, ErrorBody, EventMessage,
    entity::{EntryResult, Message, Participant},
    operation::{
        channel::EntryList,
        message::{ListMessages, MessagePage, SendMessage},
        page::{List, ListPage},
        session::{Connect, Connected},
    },
};

use crate::{Closed, ConnectError};

/// The reason why the application has no token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenUnavailable {
    /// A later attempt may succeed.
    #[error("no token at the moment: {0}")]
    Later(String),
    /// Every attempt will fail, for example since the user signed out.
    #[error("no token: {0}")]
    Never(String),
}

/// Identifies a request, to match it with its reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub(super) u64);

/// An input of the machine.
#[derive(Debug)]
pub enum MachineInput {
    /// The result of [`MachineAction::AskToken`].
    Token(Result<String, TokenUnavailable>),
    /// [`MachineAction::Connect`] succeeded.
    Connected(Box<Connected>),
    /// [`MachineAction::Connect`] failed.
    Failed(ConnectError),
    /// An event was received. Replies and events must be passed in the order in which the server
    /// sent them.
    Event(EventMessage),
    /// A reply was received.
    Reply(RequestId, Result<ClientReply, ErrorBody>),
    /// The session ended.
    Ended(Closed),
}

/// An action for the driver.
#[derive(Debug, PartialEq)]
pub enum MachineAction {
    /// Ask the application for a token. At most one of these is in progress.
    AskToken,
    /// Connect. At most one of these is in progress, and none while there is a session.
    Connect {
        /// Index of the address.
        address: usize,
        /// Parameters of `connect`.
        params: Box<Connect>,
    },
    /// Send a request.
    Request(RequestId, ClientRequest),
    /// Close the session with a close frame. Its end must not be passed as an input.
    Leave,
    /// Drop the connection without a close frame, since the server is silent. Its end must not be
    /// passed as an input.
    Cut,
}

/// A request that the machine makes.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "each variant is the method of that name")]
pub enum ClientRequest {
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

/// The result of a request.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "each variant answers the request of that name")]
pub enum ClientReply {
    MessageSend(Box<Message>),
    MessageList(MessagePage),
    ParticipantList(List<Participant>),
    ChannelList(EntryList),
    ChannelSubscribe(Vec<EntryResult>),
    ChannelUnsubscribe,
    /// When the token expires, in milliseconds since the Unix epoch.
    TokenRefresh(u64),
    /// The server's clock, in milliseconds since the Unix epoch.
    Ping(u64),
}
