//! Organizations, their apps, and the keys of both.

use std::fmt;

use crate::{AppId, KeyId, OrganizationId, TokenKeyId};

wire! {
    /// Who owns apps.
    pub struct Organization {
        /// Its id.
        pub id: OrganizationId,
        /// 1 to 200 characters.
        pub name: String,
        /// Where its people are reached; up to 320 characters.
        pub email: String,
        /// The address of a picture.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub banner: Option<String>,
        /// When it was made, in milliseconds since the Unix epoch.
        pub created_at: u64,
    }

    /// A world of users and channels, in two environments that share nothing.
    pub struct App {
        /// Its id.
        pub id: AppId,
        /// Whose it is.
        pub organization_id: OrganizationId,
        /// 1 to 200 characters.
        pub name: String,
        /// What the app decided.
        pub settings: AppSettings,
        /// When it was made, in milliseconds since the Unix epoch.
        pub created_at: u64,
    }

    /// What an app may decide.
    #[derive(Copy, Eq)]
    pub struct AppSettings {
        /// Whether a valid token for an unknown user makes that user. Default true.
        #[serde(default = "yes")]
        pub create_users_from_tokens: bool,
    }

    /// One of the two worlds of an app.
    #[derive(Copy, Eq, Hash)]
    #[serde(rename_all = "snake_case")]
    pub enum Environment {
        /// For real users.
        Live,
        /// For trying things out.
        Test,
    }

    /// How a user token is signed.
    #[derive(Copy, Eq)]
    pub enum Algorithm {
        /// HMAC with SHA-256: a shared secret that CHAOS makes.
        HS256,
        /// Ed25519: a public key given by the customer.
        EdDSA,
        /// ECDSA on P-256: a public key given by the customer.
        ES256,
        /// RSA with PKCS#1 v1.5 and SHA-256: a public key given by the customer.
        RS256,
    }
}

wire! { secret:
    /// A key as it is listed: never its secret.
    pub struct Key {
        /// Its id.
        pub id: KeyId,
        /// What it was called when it was made.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub name: Option<String>,
        /// Which environment it reaches; organization keys have none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub environment: Option<Environment>,
        /// Only in the answer that made it: the credential itself.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub secret: Option<String>,
        /// When it was made, in milliseconds since the Unix epoch.
        pub created_at: u64,
        /// When it ends; access keys only.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub expires_at: Option<u64>,
    }

    /// A key that verifies user tokens.
    pub struct TokenKey {
        /// Its id: the `kid` of the tokens.
        pub id: TokenKeyId,
        /// Which environment its users are in.
        pub environment: Environment,
        /// The only algorithm accepted for it.
        pub algorithm: Algorithm,
        /// Only in the answer that made it, and for HS256: the shared secret, whose UTF-8 bytes are the key.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub secret: Option<String>,
        /// When it was made, in milliseconds since the Unix epoch.
        pub created_at: u64,
    }
}

debug_without_secrets!(Key { id, name, environment, created_at, expires_at; secret });
debug_without_secrets!(TokenKey { id, environment, algorithm, created_at; secret });

fn yes() -> bool {
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
    /// The word on the wire.
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
