//! Clearing away what was deleted: a durable job, noted before the tombstone, done once and again until it is done.

use protocol::{ChannelId, UserId};

use super::{
    Services,
    document::decode,
    scope::{self, JOBS, Subject},
};
use crate::{
    error::{Error, Result},
    store::{Commit, Key, Partition},
};

/// A job that is younger is somebody's who still works on it, in milliseconds.
const STALE: u64 = 60_000;

impl Services {
    /// Notes that a partition is about to be cleared.
    pub(super) async fn enqueue_clearing(&self, partition: &Partition) -> Result<()> {
        let since = self.store.now().await?;
        let commit = Commit::default().put(JOBS, partition.name(), &since);
        self.store.commit(&scope::deployment(), commit).await?.map_err(|_| Error::busy())?;
        Ok(())
    }

    /// Notes that it is cleared, or need not be.
    pub(super) async fn dequeue_clearing(&self, partition: &Partition) -> Result<()> {
        let commit = Commit::default().delete(JOBS, partition.name());
        self.store.commit(&scope::deployment(), commit).await?.map_err(|_| Error::busy())?;
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
                Err(error) => tracing::warn!(job = %key, %error, "a deletion could not be finished; it is tried again"),
            }
        }
        Ok(finished)
    }

    /// Does one job, unless somebody may still be at it.
    async fn finish_job(&self, key: &Key, now: u64) -> Result<bool> {
        let snapshot = self.snapshot(scope::deployment(), vec![(JOBS, key.clone())]).await?;
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

fn parse<T: std::str::FromStr>(id: &str) -> Result<T>
where
    T::Err: std::fmt::Display,
{
    id.parse().map_err(Error::internal)
}
