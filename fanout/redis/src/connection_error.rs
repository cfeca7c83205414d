//! Why a connection failed.

use std::io;

use crate::{Address, resp::ProtocolError};

/// Why a connection failed or could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    /// The socket failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The client library returned an error, which may be the server's reply.
    #[error(transparent)]
    Redis(#[from] redis::RedisError),
    /// The server sent bytes that cannot be parsed.
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    /// The server refused a command that opens or keeps the connection.
    #[error("{0}")]
    Refused(String),
    /// The server closed the connection.
    #[error("the server closed the connection")]
    Closed,
    /// The server hangs.
    #[error("the server does not answer")]
    Silent,
    /// The server that the Sentinels name is not a master.
    #[error("the Sentinels name a server that is not a master (yet)")]
    NotMaster,
    /// The Sentinels name another master now.
    #[error("the Sentinels name {0} as the master now")]
    Replaced(Address),
    /// A command failed on a broken connection or on a replica.
    #[error("a command failed on a broken connection or a replica")]
    Abandoned,
    /// The connection that waits for replicas broke.
    #[error("the connection that waits for replicas broke")]
    ReplicaWait,
    /// A reply belongs to another command than the one that awaits it.
    #[error("the server sent a reply out of order")]
    OutOfOrder,
    /// The listener panicked while it handled a reply.
    #[error("the listener panicked")]
    ListenerPanicked,
}
