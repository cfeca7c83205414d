//! The client's state machine under simulated time, against a server that may do to it whatever a server and a network may.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]
#![allow(unreachable_pub, reason = "tests have no outside")]

mod asks;
mod hand;
mod once;
mod server;
mod story;
mod waits;
