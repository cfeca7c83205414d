//! Credentials: their kinds, their storage, and their holders.
//!
//! A key is stored in two places. Its *line*, among the keys of its organization or app, is
//! authoritative: the key is valid while the line and its owner exist. The *credential*, in a
//! partition named by the secret's hash, only leads from the secret to the line. A process that
//! ends after it wrote the credential leaves one without a line, which is not a valid key. Token
//! keys are stored in the same way, and found by their ids.

mod principal;
mod seal;
mod secret;
pub mod token;

pub use principal::{Actor, Principal, Who};
pub use seal::{NotOpened, SecretKey};
pub use secret::{AdminKey, SecretKind, hash, hex, random};
