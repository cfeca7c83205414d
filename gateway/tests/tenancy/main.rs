//! Organizations, apps, keys and tokens.

#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(missing_docs, reason = "a test's name is its promise")]

mod ending;
mod idempotency;
mod isolation;
mod keys;
mod organizations;
mod revocation;
mod story;
mod tokens;
