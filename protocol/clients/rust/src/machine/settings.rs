//! How a client behaves, and when it takes nothing more.

use std::{collections::BTreeMap, time::Duration};

use protocol::{
    ChannelId,
    params::{Cursor, Watch},
};

use crate::Position;

/// How a client behaves.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What is followed beside `channels`. Default [`Watch::All`]: the user's channels, as the server chooses them.
    pub watch: Watch,
    /// Channels to follow from the start, each behind a position or from now on. Default none. Whichever the user is removed
    /// from and added to again is followed again.
    pub channels: BTreeMap<ChannelId, Cursor>,
    /// Where the user's own stream is gone on with. Default from now on.
    pub user_position: Option<Position>,
    /// How many messages wait for their acknowledgement before [`SendError::Full`]. Default 1000.
    pub outbox: usize,
    /// Up to how long the first wait is before a connection is tried again. Default half a second.
    pub first_wait: Duration,
    /// Up to how long any wait is, where the server does not ask for a longer one. Default 30 s.
    pub longest_wait: Duration,
    /// How long a reply is waited for. Default 10 s.
    pub patience: Duration,
    /// Name and version, as `name/1.2`, for the server. Default this client's.
    pub client: Option<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            watch: Watch::All,
            channels: BTreeMap::new(),
            user_position: None,
            outbox: 1000,
            first_wait: Duration::from_millis(500),
            longest_wait: Duration::from_secs(30),
            patience: Duration::from_secs(10),
            client: Some(concat!("chaos-client/", env!("CARGO_PKG_VERSION")).to_owned()),
        }
    }
}

/// Why a message is not taken for sending.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// As many as may wait do. There is room again with the next acknowledgement.
    #[error("too many messages wait for their acknowledgement")]
    Full,
    /// The client ended.
    #[error("the client ended")]
    Over,
}
