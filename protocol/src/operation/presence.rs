//! Presence: whether users are online.

use std::collections::BTreeMap;

use super::{Caller, Operation, WebSocket, described, path::NoPath, user::UserIds};
use crate::{UserId, entity::Presence, wire::wire};

described! {
    /// Watches whether users are online
    ///
    /// At most 100 users, in place of those watched before. An unknown id is reported as offline
    /// and is not watched: after the user was created, the client has to watch it again.
    pub struct PresenceWatch;
}

impl Operation for PresenceWatch {
    const NAME: &'static str = "presence.watch";
    const CALLERS: &'static [Caller] = &[Caller::User];
    const WEBSOCKET: Option<WebSocket> = Some(WebSocket::SESSION);
    type Path = NoPath;
    type Input = UserIds;
    type Output = Presences;

    fn example() -> UserIds {
        UserIds {
            user_ids: vec![UserId::from_bits(1)],
        }
    }
}

wire! {
    /// Result of `presence.watch`.
    pub struct Presences {
        /// Presence of each requested user.
        pub presence: BTreeMap<UserId, Presence>,
    }
}
