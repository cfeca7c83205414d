//! Tests of the wire contract: round trips, splicing, hostile frames, vectors, specification.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod anything;
mod events;
mod hostile;
mod operations;
mod round_trips;
mod schema;
mod specification;
mod splicing;
mod strategies;
mod tables;
mod typescript;
mod vectors;
