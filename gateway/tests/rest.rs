//! The HTTP API of a node over an embedded store, called in process.

#![allow(clippy::unwrap_used, reason = "a test")]

mod rest {
    mod chat;
    mod credentials;
    mod document;
    mod errors;
    mod headers;
    pub(crate) mod node;
    mod operations;
    mod tenants;
}
