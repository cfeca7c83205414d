//! A store with a planted defect: what nodes over it do is what they would do if they had it.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use fanout::Topic;
use gateway::store::{
    Commit, Committed, Continuity, Expected, Head, Log, Order, Page, Partition, Position, Purged,
    Range, Read, Require, Snapshot, Store, StoreError, Table,
};

/// What it does wrong.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Defect {
    /// A message is stored whether its id is there or not.
    ForgetsIds,
    /// A position is taken for what its `seq` says, whichever event stands there.
    AcceptsReusedNumbers,
}

/// An engine with a defect.
#[derive(Debug)]
pub(crate) struct Planted {
    pub(crate) engine: Arc<dyn Store>,
    pub(crate) defect: Defect,
}

impl Planted {
    /// Where the event of this `seq` stands in truth; past the head nothing stands, and the asked position is believed.
    async fn believed(
        &self,
        partition: &Partition,
        asked: Position,
    ) -> Result<Position, StoreError> {
        let mut after = Position::default();
        loop {
            let log = self.engine.log(partition, after, 100).await?;
            match log
                .entries
                .iter()
                .find(|entry| entry.position.seq == asked.seq)
            {
                Some(entry) => return Ok(entry.position),
                None => match log.entries.last() {
                    Some(last) => after = last.position,
                    None => return Ok(asked),
                },
            }
        }
    }
}

#[async_trait]
impl Store for Planted {
    async fn commit(&self, partition: &Partition, mut commit: Commit) -> Committed {
        if self.defect == Defect::ForgetsIds {
            commit.require.retain(|require| {
                require.table.order != Order::Numbers || require.is != Expected::Absent
            });
        }
        self.engine.commit(partition, commit).await
    }

    async fn log(
        &self,
        partition: &Partition,
        after: Position,
        limit: usize,
    ) -> Result<Log, StoreError> {
        let log = self.engine.log(partition, after, limit).await?;
        if self.defect != Defect::AcceptsReusedNumbers || log.continuity != Continuity::Diverged {
            return Ok(log);
        }
        match self.believed(partition, after).await? {
            there if there == after => Ok(Log {
                entries: Vec::new(),
                head: Head {
                    seq: after.seq,
                    at: after.at,
                    ..log.head
                },
                continuity: Continuity::Continuous,
            }),
            there => self.engine.log(partition, there, limit).await,
        }
    }

    async fn read(&self, reads: Vec<Read>) -> Result<Vec<Snapshot>, StoreError> {
        let mut snapshots = self.engine.read(reads.clone()).await?;
        if self.defect == Defect::ForgetsIds {
            for (read, snapshot) in reads.iter().zip(&mut snapshots) {
                let numbered = read
                    .documents
                    .iter()
                    .map(|(table, _)| table.order == Order::Numbers);
                snapshot
                    .documents
                    .iter_mut()
                    .zip(numbered)
                    .filter(|(_, is)| *is)
                    .for_each(|(document, _)| *document = None);
            }
        }
        Ok(snapshots)
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

    async fn publish(&self, topic: &Topic, record: Bytes) -> Result<(), StoreError> {
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
