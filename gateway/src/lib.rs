//! The node: sockets, sessions, services, store, HTTP, authentication.

pub mod auth;
pub mod config;
pub mod error;
pub mod limit;
pub mod log;
pub mod metrics;
pub mod rest;
pub mod service;
pub mod socket;
pub mod source;
pub mod store;
