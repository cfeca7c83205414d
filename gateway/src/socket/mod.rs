//! The socket of a session.

pub mod frame;
