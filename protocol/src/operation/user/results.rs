//! Results of operations on users, other than entities.

use std::collections::BTreeMap;

use crate::{
    ChannelId, ErrorBody,
    entity::User,
    wire::{debug_without_secrets, wire},
};

wire! {
    /// Result of `user.get`.
    pub struct Users {
        /// The requested users that exist.
        pub items: Vec<User>,
        /// Whether the reply ends early because it would be too long. The client requests the
        /// others again.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        pub more: bool,
    }

    /// Results of a batch of users.
    pub struct UserBatch {
        /// One for each item, in the order of the request.
        pub items: Vec<UserBatchItem>,
    }

    /// Result of one item of a batch.
    pub struct UserBatchItem {
        /// HTTP status of the item.
        pub status: u16,
        /// The user.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub user: Option<User>,
        /// Error, if the item failed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub error: Option<ErrorBody>,
    }

    /// Number of sessions that end.
    #[derive(Copy, Eq)]
    pub struct Disconnected {
        /// Number on all nodes.
        pub sessions: u64,
    }

    /// A user's unread messages.
    pub struct Unread {
        /// Sum over all channels.
        pub unread: u64,
        /// Number of each channel that has unread messages.
        pub channels: BTreeMap<ChannelId, u64>,
    }
}

wire! { secret:
    /// A user token.
    pub struct Token {
        /// The token, for `connect` or as the credential of HTTP requests. Absent only in the
        /// response to a repeated `Idempotency-Key`.
        #[cfg_attr(feature = "schema", schema(required = false))]
        pub token: String,
        /// Time of expiry, in milliseconds since the Unix epoch.
        pub expires_at: u64,
    }
}

debug_without_secrets!(Token { expires_at; token });
