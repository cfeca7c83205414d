//! The node: sockets, sessions, HTTP, authentication, settings, command line.

pub mod auth;
pub mod backup;
pub mod chat;
pub mod config;
pub mod demo;
pub mod health;
pub mod limit;
pub mod listen;
pub mod log;
pub mod metered;
pub mod metrics;
pub mod node;
pub mod private_file;
pub mod readiness;
pub mod replay;
pub mod rest;
pub mod serve;
pub mod session;
pub mod sessions;
pub mod socket;
pub mod source;
pub mod start;
pub mod terminal;
pub mod transfer;
mod value_check;
