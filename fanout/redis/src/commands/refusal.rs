//! Error replies after which a command can be sent again.

use redis::{ServerErrorKind, Value};

use crate::Address;

/// An error reply that proves that the server did not execute the command.
pub(super) enum CommandRefusal {
    /// Another server owns the slot.
    Moved(Address),
    /// The slot is moving, and the command's keys are not at the source.
    Ask(Address),
    /// The server cannot execute the command now.
    Wait,
    /// The server is a replica, or its Cluster is down. Another server may have taken over.
    NotMaster,
}

impl CommandRefusal {
    pub(super) fn read(value: &Value) -> Option<Self> {
        let Value::ServerError(error) = value else {
            return None;
        };
        let node = || {
            error
                .details()
                .and_then(|d| d.split_ascii_whitespace().nth(1))
                .and_then(Address::from_server)
        };
        match error.kind()? {
            ServerErrorKind::Moved => node().map(Self::Moved),
            ServerErrorKind::Ask => node().map(Self::Ask),
            ServerErrorKind::TryAgain
            | ServerErrorKind::BusyLoading
            | ServerErrorKind::MasterDown => Some(Self::Wait),
            ServerErrorKind::ReadOnly | ServerErrorKind::ClusterDown => Some(Self::NotMaster),
            _ => None,
        }
    }
}
