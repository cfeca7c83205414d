//! The state machines of a session, without I/O: time and input in, actions out.
//!
//! A connection begins as a [`Handshake`]. A valid `connect` turns it into an [`Active`]: heartbeat,
//! life of the token, drain, rate of requests, [`Subscriptions`] and [`Sends`]. `socket` owns the
//! socket and the clock; `sessions` reads the store and subscribes at the hub.

mod active;
mod drain;
mod handshake;
mod heartbeat;
mod lifetime;
mod pace;
mod sends;
mod subscriptions;
mod watched;

pub use active::{Active, Remains, RequestVerdict, SessionAction, SessionTiming};
pub use drain::{Drain, DrainSchedule};
pub use handshake::{ConnectRequest, Handshake, InvalidConnect, MAX_CONNECT_BYTES};
pub use sends::{SendBatch, Sends};
pub use subscriptions::{
    Next, SubscribeReason, SubscriptionAdmission, SubscriptionHandle, SubscriptionStep,
    Subscriptions,
};
pub use watched::{RequestOrder, Watched};
