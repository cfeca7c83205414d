//! What organizations and apps share: who reaches them, pages of them, and clearing them away.

use std::time::Duration;

use protocol::{AppId, OrganizationId, model::Environment, params::ListPage};

use super::{
    Services,
    entries::parse_key,
    scope::{self, APPS, CHANNELS, ENTITY, ONLY, ORGANIZATIONS, Scope, TOMBSTONE, USERS},
};
use crate::{
    auth::Principal,
    error::{Error, Result},
    store::{Commit, Document, Expected, Key, Partition, Range, Read, Table},
};

/// After this nothing acts any more by a credential of a deleted app: nobody believes the key, and what was in flight is over.
pub(super) const OVER: Duration = Duration::from_secs(10);
/// What is dropped is kept this long, so that whoever still reads it sees its tombstone.
const DROP: Duration = Duration::from_secs(60);

impl Services {
    /// That a caller reaches an organization, and that it exists.
    pub(super) async fn permit_organization(
        &self,
        principal: &Principal,
        id: &OrganizationId,
    ) -> Result<()> {
        principal.organization(id)?;
        let snapshot = self
            .snapshot(scope::organization(id), vec![(ENTITY, ONLY.into())])
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
        partition: &Partition,
        table: Table,
        page: ListPage,
    ) -> Result<(Vec<Document>, Option<String>)> {
        let limit = self.page_length(page.limit)?;
        let bad = || Error::bad_request("`cursor` is not one that a list gave");
        let after: Option<Key> = match page.cursor {
            // Every key of these tables is an id.
            Some(cursor)
                if cursor.is_empty()
                    || !cursor
                        .bytes()
                        .all(|b| b.is_ascii_alphanumeric() || b == b'_') =>
            {
                return Err(bad());
            }
            cursor => cursor.map(Key::from),
        };
        let (found, _) = self
            .store
            .page(partition, table, Range::Keys { after }, limit)
            .await?;
        let cursor = found
            .documents
            .last()
            .filter(|_| found.more)
            .map(|last| last.key.to_string());
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

    /// Puts the tombstone of an organization or app: from here on it does not exist. False if it changed meanwhile.
    pub(super) async fn entomb(&self, partition: &Partition, version: u64) -> Result<bool> {
        self.enqueue_clearing(partition).await?;
        let commit = Commit::default()
            .require(ENTITY, ONLY, Expected::Version(version))
            .delete(ENTITY, ONLY)
            .put(TOMBSTONE, ONLY, &true);
        Ok(self.store.commit(partition, commit).await?.is_ok())
    }

    /// Clears in the background, after a time; whatever stops it, the job is noted and done later.
    pub(super) fn clear_soon(&self, partition: Partition, after: Duration) {
        let services = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            if let Err(error) = services.clear_tenant(partition.name()).await {
                tracing::warn!(%error, partition = partition.name(), "clearing up after a deletion stopped; it will be taken up again");
            }
        });
    }

    /// Clears away a deleted organization or app, by the name of its partition; false if the name is of something else.
    pub(super) async fn clear_tenant(&self, name: &str) -> Result<bool> {
        if let Some(id) = name.strip_prefix("o:") {
            self.clear_organization(&id.parse().map_err(Error::internal)?)
                .await?;
        } else if let Some(id) = name.strip_prefix("a:") {
            self.clear_app(&id.parse().map_err(Error::internal)?)
                .await?;
        } else {
            return Ok(false);
        }
        Ok(true)
    }

    async fn clear_organization(&self, id: &OrganizationId) -> Result<()> {
        let partition = scope::organization(id);
        if self.is_entombed(&partition).await? {
            for key in self.all_keys(&partition, APPS).await? {
                self.delete_app_of_nobody(&parse_key(&key)?).await?;
            }
            self.clear_keys(&partition).await?;
            self.drop_partition(&partition).await?;
            self.unlist(&scope::deployment(), ORGANIZATIONS, id.shared())
                .await?;
        }
        self.dequeue_clearing(&partition).await
    }

    /// Deletes an app whose organization is gone, however far its making came.
    async fn delete_app_of_nobody(&self, id: &AppId) -> Result<()> {
        let partition = scope::app(id);
        self.enqueue_clearing(&partition).await?;
        let commit = Commit::default()
            .delete(ENTITY, ONLY)
            .put(TOMBSTONE, ONLY, &true);
        self.store
            .commit(&partition, commit)
            .await?
            .map_err(|_| Error::busy())?;
        self.end_sessions_of_app(id).await?;
        self.clear_soon(partition, OVER);
        Ok(())
    }

    async fn clear_app(&self, id: &AppId) -> Result<()> {
        let partition = scope::app(id);
        if self.is_entombed(&partition).await? {
            self.clear_keys(&partition).await?;
            self.clear_token_keys(&partition).await?;
            for environment in [Environment::Live, Environment::Test] {
                let scope = Scope {
                    app: id.clone(),
                    environment,
                };
                for key in self.all_keys(&scope.index(), CHANNELS).await? {
                    self.drop_partition(&scope.channel(&parse_key(&key)?))
                        .await?;
                }
                for key in self.all_keys(&scope.index(), USERS).await? {
                    self.drop_partition(&scope.user(&parse_key(&key)?)).await?;
                }
                self.drop_partition(&scope.index()).await?;
            }
            self.drop_partition(&partition).await?;
        }
        self.dequeue_clearing(&partition).await
    }

    async fn is_entombed(&self, partition: &Partition) -> Result<bool> {
        let snapshot = self
            .snapshot(partition.clone(), vec![(TOMBSTONE, ONLY.into())])
            .await?;
        Ok(snapshot.documents[0].is_some())
    }

    /// Lets the store drop a whole partition.
    async fn drop_partition(&self, partition: &Partition) -> Result<()> {
        let commit = Commit {
            expire: Some(DROP),
            ..Commit::default()
                .delete(ENTITY, ONLY)
                .put(TOMBSTONE, ONLY, &true)
        };
        self.store
            .commit(partition, commit)
            .await?
            .map_err(|_| Error::busy())?;
        Ok(())
    }

    pub(super) async fn unlist(&self, partition: &Partition, table: Table, key: Key) -> Result<()> {
        self.store
            .commit(partition, Commit::default().delete(table, key))
            .await?
            .map_err(|_| Error::busy())?;
        Ok(())
    }
}
