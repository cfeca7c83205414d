//! Users: people as well as bots and agents.

use crate::{Metadata, UserId};

wire! {
    /// A user of an app.
    pub struct User {
        /// Its id.
        pub id: UserId,
        /// Up to 200 characters, like the other names.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub username: Option<String>,
        /// The first name.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub first_name: Option<String>,
        /// The last name.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub last_name: Option<String>,
        /// The address of a picture, up to 2,048 characters.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub avatar: Option<String>,
        /// Up to 2,048 characters.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub bio: Option<String>,
        /// Whether it is a bot or an agent.
        #[serde(default)]
        pub bot: bool,
        /// Free data.
        #[serde(default)]
        pub metadata: Metadata,
        /// When it was made, in milliseconds since the Unix epoch; set by the store.
        #[serde(default, skip_serializing_if = "is_zero")]
        pub created_at: u64,
    }

    /// Whether a user has a session somewhere.
    #[derive(Eq)]
    pub struct Presence {
        /// Whether it has.
        pub online: bool,
        /// When its last session ended, in milliseconds since the Unix epoch, if that is known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub last_seen: Option<u64>,
        /// The instant of which this is told: of two, the later one is newer.
        pub at: u64,
    }
}

/// Fields that the store assigns are spliced in; a stored value leaves them out.
pub(crate) fn is_zero(value: &u64) -> bool {
    *value == 0
}
