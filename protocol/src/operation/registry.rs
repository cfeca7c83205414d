//! The list of all operations.

use super::{Caller, Http, Operation, WebSocket};

/// Calls a macro with every operation's type, as `resource::Operation` below `protocol::operation`:
/// `callback! { session: [session::Ping, …] domain: [channel::ChannelCreate, …] }`. Those of a
/// session read or change its own state and exist on the WebSocket only.
#[macro_export]
macro_rules! operations {
    ($callback:ident) => {
        $callback! {
            session: [
                session::SessionConnect,
                session::TokenRefresh,
                session::Ping,
                channel::ChannelSubscribe,
                channel::ChannelUnsubscribe,
                presence::PresenceWatch,
            ]
            domain: [
                channel::ChannelList,
                channel::ChannelCreate,
                channel::ChannelSearch,
                channel::ChannelRead,
                channel::ChannelReplace,
                channel::ChannelUpdate,
                channel::ChannelDelete,
                channel::ChannelJoin,
                channel::ChannelLeave,
                participant::ParticipantAdd,
                participant::ParticipantList,
                participant::ParticipantAddBatch,
                participant::ParticipantRead,
                participant::ParticipantUpdate,
                participant::ParticipantRemove,
                message::MessageSend,
                message::MessageList,
                message::MessageRead,
                message::MessageEdit,
                message::MessageDelete,
                reaction::ReactionAdd,
                reaction::ReactionRemove,
                read::ReadMark,
                read::ReadUnmark,
                typing::TypingSet,
                user::UserCreate,
                user::UserList,
                user::UserPutBatch,
                user::UserGet,
                user::UserRead,
                user::UserReplace,
                user::UserUpdate,
                user::UserDelete,
                user::UserMintToken,
                user::UserDisconnect,
                user::UserChannels,
                user::UserUnread,
                organization::OrganizationCreate,
                organization::OrganizationList,
                organization::OrganizationRead,
                organization::OrganizationUpdate,
                organization::OrganizationDelete,
                app::AppCreate,
                app::AppList,
                app::AppRead,
                app::AppUpdate,
                app::AppDelete,
                credential::OrganizationKeyCreate,
                credential::OrganizationKeyList,
                credential::OrganizationKeyRevoke,
                credential::AppKeyCreate,
                credential::AppKeyList,
                credential::AppKeyRevoke,
                credential::AccessKeyCreate,
                credential::TokenKeyCreate,
                credential::TokenKeyList,
                credential::TokenKeyRevoke,
            ]
        }
    };
}

/// The constants of a declaration.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Description {
    /// As [`Operation::NAME`].
    pub name: &'static str,
    /// As [`Described::DOC`](super::Described::DOC).
    pub doc: &'static str,
    /// As [`Operation::CALLERS`].
    pub callers: &'static [Caller],
    /// As [`Operation::WEBSOCKET`].
    pub websocket: Option<WebSocket>,
    /// As [`Operation::HTTP`].
    pub http: Option<Http>,
}

impl Description {
    /// Returns the description of an operation.
    pub const fn of<O: Operation>() -> Self {
        Self {
            name: O::NAME,
            doc: O::DOC,
            callers: O::CALLERS,
            websocket: O::WEBSOCKET,
            http: O::HTTP,
        }
    }

    /// Returns the first paragraph of the doc comment.
    pub fn summary(&self) -> &'static str {
        self.doc
            .split_once("\n\n")
            .map_or(self.doc, |(summary, _)| summary)
            .trim()
    }

    /// Returns the doc comment after its first paragraph; empty if there is no more.
    pub fn details(&self) -> String {
        let details = self
            .doc
            .split_once("\n\n")
            .map_or("", |(_, details)| details);
        details
            .lines()
            .map(str::trim)
            .collect::<Vec<_>>()
            .join(" ")
            .trim()
            .to_owned()
    }

    /// Returns the resource: the part of the name before the dot.
    pub fn resource(&self) -> &'static str {
        self.name.split('.').next().unwrap_or(self.name)
    }
}

macro_rules! describe {
    (session: [$($session:ident :: $of_session:ident,)*] domain: [$($resource:ident :: $operation:ident,)*]) => {
        /// Returns all operations: those of a session first, then the others by resource.
        pub const fn descriptions() -> &'static [Description] {
            const {
                &[
                    $(Description::of::<super::$session::$of_session>(),)*
                    $(Description::of::<super::$resource::$operation>(),)*
                ]
            }
        }
    };
}
operations!(describe);

/// Returns the names of the operations that WebSocket clients may use.
pub fn methods() -> impl Iterator<Item = &'static str> {
    descriptions()
        .iter()
        .filter(|operation| operation.websocket.is_some())
        .map(|operation| operation.name)
}
