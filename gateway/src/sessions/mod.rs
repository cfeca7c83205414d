//! The sessions of this node: the registry, their subscriptions, and the dispatch of their requests
//! to the domain.
//!
//! [`Sessions`] is their shared state. The functions here drive the state machines of `session`
//! with the store and the hub. `socket` owns sockets and time, `domain` the rules of chat.

mod compare;
mod connect;
mod dispatch;
mod follow;
mod presence;
mod registry;
mod sends;
mod session;
mod shared;
mod step_limiter;
mod subscribe;
mod watching;

pub use self::{
    connect::{Candidate, Refused, check, connect, gate_refusal},
    dispatch::{refuse, request},
    follow::start_steps,
    presence::PresenceTracker,
    registry::Registry,
    session::{RequestFlow, Session},
    shared::{Sessions, SessionsParts},
};
