//! From the credential of a request to its [`Principal`](domain::credential::Principal).
//!
//! Owned here: looking credentials up, keeping what was found for a while, and limiting guesses.

mod attempt;
mod authenticator;
mod cache;

pub use attempt::{Attempt, Attempts};
pub use authenticator::{Authenticator, Signed, TokenRefused, Verified};
pub use cache::{FRESH, STALE};
