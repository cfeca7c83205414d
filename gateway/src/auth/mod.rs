//! Credentials: which there are, how they are kept, and whom they stand for.

mod principal;
mod seal;
mod secret;

pub use principal::{Actor, Principal, Who};
pub use seal::{NotOpened, SecretKey};
pub use secret::{AdminKey, SecretKind, hash, hex, random};
