//! Clearing away what was deleted: a durable job, noted before the tombstone, done once and again until it is done.

use protocol::{ChannelId, UserId};

use super::{
    Services,
    document::decode,
    scope::{
        self, CHANNELS, JOBS, MESSAGES, ONLY, OWNERS, PARTICIPANTS, PUBLIC_CHANNELS, REACTIONS,
        READS, Scope, Subject, TOMBSTONE,
    },
    together,
};
use crate::{
    error::{Error, Result},
    store::{Commit, Expected, Key, Partition, Require, Table},
};

/// A job that is younger is somebody's who still works on it, in milliseconds.
const STALE: u64 = 60_000;
/// How many documents are cleared at once.
const BITE: usize = 500;

impl Services {
    /// Notes that a partition is about to be cleared.
    pub(super) async fn enqueue_clearing(&self, partition: &Partition) -> Result<()> {
        let since = self.store.now().await?;
        let commit = Commit::default().put(JOBS, partition.name(), &since);
        self.store
            .commit(&scope::deployment(), commit)
            .await?
            .map_err(|_| Error::busy())?;
        Ok(())
    }

    /// Notes that it is cleared, or need not be.
    pub(super) async fn dequeue_clearing(&self, partition: &Partition) -> Result<()> {
        let commit = Commit::default().delete(JOBS, partition.name());
        self.store
            .commit(&scope::deployment(), commit)
            .await?
            .map_err(|_| Error::busy())?;
        Ok(())
    }

    /// Finishes what others left. Called at start and from time to time.
    pub async fn finish_clearing(&self) -> Result<usize> {
        let now = self.store.now().await?;
        let mut finished = 0;
        for key in self.all_keys(&scope::deployment(), JOBS).await? {
            match self.finish_job(&key, now).await {
                Ok(true) => finished += 1,
                Ok(false) => {}
                // The others are not to wait for it.
                Err(error) => {
                    tracing::warn!(job = %key, %error, "a deletion could not be finished; it is tried again")
                }
            }
        }
        Ok(finished)
    }

    /// Does one job, unless somebody may still be at it.
    async fn finish_job(&self, key: &Key, now: u64) -> Result<bool> {
        let snapshot = self
            .snapshot(scope::deployment(), vec![(JOBS, key.clone())])
            .await?;
        let since: u64 = match &snapshot.documents[0] {
            Some(document) => decode(document)?,
            None => return Ok(false),
        };
        if since + STALE > now {
            return Ok(false);
        }
        if self.clear_tenant(key).await? {
            return Ok(true);
        }
        let of = scope::scope(key).ok_or_else(|| Error::internal("its name cannot be read"))?;
        match scope::subject(key) {
            Subject::Channel(id) => self.clear_channel(&of, &parse::<ChannelId>(id)?).await?,
            Subject::User(id) => self.clear_user(&of, &parse::<UserId>(id)?).await?,
            Subject::Other => return Err(Error::internal("it is about nothing known")),
        }
        Ok(true)
    }
}

impl Services {
    /// Clears away what a deleted channel held, and tells its participants. Can be stopped and begun again at any point, and
    /// be done by several at once: each step requires the tombstone that this one found, so that nothing of a channel made
    /// anew under the id is touched.
    pub async fn clear_channel(&self, scope: &Scope, id: &ChannelId) -> Result<()> {
        let partition = scope.channel(id);
        let snapshot = self
            .snapshot(partition.clone(), vec![(TOMBSTONE, ONLY.into())])
            .await?;
        let Some(tombstone) = &snapshot.documents[0] else {
            return self.dequeue_clearing(&partition).await;
        };
        let is = Expected::Version(tombstone.version);
        let lines = self
            .lines(
                scope.index(),
                vec![(CHANNELS, id.shared()), (PUBLIC_CHANNELS, id.shared())],
            )
            .await?;
        loop {
            let users = self.participant_ids(scope, id, BITE).await?;
            if users.is_empty() {
                break;
            }
            let gone = users.iter().fold(
                Commit::default().require(TOMBSTONE, ONLY, is),
                |commit, user| {
                    commit
                        .delete(PARTICIPANTS, user.shared())
                        .delete(READS, user.shared())
                },
            );
            if self.store.commit(&partition, gone).await?.is_err() {
                return Ok(());
            }
            together::all(
                users
                    .iter()
                    .map(|user| self.unindex_channel(scope, user, id)),
            )
            .await?;
        }
        for table in [PARTICIPANTS, READS, REACTIONS, MESSAGES, OWNERS] {
            loop {
                let require = Require {
                    table: TOMBSTONE,
                    key: ONLY.into(),
                    is,
                };
                match self
                    .store
                    .purge(&partition, table, Some(require), BITE)
                    .await?
                {
                    Ok(true) => break,
                    Ok(false) => {}
                    // Somebody else came to the end of it.
                    Err(_) => return Ok(()),
                }
            }
        }
        for (table, version) in [CHANNELS, PUBLIC_CHANNELS].into_iter().zip(lines) {
            if let Some(version) = version {
                let unlisted = Commit::default()
                    .require(table, id.shared(), Expected::Version(version))
                    .delete(table, id.shared());
                self.store.commit(&scope.index(), unlisted).await?.ok();
            }
        }
        let done = Commit::default()
            .require(TOMBSTONE, ONLY, is)
            .delete(TOMBSTONE, ONLY);
        self.store.commit(&partition, done).await?.ok();
        self.dequeue_clearing(&partition).await
    }

    /// The versions of documents.
    async fn lines(
        &self,
        partition: Partition,
        keys: Vec<(Table, Key)>,
    ) -> Result<Vec<Option<u64>>> {
        let snapshot = self.snapshot(partition, keys).await?;
        Ok(snapshot
            .documents
            .iter()
            .map(|document| document.as_ref().map(|d| d.version))
            .collect())
    }
}

fn parse<T: std::str::FromStr>(id: &str) -> Result<T>
where
    T::Err: std::fmt::Display,
{
    id.parse().map_err(Error::internal)
}
