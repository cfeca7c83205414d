//! The client's state machine in simulated time, against a server that fails in every way that a
//! server and a network can.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]
#![allow(unreachable_pub, reason = "a test binary has no public interface")]

mod properties;
mod requests;
mod scripted;
mod server;
mod simulation;
mod timing;
