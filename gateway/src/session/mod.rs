//! The state machines of a session, without I/O: time and input in, actions out.
//!
//! A connection begins as a [`Handshake`]. A valid `connect` turns it into an [`Active`] (rate of
//! requests, heartbeat, expiry of the token) and [`Subscriptions`] (its channels). `socket` owns
//! the socket and the clock; `sessions` reads the store and subscribes at the hub.

mod active;
mod handshake;
mod heartbeat;
mod pace;
mod sends;
mod subscriptions;
mod watched;

pub use active::{Action, Active, Timing, Verdict};
pub use handshake::{ConnectRequest, Handshake, InvalidConnect, MAX_CONNECT_BYTES};
pub use sends::{Batch, Sends};
pub use subscriptions::{Admission, Handle, Next, Step, SubscribeReason, Subscriptions};
pub use watched::{RequestOrder, Watched};
