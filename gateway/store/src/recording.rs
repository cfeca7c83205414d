//! A store that records its commits for the digests of this node.

use std::sync::Arc;

use async_trait::async_trait;
use fanout::{Position, digest::DigestRecorder};
use tokio::time::Instant;

use crate::{Commit, Committed, Partition, Store, StoreError, StoreLayer};

/// A store over another store, whose commits it records. All commits of a node pass through it.
#[derive(Debug)]
pub struct CommitRecording<S> {
    store: Arc<S>,
    recorder: Arc<DigestRecorder>,
}

impl<S: Store> CommitRecording<S> {
    /// Creates a store that records the commits of `store`.
    pub fn over(store: Arc<S>, recorder: Arc<DigestRecorder>) -> Arc<Self> {
        Arc::new(Self { store, recorder })
    }
}

#[async_trait]
impl<S: Store> StoreLayer for CommitRecording<S> {
    fn inner(&self) -> Result<&dyn Store, StoreError> {
        Ok(&*self.store)
    }

    async fn commit(&self, partition: &Partition, commit: Commit) -> Committed {
        let events = commit.append.len() as u64;
        if events == 0 {
            return self.store.commit(partition, commit).await;
        }
        let pending = UncertainOnDrop {
            recorder: &self.recorder,
            partition,
        };
        let committed = self.store.commit(partition, commit).await;
        match &committed {
            Ok(Ok(outcome)) => {
                let last = Position {
                    seq: outcome.first_seq + events - 1,
                    at: outcome.at,
                };
                self.recorder
                    .committed(partition.name(), last, Instant::now());
            }
            Ok(Err(_)) | Err(StoreError::Full(_) | StoreError::Busy) => {}
            // Dropping it records that the outcome is unknown.
            Err(StoreError::Unavailable(_) | StoreError::Corrupt(_)) => return committed,
        }
        std::mem::forget(pending);
        committed
    }
}

/// Records an uncertain commit, unless its outcome is known. Also if the caller drops the commit
/// before it returns.
struct UncertainOnDrop<'a> {
    recorder: &'a DigestRecorder,
    partition: &'a Partition,
}

impl Drop for UncertainOnDrop<'_> {
    fn drop(&mut self) {
        self.recorder
            .uncertain(&self.partition.topic(), Instant::now());
    }
}
