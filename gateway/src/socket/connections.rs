//! What all connections of a node share.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::{
    limit::{Gate, Room},
    session::Timing,
    sessions::Sessions,
};

/// What all connections share.
#[derive(Debug)]
pub struct Connections {
    /// Where sessions live.
    pub sessions: Arc<Sessions>,
    /// Who comes in, and when.
    pub gate: Arc<Gate>,
    /// The bounds of outboxes.
    pub outboxes: Arc<fanout::outbox::Limits>,
    /// Of sessions.
    pub timing: Timing,
    /// Cancelled when the node goes away.
    pub stop: CancellationToken,
    /// The largest frame that is read; 0 means no limit.
    pub frame_bytes: usize,
    /// What requests of all clients hold.
    pub requests: Arc<Room>,
}
