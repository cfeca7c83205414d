//! A store that measures commits and counts reads, for metrics and for the cost of requests.

use std::{sync::Arc, time::Instant};

use async_trait::async_trait;
use store::{
    Commit, Committed, Document, DocumentKey, Log, Page, Partition, PartitionHead, Position, Range,
    Read, Snapshot, Store, StoreError, StoreLayer, Table, cost,
};

use crate::metrics::Metrics;

/// A store that reports its work to the metrics.
#[derive(Debug)]
pub struct Metered<S> {
    engine: Arc<S>,
    metrics: Arc<Metrics>,
}

impl<S: Store + 'static> Metered<S> {
    /// Creates a metered store over an engine.
    pub fn over(engine: Arc<S>, metrics: Arc<Metrics>) -> Arc<dyn Store> {
        Arc::new(Self { engine, metrics })
    }
}

#[async_trait]
impl<S: Store> StoreLayer for Metered<S> {
    fn inner(&self) -> Result<&dyn Store, StoreError> {
        Ok(&*self.engine)
    }

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
        keys: Vec<(Table, DocumentKey)>,
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
    ) -> Result<(Page, PartitionHead), StoreError> {
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
}

fn count_bytes<'a>(documents: impl IntoIterator<Item = &'a Document>) {
    cost::count_bytes(documents.into_iter().map(|found| found.value.len()).sum());
}
