//! Shared parts of organizations and apps: access, pages and tombstones.

use protocol::{OrganizationId, operation::page::ListPage};
use store::{Commit, Document, Expected, Key, Partition, Range, Read, Table};

use crate::{
    Services,
    credential::Principal,
    cursor::{self, ListQuery},
    document::PutValue,
    error::{Error, Result},
    jobs::{self, Task},
    listing,
    schema::{self, ENTITY, ONLY, TOMBSTONE},
};

/// That a caller reaches an organization, and that it exists.
pub(super) async fn permit_organization(
    services: &Services,
    principal: &Principal,
    id: &OrganizationId,
) -> Result<()> {
    principal.organization(id)?;
    let snapshot = services
        .snapshot(schema::organization(id), vec![(ENTITY, ONLY.into())])
        .await?;
    snapshot.documents[0]
        .as_ref()
        .map(|_| ())
        .ok_or_else(|| Error::not_found("organization"))
}

/// A page of a listed table, and the cursor of the next one.
pub(super) async fn page_of(
    services: &Services,
    principal: &Principal,
    partition: &Partition,
    table: Table,
    page: ListPage,
) -> Result<(Vec<Document>, Option<String>)> {
    let limit = listing::page_length(services, page.limit)?;
    let query = ListQuery::of_principal(principal, table.name).with(Some(partition.name()));
    let after: Option<String> = page
        .cursor
        .map(|cursor| cursor::open_cursor(services, &query, &cursor))
        .transpose()?;
    let range = Range::Keys {
        after: after.map(Key::from),
    };
    let (found, _) = services.store.page(partition, table, range, limit).await?;
    let cursor = found
        .documents
        .last()
        .filter(|_| found.more)
        .map(|last| cursor::seal_cursor(services, &query, &*last.key));
    Ok((found.documents, cursor))
}

/// The entities under these names, those that exist.
pub(super) async fn entities(
    services: &Services,
    partitions: Vec<Partition>,
) -> Result<Vec<Document>> {
    if partitions.is_empty() {
        return Ok(Vec::new());
    }
    let read = |partition| Read {
        partition,
        documents: vec![(ENTITY, ONLY.into())],
        newest: None,
    };
    let snapshots = services
        .store
        .read(partitions.into_iter().map(read).collect())
        .await?;
    Ok(snapshots
        .into_iter()
        .filter_map(|mut snapshot| snapshot.documents.pop().flatten())
        .collect())
}

/// Puts the tombstone of an organization or app: from here on it does not exist. False if it
/// changed meanwhile.
pub(super) async fn entomb(
    services: &Services,
    partition: &Partition,
    task: &Task,
    version: u64,
) -> Result<bool> {
    jobs::note_job(services, task).await?;
    let commit = Commit::default()
        .require(ENTITY, ONLY, Expected::Version(version))
        .delete(ENTITY, ONLY)
        .put_value(TOMBSTONE, ONLY, &true);
    Ok(services
        .store
        .commit(partition, commit.frees())
        .await?
        .is_ok())
}
