//! Credentials: which there are, how they are kept, and whom they stand for.
//!
//! A key is kept in two places. Its *line*, among the keys of its organization or app, is the
//! truth: while it stands there, and what it belongs to exists, the key is valid. The *credential*,
//! in a partition named by the secret's hash, only leads from the secret to the line. It is written
//! first and deleted last, so that a process that dies in between leaves a credential without a
//! line, which is no key at all. A token key is kept likewise, found by its id.

mod principal;
mod seal;
mod secret;
pub mod token;

pub use principal::{Actor, Principal, Who};
pub use seal::{NotOpened, SecretKey};
pub use secret::{AdminKey, SecretKind, hash, hex, random};
