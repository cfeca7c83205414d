//! Sockets of clients: the upgrade, the shell that owns a socket, and the frames that leave it.
//!
//! Left out: what a session decides (`session`), what requests do (`service`), the order of what
//! leaves (`fanout`).

mod connection;
mod connections;
pub mod frame;
mod incoming;
mod meter;
mod opening;
mod refusal;
mod serving;
mod shell;
mod upgrade;
mod wire;

pub use self::{
    connections::Connections,
    upgrade::{Upgrades, upgrade},
};
