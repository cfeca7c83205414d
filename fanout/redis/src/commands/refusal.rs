//! Error replies after which a command can be sent again.

use redis::{ServerErrorKind, Value};

use crate::Address;

/// Why a server has certainly not executed a command.
pub(super) enum CommandRefusal {
    /// Another server owns the slot.
    Moved(Address),
    /// The slot is moving, and its keys are at the target already.
    Ask(Address),
    /// The server cannot execute it now.
    Wait,
    /// The server is no longer a master.
    Replica,
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
            ServerErrorKind::ReadOnly | ServerErrorKind::ClusterDown => Some(Self::Replica),
            _ => None,
        }
    }
}
