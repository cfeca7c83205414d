//! Publishes the digests of this node's commits.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use fanout::{
    Topic,
    digest::{DigestRecorder, INTERVAL},
};
use store::{Partition, Store, StoreError};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, timeout};

/// Maximum number of topics whose uncertain commits are settled in one round.
const SETTLED_PER_ROUND: usize = 64;

/// Publishes digests in every [`INTERVAL`], and a last one at the end.
#[derive(Debug)]
pub(super) struct DigestPublisher {
    recorder: Arc<DigestRecorder>,
    store: Arc<dyn Store>,
}

impl DigestPublisher {
    pub(super) fn new(recorder: Arc<DigestRecorder>, store: Arc<dyn Store>) -> Self {
        Self { recorder, store }
    }

    /// Publishes digests as long as the node runs.
    pub(super) async fn run(self: Arc<Self>) {
        tokio::join!(self.publish_rounds(), self.settle_periodically());
    }

    async fn publish_rounds(&self) {
        let mut due = ticks();
        loop {
            due.tick().await;
            let round = self.recorder.next_round(Instant::now());
            // No longer, so that an unavailable part of the store delays no round on others.
            match timeout(INTERVAL, self.publish(round)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::debug!(%error, "cannot publish a digest, other nodes will notice the hole")
                }
                Err(_) => {
                    tracing::debug!("a digest takes too long, other nodes may notice a hole")
                }
            }
        }
    }

    async fn settle_periodically(&self) {
        let mut due = ticks();
        loop {
            due.tick().await;
            self.settle().await;
        }
    }

    /// Publishes that the node has ended. It must commit nothing afterwards.
    pub(super) async fn close(&self, within: Duration) {
        let round = self.recorder.last_round(Instant::now());
        let published = timeout(within, self.publish(round)).await;
        if !matches!(published, Ok(Ok(()))) {
            tracing::debug!("cannot publish the last digest, other nodes will notice the silence");
        }
    }

    async fn publish(&self, (topic, records): (Topic, Vec<Bytes>)) -> Result<(), StoreError> {
        for record in records {
            self.store.publish(&topic, record).await?;
        }
        Ok(())
    }

    /// Reads heads to learn what became of commits whose answers were lost.
    async fn settle(&self) {
        let unsettled = self.recorder.unsettled(SETTLED_PER_ROUND, Instant::now());
        if unsettled.is_empty() {
            return;
        }
        let partitions: Vec<Partition> = unsettled
            .iter()
            .map(|commit| Partition::new(commit.topic.clone()))
            .collect();
        let heads = self.store.heads(&partitions).await;
        for (commit, head) in unsettled.iter().zip(heads) {
            if let Ok(head) = head {
                self.recorder.settle(commit, head, Instant::now());
            }
        }
    }
}

fn ticks() -> Interval {
    let mut due = interval(INTERVAL);
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    due
}
