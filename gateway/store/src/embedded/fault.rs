//! Why reads and writes of the trees fail.

use std::io;

use heed::MdbError;

use super::layout::Unreadable;
use crate::StoreError;

/// The reason why a read or a write failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// The storage failed, and with it the whole transaction.
    #[error(transparent)]
    Storage(#[from] heed::Error),
    /// A record cannot be decoded.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    /// A record is not as it was written.
    #[error("the value of key {key} in tree {tree} is not as it was written")]
    Damaged {
        /// Name of the tree.
        tree: &'static str,
        /// The key, escaped.
        key: String,
    },
    /// The call violates the interface; a defect of the caller.
    #[error("{0}")]
    Malformed(&'static str),
}

impl From<Fault> for StoreError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Unreadable(_) | Fault::Damaged { .. } => {
                tracing::error!(%fault, "the store is damaged, `chaos check` tells more");
                Self::Corrupt(fault.to_string())
            }
            Fault::Storage(error) if has_no_room(&error) => Self::Full(error.to_string()),
            fault => Self::Unavailable(fault.to_string()),
        }
    }
}

/// Returns whether a write failed because the map is full.
pub(super) fn is_full(error: &heed::Error) -> bool {
    matches!(error, heed::Error::Mdb(MdbError::MapFull))
}

/// Returns whether a write failed because the map, the disk or a quota is full.
pub(super) fn has_no_room(error: &heed::Error) -> bool {
    match error {
        heed::Error::Io(error) => matches!(
            error.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
        ),
        error => is_full(error),
    }
}
