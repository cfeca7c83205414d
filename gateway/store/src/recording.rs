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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::time::Duration;

    use bytes::Bytes;
    use fanout::digest::{Digest, DigestLine, HOLD, topic_hash};
    use futures_util::FutureExt;
    use parking_lot::Mutex;

    use super::*;
    use crate::{Append, Control, EventBody, Outcome};

    /// A store that answers one commit; `None` never.
    #[derive(Debug)]
    struct Scripted(Mutex<Option<Committed>>);

    #[async_trait]
    impl StoreLayer for Scripted {
        fn inner(&self) -> Result<&dyn Store, StoreError> {
            Err(StoreError::Busy)
        }

        async fn commit(&self, _partition: &Partition, _commit: Commit) -> Committed {
            let answer = self.0.lock().take();
            match answer {
                Some(answer) => answer,
                None => std::future::pending().await,
            }
        }
    }

    /// Returns the digest after a commit of two events that is answered so, or dropped.
    fn recorded(answer: Option<Committed>) -> Vec<DigestLine> {
        let recorder = Arc::new(DigestRecorder::new(1));
        let store = CommitRecording::over(
            Arc::new(Scripted(Mutex::new(answer))),
            Arc::clone(&recorder),
        );
        let event = Append {
            kind: 9,
            reference: Bytes::new(),
            control: Control::None,
            body: EventBody::Bytes(Bytes::new(), None),
        };
        let commit = Commit {
            append: vec![event.clone(), event],
            ..Commit::default()
        };
        let _ = Store::commit(&*store, &Partition::new("c:room"), commit).now_or_never();
        let later = Instant::now() + HOLD + Duration::from_secs(1);
        let record = recorder.next_round(later).1.remove(0);
        Digest::decode(record).unwrap().lines
    }

    fn line(position: Option<Position>) -> DigestLine {
        DigestLine {
            topic: topic_hash("c:room"),
            position,
        }
    }

    #[test]
    fn commit_is_recorded_with_the_position_of_its_last_event() {
        let outcome = Outcome {
            at: 1_000,
            first_seq: 5,
            written: Vec::new(),
            counts: Vec::new(),
        };
        let last = Position { seq: 6, at: 1_000 };
        assert_eq!(recorded(Some(Ok(Ok(outcome)))), [line(Some(last))]);
    }

    #[test]
    fn commit_without_an_answer_is_uncertain() {
        let unavailable = StoreError::Unavailable("no answer".to_owned());
        assert_eq!(recorded(Some(Err(unavailable))), [line(None)]);
        assert_eq!(recorded(None), [line(None)], "its caller dropped it");
    }

    #[test]
    fn refused_commit_is_not_recorded() {
        let full = StoreError::Full("no room".to_owned());
        assert_eq!(recorded(Some(Err(full))), []);
    }
}
