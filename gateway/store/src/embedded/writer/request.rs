//! Requests to the writer.

use tokio::sync::oneshot;

use super::super::journal::Purpose;

use crate::{
    Commit, Committed, Partition, Purged, Require, StoreError, Table,
    transfer::{Loaded, PartitionPiece},
};

/// A request to the writer.
#[derive(Debug)]
pub(in super::super) enum WriteRequest {
    Commit {
        partition: Partition,
        commit: Commit,
        answer: oneshot::Sender<Committed>,
    },
    Purge {
        partition: Partition,
        table: Table,
        require: Option<Require>,
        limit: usize,
        answer: oneshot::Sender<Purged>,
    },
    Load {
        partition: Partition,
        piece: PartitionPiece,
        answer: oneshot::Sender<Loaded>,
    },
    RemovePartitions {
        prefix: String,
        answer: oneshot::Sender<Result<bool, StoreError>>,
    },
    /// Tests whether the disk takes writes.
    Probe {
        answer: oneshot::Sender<Result<(), StoreError>>,
    },
    /// Serves the requests before this one, refuses those after it, and ends the writer.
    Close,
}

impl WriteRequest {
    /// Whether the request stores something, or removes something.
    pub(super) fn purpose(&self) -> Purpose {
        match self {
            Self::Commit { commit, .. } if !commit.frees => Purpose::Store,
            Self::Load { .. } => Purpose::Store,
            _ => Purpose::Remove,
        }
    }
}
