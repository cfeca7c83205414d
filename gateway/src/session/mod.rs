//! A session as states without I/O: time and input in, actions out.
//!
//! A connection begins as a [`Handshake`]. A valid `connect` turns it into an [`Active`], which knows
//! its pace, its heartbeat and the life of its token, and [`Subscriptions`], which knows its channels.
//! `socket` owns the socket and the clock, `sessions` asks the store and the hub.

mod active;
mod handshake;
mod heartbeat;
mod pace;
mod sends;
mod subscriptions;
mod watched;

pub use active::{Action, Active, Timing, Verdict};
pub use handshake::{Handshake, MAX_CONNECT_BYTES, Opening, Refusal};
pub use sends::{Batch, Sends};
pub use subscriptions::{Admission, Handle, Next, Step, Subscriptions, Why};
pub use watched::{Order, Watched};
