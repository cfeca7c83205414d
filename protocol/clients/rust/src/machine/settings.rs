//! Settings of a client.

use std::{collections::BTreeMap, time::Duration};

use protocol::{ChannelId, Cursor, operation::session::Watch};

use crate::Position;

/// Settings of a client.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Which channels to follow in addition to `channels`. Default [`Watch::All`]: the user's
    /// channels, as the server selects them.
    pub watch: Watch,
    /// Channels to follow from the start, each from a position or from now on. Default none. They
    /// are followed again when the user is removed from them and added again.
    pub channels: BTreeMap<ChannelId, Cursor>,
    /// Position in the user's own stream to continue from. Default from now on.
    pub user_position: Option<Position>,
    /// Maximum number of messages that are not acknowledged yet, see [`SendError::Full`]. Default
    /// 1000.
    pub outbox: usize,
    /// Upper bound of the first reconnect backoff. Default 500 ms.
    pub initial_backoff: Duration,
    /// Upper bound of the reconnect backoff. The server may ask for more. Default 30 s.
    pub max_backoff: Duration,
    /// Time to wait for a reply. Default 10 s.
    pub reply_timeout: Duration,
    /// Name and version of the application, as `name/1.2`, for the server. Default this client's.
    pub client: Option<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            watch: Watch::All,
            channels: BTreeMap::new(),
            user_position: None,
            outbox: 1000,
            initial_backoff: Duration::from_millis(500),
            max_backoff: Duration::from_secs(30),
            reply_timeout: Duration::from_secs(10),
            client: Some(concat!("chaos-client/", env!("CARGO_PKG_VERSION")).to_owned()),
        }
    }
}

/// The reason why a message is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// [`Settings::outbox`] is reached. The next acknowledgement makes room.
    #[error("too many messages are not acknowledged yet")]
    Full,
    /// The client has ended.
    #[error("the client ended")]
    Ended,
}
