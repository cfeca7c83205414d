//! Users: people as well as bots and agents.

use super::is_zero;
use crate::{Metadata, UserId, wire::wire};

wire! {
    /// A user of an app.
    pub struct User {
        /// Id.
        pub id: UserId,
        /// Single line of up to 200 characters, like the other names.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub username: Option<String>,
        /// First name.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub first_name: Option<String>,
        /// Last name.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub last_name: Option<String>,
        /// http or https URL of a picture, up to 2,048 characters.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub avatar: Option<String>,
        /// Text of up to 2,048 characters, line breaks included.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub bio: Option<String>,
        /// Whether the user is a bot or an agent.
        #[serde(default)]
        #[cfg_attr(feature = "schema", schema(required = true))]
        pub bot: bool,
        /// Free data.
        #[serde(default)]
        #[cfg_attr(feature = "schema", schema(required = true))]
        pub metadata: Metadata,
        /// Time of creation, in milliseconds since the Unix epoch; set by the store.
        #[serde(default, skip_serializing_if = "is_zero")]
        #[cfg_attr(feature = "schema", schema(required = true))]
        pub created_at: u64,
    }
}
