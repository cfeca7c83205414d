//! Read positions.

use super::{Caller, Http, Operation, WebSocket, described, path::ChannelPath};
use crate::{UserId, wire::wire};

described! {
    /// Moves the read position forwards
    ///
    /// At most to the channel's `number`. An app key names the `user_id`: a participant.
    pub struct ReadMark;

    /// Moves the read position to just before a message
    ///
    /// To `number − 1`, backwards too, and at most to the channel's `number`. An app key names the
    /// `user_id`: a participant.
    pub struct ReadUnmark;
}

impl Operation for ReadMark {
    const NAME: &'static str = "read.mark";
    const CALLERS: &'static [Caller] = Caller::ACTORS;
    const WEBSOCKET: Option<WebSocket> = Some(WebSocket::OUTPUT);
    const HTTP: Option<Http> = Some(Http::put(
        "/v1/channels/{channel}/read",
        &[(200, "The read position")],
    ));
    type Path = ChannelPath;
    type Input = MarkRead;
    type Output = ReadResult;

    fn example() -> MarkRead {
        MarkRead {
            number: 1,
            user_id: None,
        }
    }
}

wire! {
    /// `read.mark`.
    pub struct MarkRead {
        /// Number of the newest message that the user has read.
        pub number: u64,
        /// The user who has read; required with an app key; app keys only.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub user_id: Option<UserId>,
    }

    /// A read position.
    #[derive(Copy, Eq)]
    pub struct ReadResult {
        /// Number of the newest message that the user has read.
        pub read: u64,
    }
}

impl Operation for ReadUnmark {
    const NAME: &'static str = "read.unmark";
    const CALLERS: &'static [Caller] = Caller::ACTORS;
    const WEBSOCKET: Option<WebSocket> = Some(WebSocket::OUTPUT);
    const HTTP: Option<Http> = Some(Http::delete(
        "/v1/channels/{channel}/read",
        &[(200, "The read position")],
    ));
    type Path = ChannelPath;
    type Input = UnmarkRead;
    type Output = ReadResult;

    fn example() -> UnmarkRead {
        UnmarkRead {
            number: 1,
            user_id: None,
        }
    }
}

wire! {
    /// `read.unmark`.
    pub struct UnmarkRead {
        /// The first number that the user has not read, at least 1.
        pub number: u64,
        /// The user who has not read it; required with an app key; app keys only.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub user_id: Option<UserId>,
    }
}
