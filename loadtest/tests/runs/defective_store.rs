//! A store with a defect, which makes a correct node behave like one with that defect.

use std::sync::Arc;

use async_trait::async_trait;
use store::{
    Commit, Committed, Continuity, Expected, Log, Order, Partition, PartitionHead, Position, Read,
    Snapshot, Store, StoreError, StoreLayer,
};

/// The defect of the store.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum StoreDefect {
    /// Stores a message although its id exists.
    IgnoresMessageIds,
    /// Compares only the `seq` of a position, and accepts one whose event was replaced.
    AcceptsReplacedPositions,
}

/// A store with a defect.
#[derive(Debug)]
pub(crate) struct DefectiveStore {
    pub(crate) engine: Arc<dyn Store>,
    pub(crate) defect: StoreDefect,
}

impl DefectiveStore {
    /// Returns the true position of the event with this `seq`, or `asked` after the head.
    async fn position_of_seq(
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
impl StoreLayer for DefectiveStore {
    fn inner(&self) -> Result<&dyn Store, StoreError> {
        Ok(&*self.engine)
    }

    async fn commit(&self, partition: &Partition, mut commit: Commit) -> Committed {
        if self.defect == StoreDefect::IgnoresMessageIds {
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
        if self.defect != StoreDefect::AcceptsReplacedPositions
            || log.continuity != Continuity::Diverged
        {
            return Ok(log);
        }
        match self.position_of_seq(partition, after).await? {
            position if position == after => Ok(Log {
                entries: Vec::new(),
                head: PartitionHead {
                    seq: after.seq,
                    at: after.at,
                    ..log.head
                },
                continuity: Continuity::Continuous,
            }),
            position => self.engine.log(partition, position, limit).await,
        }
    }

    async fn read(&self, reads: Vec<Read>) -> Result<Vec<Snapshot>, StoreError> {
        let mut snapshots = self.engine.read(reads.clone()).await?;
        if self.defect == StoreDefect::IgnoresMessageIds {
            for (read, snapshot) in reads.iter().zip(&mut snapshots) {
                let is_message = read
                    .documents
                    .iter()
                    .map(|(table, _)| table.order == Order::Numbers);
                snapshot
                    .documents
                    .iter_mut()
                    .zip(is_message)
                    .filter(|(_, is)| *is)
                    .for_each(|(document, _)| *document = None);
            }
        }
        Ok(snapshots)
    }
}
