//! A store that measures its commits. All else it passes on.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bytes::Bytes;

use super::{
    Commit, Committed, Head, Log, Page, Partition, Position, Purged, Range, Read, Require,
    Snapshot, Store, StoreError, Table,
};
use crate::metrics::Metrics;

/// An engine with a stopwatch.
#[derive(Debug)]
pub struct Metered<S> {
    engine: Arc<S>,
    metrics: Arc<Metrics>,
}

impl<S: Store + 'static> Metered<S> {
    /// Measures an engine.
    pub fn over(engine: Arc<S>, metrics: Arc<Metrics>) -> Arc<dyn Store> {
        Arc::new(Self { engine, metrics })
    }
}

#[async_trait]
impl<S: Store> Store for Metered<S> {
    async fn commit(&self, partition: &Partition, commit: Commit) -> Committed {
        let begun = Instant::now();
        let committed = self.engine.commit(partition, commit).await;
        self.metrics.commit.observe(begun.elapsed());
        committed
    }

    async fn read(&self, reads: Vec<Read>) -> Result<Vec<Snapshot>, StoreError> {
        self.engine.read(reads).await
    }

    async fn page(
        &self,
        partition: &Partition,
        table: Table,
        range: Range,
        limit: usize,
    ) -> Result<(Page, Head), StoreError> {
        self.engine.page(partition, table, range, limit).await
    }

    async fn log(
        &self,
        partition: &Partition,
        after: Position,
        limit: usize,
    ) -> Result<Log, StoreError> {
        self.engine.log(partition, after, limit).await
    }

    async fn publish(&self, topic: &fanout::Topic, record: Bytes) -> Result<(), StoreError> {
        self.engine.publish(topic, record).await
    }

    async fn purge(
        &self,
        partition: &Partition,
        table: Table,
        require: Option<Require>,
        limit: usize,
    ) -> Purged {
        self.engine.purge(partition, table, require, limit).await
    }

    async fn lease(
        &self,
        node: &str,
        ttl: Duration,
        members: Vec<(String, u32)>,
    ) -> Result<bool, StoreError> {
        self.engine.lease(node, ttl, members).await
    }

    async fn release(&self, node: &str) -> Result<(), StoreError> {
        self.engine.release(node).await
    }

    async fn members(&self, members: &[String]) -> Result<Vec<u32>, StoreError> {
        self.engine.members(members).await
    }

    async fn sweep(&self) -> Result<Vec<String>, StoreError> {
        self.engine.sweep().await
    }

    async fn now(&self) -> Result<u64, StoreError> {
        self.engine.now().await
    }
}
