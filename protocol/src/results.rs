//! What requests are answered with, where it is not plainly an entity.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    AppId, ChannelId, ErrorBody, SessionId, UserId,
    model::{
        Channel, Entry, EntryResult, Environment, Gap, Key, Message, Organization, Participant,
        Presence, User, debug_without_secrets, wire,
    },
};

wire! {
    /// Nothing to tell.
    #[derive(Default)]
    pub struct Empty {}

    /// The answer to `connect`.
    pub struct Connected {
        /// This session.
        pub session_id: SessionId,
        /// Whose it is.
        pub user: User,
        /// In which app.
        pub app_id: AppId,
        /// In which environment.
        pub environment: Environment,
        /// What this node can do beyond version 1.
        pub features: Vec<String>,
        /// After how long a silence the server sends a ping.
        pub heartbeat_ms: u64,
        /// The limits that the client can meet, by name.
        pub limits: BTreeMap<String, u64>,
        /// The head of the user's own stream: `[seq, at]`.
        pub user_position: (u64, u64),
        /// Why the user's own stream does not go on from the client's position.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub user_gap: Option<Gap>,
        /// The channels that the session is subscribed to, and those that it could not be.
        pub channels: Vec<EntryResult>,
        /// Whether the user has channels that the session is not subscribed to.
        pub more: bool,
    }

    /// The answer to `token.refresh`.
    pub struct Refreshed {
        /// When the new token ends, in milliseconds since the Unix epoch.
        pub expires_at: u64,
    }

    /// The answer to `ping`.
    pub struct Pong {
        /// The server's clock, in milliseconds since the Unix epoch.
        pub at: u64,
    }

    /// The answer to `channel.subscribe`.
    pub struct Subscribed {
        /// One for each channel asked for.
        pub channels: Vec<EntryResult>,
    }

    /// A page of messages.
    pub struct MessageList {
        /// By `number` ascending; by `seq` ascending with `changed_after`.
        pub items: Vec<Message>,
        /// Whether there are more in that direction.
        pub more: bool,
    }

    /// A channel.
    pub struct ChannelResult {
        /// As it is now.
        pub channel: Channel,
    }

    /// A participant.
    pub struct ParticipantResult {
        /// As it is now.
        pub participant: Participant,
    }

    /// A message.
    pub struct MessageResult {
        /// As it is now.
        pub message: Message,
    }

    /// A user.
    pub struct UserResult {
        /// As it is now.
        pub user: User,
    }

    /// Users.
    pub struct Users {
        /// Those that exist.
        pub items: Vec<User>,
        /// True where the reply ends early because it would be too long: the others are asked for again.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        pub more: bool,
    }

    /// How often a reaction was given.
    #[derive(Copy, Eq)]
    pub struct Count {
        /// After this request.
        pub count: u64,
    }

    /// A read position.
    #[derive(Copy, Eq)]
    pub struct ReadResult {
        /// Up to which number the user has read.
        pub read: u64,
    }

    /// The answer to `presence.watch`.
    pub struct Presences {
        /// One for each user asked for.
        #[cfg_attr(feature = "schema", schema(value_type = std::collections::HashMap<String, Presence>))]
        pub presence: BTreeMap<UserId, Presence>,
    }

    /// The answer to `POST /v1/organizations`.
    pub struct OrganizationCreated {
        /// The organization.
        pub organization: Organization,
        /// Its first key.
        pub key: Key,
    }

    /// How many sessions were ended.
    #[derive(Copy, Eq)]
    pub struct Disconnected {
        /// Over all nodes.
        pub sessions: u64,
    }

    /// A user's unread messages.
    pub struct Unread {
        /// The sum.
        pub unread: u64,
        /// By channel; those without any are left out.
        #[cfg_attr(feature = "schema", schema(value_type = std::collections::HashMap<String, u64>))]
        pub channels: BTreeMap<ChannelId, u64>,
    }

    /// The answers to a batch of users.
    pub struct UserBatch {
        /// In the order asked.
        pub items: Vec<UserBatchItem>,
    }

    /// One answer of a batch.
    pub struct UserBatchItem {
        /// The HTTP status that the item alone would have had.
        pub status: u16,
        /// The user.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub user: Option<User>,
        /// Why there is none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub error: Option<ErrorBody>,
    }

    /// The answers to a batch of participants.
    pub struct ParticipantBatch {
        /// In the order asked.
        pub items: Vec<ParticipantBatchItem>,
    }

    /// One answer of a batch.
    pub struct ParticipantBatchItem {
        /// The HTTP status that the item alone would have had.
        pub status: u16,
        /// The participant.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub participant: Option<Participant>,
        /// Why there is none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub error: Option<ErrorBody>,
    }

    /// The body of every HTTP error.
    pub struct ErrorAnswer {
        /// What went wrong.
        pub error: ErrorBody,
    }

    /// A page of a user's channels.
    pub struct EntryList {
        /// Last active first.
        pub items: Vec<Entry>,
        /// Where the next page begins, if there is one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub cursor: Option<String>,
    }
}

wire! { secret:
    /// A user token.
    pub struct Token {
        /// For `connect`, or as the credential of HTTP requests. Left out only where a repeated `Idempotency-Key` is answered.
        #[cfg_attr(feature = "schema", schema(required = false))]
        pub token: String,
        /// When it ends, in milliseconds since the Unix epoch.
        pub expires_at: u64,
    }
}

debug_without_secrets!(Token { expires_at; token });

/// A page of a list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct List<T> {
    /// The items.
    pub items: Vec<T>,
    /// Where the next page begins, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}
