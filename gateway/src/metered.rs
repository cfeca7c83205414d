//! A store that measures commits and counts reads, for metrics and for what each request costs.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bytes::Bytes;
use store::{
    Commit, Committed, Document, Head, Key, Log, Page, Partition, Position, Purged, Range, Read,
    Require, Snapshot, Store, StoreError, Table, cost,
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
        cost::count_partitions(1);
        let begun = Instant::now();
        let committed = self.engine.commit(partition, commit).await;
        self.metrics.commit.observe(begun.elapsed());
        committed
    }

    async fn read(&self, reads: Vec<Read>) -> Result<Vec<Snapshot>, StoreError> {
        cost::count_partitions(reads.len());
        self.metrics.partitions_read.inc_by(reads.len() as u64);
        let answer = self.engine.read(reads).await;
        for snapshot in answer.iter().flatten() {
            count_bytes(snapshot.documents.iter().flatten().chain(&snapshot.newest));
        }
        answer
    }

    async fn documents(
        &self,
        partition: &Partition,
        keys: Vec<(Table, Key)>,
        bytes: usize,
    ) -> Result<Vec<Option<Document>>, StoreError> {
        cost::count_partitions(1);
        self.metrics.partitions_read.inc();
        let answer = self.engine.documents(partition, keys, bytes).await;
        count_bytes(answer.iter().flatten().flatten());
        answer
    }

    async fn page(
        &self,
        partition: &Partition,
        table: Table,
        range: Range,
        limit: usize,
    ) -> Result<(Page, Head), StoreError> {
        self.metrics.partitions_read.inc();
        let answer = self.engine.page(partition, table, range, limit).await;
        cost::count_rows(answer.as_ref().map_or(0, |(page, _)| page.documents.len()));
        count_bytes(answer.iter().flat_map(|(page, _)| &page.documents));
        answer
    }

    async fn log(
        &self,
        partition: &Partition,
        after: Position,
        limit: usize,
    ) -> Result<Log, StoreError> {
        self.metrics.partitions_read.inc();
        let answer = self.engine.log(partition, after, limit).await;
        cost::count_rows(answer.as_ref().map_or(0, |log| log.entries.len()));
        answer
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

fn count_bytes<'a>(documents: impl IntoIterator<Item = &'a Document>) {
    cost::count_bytes(documents.into_iter().map(|found| found.value.len()).sum());
}
