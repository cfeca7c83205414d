//! Presence: whether a user is online.

use crate::wire::wire;

wire! {
    /// Presence of a user.
    #[derive(Eq)]
    pub struct Presence {
        /// Whether the user has a session.
        pub online: bool,
        /// End of the last session, in milliseconds since the Unix epoch, if known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub last_seen: Option<u64>,
        /// Time of this state. Of two states, the later one counts.
        pub at: u64,
    }
}
