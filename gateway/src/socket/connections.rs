//! State shared by all connections of a node.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::{
    limit::{Gate, Room},
    sessions::Sessions,
};

/// State shared by all connections.
#[derive(Debug)]
pub struct Connections {
    /// The sessions of the node.
    pub sessions: Arc<Sessions>,
    /// Admission of `connect`s.
    pub gate: Arc<Gate>,
    /// Limits of outboxes.
    pub outboxes: Arc<fanout::outbox::OutboxLimits>,
    /// Cancelled when the node stops.
    pub stop: CancellationToken,
    /// Maximum size of a frame from a client, in bytes; 0 means no limit.
    pub frame_bytes: usize,
    /// Memory that requests of all clients hold.
    pub requests: Arc<Room>,
}
