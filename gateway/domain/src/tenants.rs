//! What organizations and apps share: who reaches them, pages of them, and their tombstones.

use protocol::{AppId, OrganizationId, operation::page::ListPage};
use store::{Commit, Document, Expected, Key, Partition, Range, Read, Table};

use super::{
    Services,
    cursor::ListQuery,
    document::PutValue,
    jobs::Task,
    schema::{self, ENTITY, ONLY, TOMBSTONE},
};
use crate::{
    credential::Principal,
    error::{Error, Result},
};

impl Services {
    /// That a caller reaches an organization, and that it exists.
    pub(super) async fn permit_organization(
        &self,
        principal: &Principal,
        id: &OrganizationId,
    ) -> Result<()> {
        principal.organization(id)?;
        let snapshot = self
            .snapshot(schema::organization(id), vec![(ENTITY, ONLY.into())])
            .await?;
        snapshot.documents[0]
            .as_ref()
            .map(|_| ())
            .ok_or_else(|| Error::not_found("organization"))
    }

    /// That a caller reaches an app by this path, and that both exist.
    pub(super) async fn permit_app(
        &self,
        principal: &Principal,
        organization: &OrganizationId,
        app: &AppId,
    ) -> Result<()> {
        self.app(principal, organization, app).await.map(|_| ())
    }

    /// A page of a listed table, and the cursor of the next one.
    pub(super) async fn page_of(
        &self,
        principal: &Principal,
        partition: &Partition,
        table: Table,
        page: ListPage,
    ) -> Result<(Vec<Document>, Option<String>)> {
        let limit = self.page_length(page.limit)?;
        let query = ListQuery::of_principal(principal, table.name).with(Some(partition.name()));
        let after: Option<String> = page
            .cursor
            .map(|cursor| self.open_cursor(&query, &cursor))
            .transpose()?;
        let range = Range::Keys {
            after: after.map(Key::from),
        };
        let (found, _) = self.store.page(partition, table, range, limit).await?;
        let cursor = found
            .documents
            .last()
            .filter(|_| found.more)
            .map(|last| self.seal_cursor(&query, &*last.key));
        Ok((found.documents, cursor))
    }

    /// The entities under these names, those that exist.
    pub(super) async fn entities(&self, partitions: Vec<Partition>) -> Result<Vec<Document>> {
        if partitions.is_empty() {
            return Ok(Vec::new());
        }
        let read = |partition| Read {
            partition,
            documents: vec![(ENTITY, ONLY.into())],
            newest: None,
        };
        let snapshots = self
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
        &self,
        partition: &Partition,
        task: &Task,
        version: u64,
    ) -> Result<bool> {
        self.note_job(task).await?;
        let commit = Commit::default()
            .require(ENTITY, ONLY, Expected::Version(version))
            .delete(ENTITY, ONLY)
            .put_value(TOMBSTONE, ONLY, &true);
        Ok(self.store.commit(partition, commit.frees()).await?.is_ok())
    }
}
