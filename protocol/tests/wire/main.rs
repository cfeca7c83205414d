//! What the wire promises, held against the types: round trips, splicing, hostile frames, the vectors, the specification.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod anything;
mod hostile;
mod round_trips;
mod specification;
mod splicing;
mod strategies;
mod vectors;
