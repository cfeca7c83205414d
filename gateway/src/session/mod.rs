//! A session as states without I/O: time and input in, actions out.
//!
//! A connection begins as a [`Handshake`]; a valid `connect` turns it into an [`Active`]. The shell around both
//! (`socket`) owns the socket and the clock. Left out: what requests do (`service`), and how frames leave (`fanout`).

mod active;
mod handshake;
mod heartbeat;
mod pace;

pub use active::{Action, Active, Timing, Verdict};
pub use handshake::{Handshake, MAX_CONNECT_BYTES, Opening, Refusal};
