//! Apps, their settings and environments.

use std::fmt;

use crate::{AppId, OrganizationId, wire::wire};

wire! {
    /// An application with its users and channels, in two environments that share nothing.
    pub struct App {
        /// Id.
        pub id: AppId,
        /// Organization that owns it.
        pub organization_id: OrganizationId,
        /// Single line of 1 to 200 characters.
        pub name: String,
        /// Settings of the app.
        pub settings: AppSettings,
        /// Time of creation, in milliseconds since the Unix epoch.
        pub created_at: u64,
    }

    /// Settings of an app.
    #[derive(Copy, Eq)]
    pub struct AppSettings {
        /// Whether a valid token of an unknown user creates that user. Default true.
        #[serde(default = "default_true")]
        pub create_users_from_tokens: bool,
    }

    /// One of the two environments of an app.
    #[derive(Copy, Eq, Hash)]
    #[serde(rename_all = "snake_case")]
    pub enum Environment {
        /// Production.
        Live,
        /// Development and tests.
        Test,
    }
}

fn default_true() -> bool {
    true
}

impl Default for AppSettings {
    fn default() -> Self {
        Self {
            create_users_from_tokens: true,
        }
    }
}

impl Environment {
    /// Returns the word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Test => "test",
        }
    }
}

impl fmt::Display for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
