//! What the hub promises, against a log in memory and a bus that loses, doubles and invents at will.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod ended;
mod life;
mod repair;
mod resume;
mod told;

use super::testing::{Node, Reader, TOPIC, World, eventually, evict, node, node_with};
use super::*;
use crate::Encoding;
use crate::outbox::{Excess, Limits, Reason};
use crate::record::Control;

impl Reader {
    fn drive(&self) -> tokio::task::JoinHandle<Reason> {
        let outbox = Arc::clone(&self.outbox);
        tokio::spawn(async move { outbox.drive().await })
    }
}
