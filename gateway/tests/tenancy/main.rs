//! Organizations, apps, keys, tokens: who is let in, who is not, and how soon.

#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(missing_docs, reason = "a test's name is its promise")]

mod ending;
mod idempotency;
mod keys;
mod organizations;
mod revocation;
mod story;
mod tokens;
mod walls;
