//! The hub against a log in memory and a bus that loses, repeats and invents records.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod delivery;
mod ended;
mod fairness;
mod life;
mod recovery;
mod resume;

use bytes::Bytes;

use super::testing::{Reader, TOPIC, TestNode, World, eventually, evict, node, node_with};
use super::*;
use crate::outbox::{Excess, OutboxLimits, Reason};
use crate::record::{Control, Record};
use crate::{FrameEncoding, Position};

impl Reader {
    fn drive(&self) -> tokio::task::JoinHandle<Reason> {
        let outbox = Arc::clone(&self.outbox);
        tokio::spawn(async move { outbox.drive().await })
    }
}
