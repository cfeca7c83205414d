//! The product as its users meet it: real nodes on real stores, real sockets, told as stories.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[macro_use]
mod story;

#[cfg(target_os = "linux")]
mod bad_days;
mod canary;
mod codes;
mod codes_close;
mod events;
mod garbage;
mod half_way;
mod keep;
mod kill;
mod limits;
mod membership;
mod methods;
mod methods_channels;
mod methods_connect;
mod methods_messages;
mod moving;
mod nodes;
mod presence;
mod presence_watching;
mod process;
mod promises;
mod promises_outbox;
mod promises_resume;
mod returning;
mod rolling;
mod stalled;
mod storm;
#[cfg(target_os = "linux")]
mod synced;
mod tokens;
mod vertical;
mod wall;
mod wire;
