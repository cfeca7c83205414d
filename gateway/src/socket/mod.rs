//! WebSockets of clients: the upgrade, the task that serves a socket, and the frames it writes.
//!
//! `session` has the state machines, `sessions` dispatches requests, and `fanout` orders the
//! output.

mod connection;
mod connections;
mod driver;
pub mod frame;
mod incoming;
mod meter;
mod opening;
mod refusal;
mod serving;
mod upgrade;
mod wire;

pub use self::{
    connections::Connections,
    upgrade::{Upgrades, upgrade},
};
