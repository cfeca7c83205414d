//! The node: sockets, sessions, services, store, HTTP, authentication.

pub mod store;
