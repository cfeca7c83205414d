//! Authentication: from a credential to its [`Principal`](domain::credential::Principal).
//!
//! Owns the lookup of credentials, its cache, and the limit on failed attempts.

mod attempt;
mod authenticator;
mod cache;

pub use attempt::{Attempt, Attempts};
pub use authenticator::{Authenticator, Signed, TokenRefused, Verified};
pub use cache::{FRESH, STALE};
