//! Typing notices.

use super::{Caller, Operation, WebSocket, described, empty::Empty, path::ChannelPath};
use crate::wire::wire;

described! {
    /// Tells the other participants that the user types, or stopped
    ///
    /// A start ends by itself after 6 seconds, so a client repeats it every 3. The others receive
    /// at most one start per user, channel and second, and the end of each start that they
    /// received.
    pub struct TypingSet;
}

impl Operation for TypingSet {
    const NAME: &'static str = "typing";
    const CALLERS: &'static [Caller] = &[Caller::User];
    const WEBSOCKET: Option<WebSocket> = Some(WebSocket::OUTPUT);
    type Path = ChannelPath;
    type Input = Typing;
    type Output = Empty;

    fn example() -> Typing {
        Typing { typing: true }
    }
}

wire! {
    /// `typing`.
    pub struct Typing {
        /// Whether the user types; false when the user stopped.
        pub typing: bool,
    }
}
