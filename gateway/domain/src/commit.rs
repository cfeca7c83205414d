//! Commits that several features make.

use store::{Commit, Key, Partition, Table};

use crate::{
    Services,
    error::{Error, Result},
};

/// Deletes documents.
pub(super) async fn delete_documents(
    services: &Services,
    partition: &Partition,
    table: Table,
    keys: Vec<Key>,
) -> Result<()> {
    let commit = keys
        .into_iter()
        .fold(Commit::default().frees(), |commit, key| {
            commit.delete(table, key)
        });
    services
        .store
        .commit(partition, commit)
        .await?
        .map_err(|_| Error::busy())?;
    Ok(())
}
