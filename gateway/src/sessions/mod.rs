//! The sessions of this node: who is connected, what each listens to, and how its requests reach
//! the domain.
//!
//! [`Sessions`] is what they share. The functions here drive the state machines of `session`: they
//! ask the store and the hub. Sockets and time are in `socket`, the rules of chat in `domain`.

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
    connect::{Candidate, Refused, check, connect, turn_away},
    dispatch::{refuse, request},
    follow::follow,
    presence::Presences,
    registry::Registry,
    session::{Flow, Session},
    shared::{Parts, Sessions},
};
