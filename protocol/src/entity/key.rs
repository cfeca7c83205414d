//! Keys of organizations and apps.

use super::Environment;
use crate::{
    KeyId,
    wire::{debug_without_secrets, wire},
};

wire! { secret:
    /// A key of an organization or app.
    pub struct Key {
        /// Id.
        pub id: KeyId,
        /// Name given at creation.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub name: Option<String>,
        /// Environment that it gives access to; organization keys have none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub environment: Option<Environment>,
        /// The credential itself; only in the response that creates the key.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub secret: Option<String>,
        /// Time of creation, in milliseconds since the Unix epoch.
        pub created_at: u64,
        /// Time of expiry; access keys only.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub expires_at: Option<u64>,
    }
}

debug_without_secrets!(Key { id, name, environment, created_at, expires_at; secret });
