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

pub use active::{Active, RequestVerdict, SessionAction, SessionTiming};
pub use handshake::{ConnectRequest, Handshake, InvalidConnect, MAX_CONNECT_BYTES};
pub use sends::{SendBatch, Sends};
pub use subscriptions::{
    Next, SubscribeReason, SubscriptionAdmission, SubscriptionHandle, SubscriptionStep,
    Subscriptions,
};
pub use watched::{RequestOrder, Watched};
