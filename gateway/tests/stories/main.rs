//! The product as its users meet it: real nodes on real stores, real sockets, told as stories.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[macro_use]
mod story;

mod canary;
mod garbage;
mod kill;
mod methods;
mod methods_messages;
mod nodes;
mod presence;
mod process;
mod promises;
mod promises_outbox;
mod promises_resume;
mod vertical;
mod wall;
mod wire;
