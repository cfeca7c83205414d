//! Replies of servers.

use redis::Value;

use crate::replicas::ReplicaAck;

/// The reply of a server. An error reply is a [`Value::ServerError`].
#[derive(Debug, Clone)]
pub struct CommandReply {
    /// The reply.
    pub value: Value,
    /// Whether the reply is from the node that the slot is moving to (`ASK`). A record that a
    /// script published there has reached no listener: publish it again through
    /// [`Commands::run`](super::Commands::run), which sends it to the slot's owner.
    pub is_from_importing_node: bool,
    /// Waits for the server's replicas; `None` if that is not configured.
    pub replica_ack: Option<ReplicaAck>,
}
