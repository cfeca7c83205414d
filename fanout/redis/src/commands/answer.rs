//! Replies of servers.

use redis::Value;

use crate::replicas::ReplicaAck;

/// The reply of a server. An error reply is a [`Value::ServerError`].
#[derive(Debug, Clone)]
pub struct CommandReply {
    /// The reply.
    pub value: Value,
    /// Whether the slot is moving and the reply is from the node that it moves to (`ASK`). No
    /// listener received what a script published there: publish it again through
    /// [`Commands::run`](super::Commands::run), which uses the slot's owner.
    pub asked: bool,
    /// Waits for replicas of the server; `None` if that is not configured.
    pub replica_ack: Option<ReplicaAck>,
}
