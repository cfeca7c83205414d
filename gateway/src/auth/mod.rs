//! Credentials: which there are, how they are kept, and whom they stand for.

mod principal;

pub use principal::{Actor, Principal, Who};
