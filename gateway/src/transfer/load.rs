//! Loads pieces of partitions.

use store::{
    Partition, StoreError,
    transfer::{Exists, Outline, PartitionPiece, Transfer},
};

use super::partitions;
use crate::start::CommandError;

/// Loads a piece, if there is anything in it.
///
/// # Errors
///
/// The store's.
pub(super) async fn load(
    store: &dyn Transfer,
    partition: &Partition,
    piece: PartitionPiece,
) -> Result<Result<(), Exists>, CommandError> {
    if piece.documents.is_empty() && piece.entries.is_empty() && piece.outline.is_none() {
        return Ok(Ok(()));
    }
    store
        .load(partition, piece)
        .await
        .map_err(|error: StoreError| CommandError(format!("{error}; import the same file again")))
}

/// Loads a credential. An equal one may exist already: from an earlier attempt, or loaded with
/// another app of the same organization.
///
/// # Errors
///
/// The store's, or that another credential is there.
pub(super) async fn load_credential(
    store: &dyn Transfer,
    partition: Partition,
    piece: PartitionPiece,
    outline: Outline,
) -> Result<(), CommandError> {
    let value = piece
        .documents
        .first()
        .map(|(_, document)| document.value.clone());
    let piece = PartitionPiece {
        outline: Some(outline),
        ..piece
    };
    match load(store, &partition, piece).await? {
        Ok(()) => Ok(()),
        Err(Exists)
            if partitions::entity(store, &partition)
                .await?
                .map(|document| document.value)
                == value =>
        {
            Ok(())
        }
        Err(Exists) => Err(CommandError(format!(
            "{} belongs to another key in this store: the app cannot be imported here",
            partition.name()
        ))),
    }
}
