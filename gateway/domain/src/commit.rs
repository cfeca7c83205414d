//! Commits that several features make.

use store::{Commit, DocumentKey, Expected, Partition, Table};

use crate::{
    Services,
    document::PutValue,
    error::Result,
    jobs::{self, Task},
    schema::{ENTITY, ONLY, TOMBSTONE},
};

/// Deletes documents.
pub(super) async fn delete_documents(
    services: &Services,
    partition: &Partition,
    table: Table,
    keys: Vec<DocumentKey>,
) -> Result<()> {
    let commit = keys
        .into_iter()
        .fold(Commit::default().frees(), |commit, key| {
            commit.delete(table, key)
        });
    services.commit_or_busy(partition, commit).await?;
    Ok(())
}

/// Replaces the entity of a partition with a tombstone, after the job that clears it was written.
/// Returns false if the entity has another version.
pub(super) async fn delete_entity(
    services: &Services,
    partition: &Partition,
    task: &Task,
    version: u64,
) -> Result<bool> {
    jobs::note_job(services, task).await?;
    let commit = Commit::default()
        .require(ENTITY, ONLY, Expected::Version(version))
        .delete(ENTITY, ONLY)
        .put_value(TOMBSTONE, ONLY, &true)
        .frees();
    Ok(services.commit(partition, commit).await?.is_ok())
}
