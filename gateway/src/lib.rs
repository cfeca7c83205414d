//! The node: sockets, sessions, services, store, HTTP, authentication.

pub mod auth;
pub mod chat;
pub mod config;
pub mod demo;
pub mod drain;
pub mod error;
pub mod keep;
pub mod limit;
pub mod listen;
pub mod log;
pub mod metrics;
pub mod moving;
pub mod node;
pub mod pulse;
pub mod rest;
pub mod service;
pub mod session;
pub mod sessions;
pub mod socket;
pub mod source;
pub mod start;
pub mod store;
