//! Keys that verify user tokens.

use super::Environment;
use crate::{
    TokenKeyId,
    wire::{debug_without_secrets, wire},
};

wire! {
    /// Signature algorithm of user tokens.
    #[derive(Copy, Eq)]
    pub enum Algorithm {
        /// HMAC with SHA-256; CHAOS generates the shared secret.
        HS256,
        /// Ed25519; the customer provides the public key.
        EdDSA,
        /// ECDSA on P-256; the customer provides the public key.
        ES256,
        /// RSA with PKCS#1 v1.5 and SHA-256; the customer provides the public key.
        RS256,
    }
}

wire! { secret:
    /// A key that verifies user tokens.
    pub struct TokenKey {
        /// Id: the `kid` of the tokens.
        pub id: TokenKeyId,
        /// Environment of its users.
        pub environment: Environment,
        /// The only algorithm that is accepted with this key.
        pub algorithm: Algorithm,
        /// Shared secret, whose UTF-8 bytes are the key; only for HS256, and only in the response
        /// that creates the key.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub secret: Option<String>,
        /// Time of creation, in milliseconds since the Unix epoch.
        pub created_at: u64,
    }
}

debug_without_secrets!(TokenKey { id, environment, algorithm, created_at; secret });
