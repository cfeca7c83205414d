//! Sessions: opening one, replacing its token, checking that it is alive.

use std::collections::BTreeMap;

use super::{Caller, Operation, WebSocket, described, empty::NoInput, path::NoPath};
use crate::{
    AppId, ChannelId, Cursor, SessionId,
    entity::{EntryResult, Environment, Gap, User},
    wire::{debug_without_secrets, wire},
};

described! {
    /// Opens the session
    ///
    /// The first request of every connection. The reply lists the user's channels; events follow
    /// without further requests.
    pub struct SessionConnect;

    /// Replaces the session's token
    ///
    /// The new token belongs to the same user. It is in effect from the reply on.
    pub struct TokenRefresh;

    /// Returns the server's clock
    ///
    /// For clients that cannot see WebSocket pings.
    pub struct Ping;
}

impl Operation for SessionConnect {
    const NAME: &'static str = "connect";
    const CALLERS: &'static [Caller] = &[Caller::User];
    const WEBSOCKET: Option<WebSocket> = Some(WebSocket::SESSION);
    type Path = NoPath;
    type Input = Connect;
    type Output = Connected;

    fn example() -> Connect {
        Connect {
            token: "eyJ…".to_owned(),
            ..Connect::default()
        }
    }
}

wire! {
    /// Which channels `connect` subscribes to.
    #[derive(Copy, Eq, Default)]
    #[serde(rename_all = "snake_case")]
    pub enum Watch {
        /// The user's channels, last active first, up to `limits.watched_channels`, and those that
        /// the user joins later.
        #[default]
        All,
        /// Only the channels in `resume`.
        None,
    }

    /// Fields of an entry.
    #[derive(Copy, Eq, Default)]
    #[serde(rename_all = "snake_case")]
    pub enum Entries {
        /// All fields.
        #[default]
        Full,
        /// Only `channel_id`, `seq`, `at`, `number`, `read` and `gap`.
        Positions,
    }

    /// Result of `connect`.
    pub struct Connected {
        /// Id of the session.
        pub session_id: SessionId,
        /// User of the session.
        pub user: User,
        /// App of the user.
        pub app_id: AppId,
        /// Environment of the user.
        pub environment: Environment,
        /// Features of the node beyond version 1.
        pub features: Vec<String>,
        /// Milliseconds of silence after which the server sends a ping.
        pub heartbeat_ms: u64,
        /// Limits that concern clients, by name.
        pub limits: BTreeMap<String, u64>,
        /// Position of the newest event of the user's own stream: `[seq, at]`.
        pub user_position: (u64, u64),
        /// Why the user's own stream could not be resumed from the client's position.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub user_gap: Option<Gap>,
        /// Channels that the session is subscribed to, and those that failed.
        pub channels: Vec<EntryResult>,
        /// Whether the user has channels that the session is not subscribed to.
        pub more: bool,
    }
}

wire! { secret:
    /// `connect`.
    #[derive(Default)]
    pub struct Connect {
        /// A user token.
        pub token: String,
        /// Channels to resume, each from a position.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        pub resume: BTreeMap<ChannelId, Cursor>,
        /// Position in the user's own stream to resume from.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub user_position: Option<Cursor>,
        /// Which channels the session is subscribed to besides those in `resume`.
        #[serde(default)]
        pub watch: Watch,
        /// Fields of each entry.
        #[serde(default)]
        pub entries: Entries,
        /// Name and version of the client.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub client: Option<String>,
    }
}

debug_without_secrets!(Connect { resume, user_position, watch, entries, client; token });

impl Operation for TokenRefresh {
    const NAME: &'static str = "token.refresh";
    const CALLERS: &'static [Caller] = &[Caller::User];
    const WEBSOCKET: Option<WebSocket> = Some(WebSocket::SESSION);
    type Path = NoPath;
    type Input = RefreshToken;
    type Output = Refreshed;

    fn example() -> RefreshToken {
        RefreshToken {
            token: "eyJ…".to_owned(),
        }
    }
}

wire! {
    /// Result of `token.refresh`.
    pub struct Refreshed {
        /// Expiry of the new token, in milliseconds since the Unix epoch.
        pub expires_at: u64,
    }
}

wire! { secret:
    /// `token.refresh`.
    pub struct RefreshToken {
        /// A new token of the same user.
        pub token: String,
    }
}

debug_without_secrets!(RefreshToken { ; token });

impl Operation for Ping {
    const NAME: &'static str = "ping";
    const CALLERS: &'static [Caller] = &[Caller::User];
    const WEBSOCKET: Option<WebSocket> = Some(WebSocket::SESSION);
    type Path = NoPath;
    type Input = NoInput;
    type Output = Pong;

    fn example() -> NoInput {
        NoInput {}
    }
}

wire! {
    /// Result of `ping`.
    pub struct Pong {
        /// The server's clock, in milliseconds since the Unix epoch.
        pub at: u64,
    }
}
