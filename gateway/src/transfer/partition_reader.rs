//! Reads a partition of a store in batches.

use domain::schema;
use store::{
    Document, LogEntry, Order, Partition, Position, Range, StoreError, Table,
    transfer::{Outline, Transfer, TransferCursor},
};

/// Maximum number of documents or log entries in a batch.
const ITEMS_PER_READ: usize = 200;

pub(super) enum PartitionBatch {
    Documents(Table, Vec<Document>),
    Entries(Vec<LogEntry>),
}

impl PartitionBatch {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Documents(_, documents) => documents.len(),
            Self::Entries(entries) => entries.len(),
        }
    }

    /// Returns the approximate size of the batch in memory.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Documents(_, documents) => {
                documents.iter().map(|document| document.value.len()).sum()
            }
            Self::Entries(entries) => entries.iter().map(|entry| entry.reference.len()).sum(),
        }
    }
}

/// Reads the documents of each table, then the log.
pub(super) struct PartitionReader<'s> {
    store: &'s dyn Transfer,
    pub(super) partition: Partition,
    pub(super) outline: Outline,
    tables: std::vec::IntoIter<Table>,
    state: State,
}

enum State {
    NextTable,
    /// A plain or listed table.
    Scan(Table, Option<TransferCursor>),
    /// A numbered table, read after this number.
    Numbered(Table, u64),
    Log(Position),
    End,
}

impl<'s> PartitionReader<'s> {
    /// Returns a reader of the partition, or `None` if it does not exist.
    pub(super) async fn begin(
        store: &'s dyn Transfer,
        partition: Partition,
    ) -> Result<Option<Self>, StoreError> {
        let outline = store.outline(&partition).await?;
        let tables = schema::tables(&partition).collect::<Vec<_>>().into_iter();
        Ok(outline.map(|outline| Self {
            store,
            partition,
            outline,
            tables,
            state: State::NextTable,
        }))
    }

    /// Returns the next batch, which may be empty; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<PartitionBatch>, StoreError> {
        let (batch, next) = match &self.state {
            State::NextTable => {
                let Outline { head, purged, .. } = self.outline;
                let next = match self.tables.next() {
                    Some(table) if table.order != Order::Numbers => State::Scan(table, None),
                    Some(table) if head.number > purged => State::Numbered(table, purged),
                    Some(_) => State::NextTable,
                    None if head.seq > head.floor.seq => State::Log(head.floor),
                    None => State::End,
                };
                (PartitionBatch::Entries(Vec::new()), next)
            }
            State::Scan(table, from) => {
                let (documents, next) = self
                    .store
                    .scan(&self.partition, *table, from.clone(), ITEMS_PER_READ)
                    .await?;
                let next = next.map_or(State::NextTable, |next| State::Scan(*table, Some(next)));
                (PartitionBatch::Documents(*table, documents), next)
            }
            State::Numbered(table, after) => {
                let (page, _) = self
                    .store
                    .page(
                        &self.partition,
                        *table,
                        Range::After(*after),
                        ITEMS_PER_READ,
                    )
                    .await?;
                let next = match page.documents.last() {
                    Some(last) if page.more => State::Numbered(*table, last.stamps.number),
                    _ => State::NextTable,
                };
                (PartitionBatch::Documents(*table, page.documents), next)
            }
            State::Log(after) => {
                let entries = self
                    .store
                    .log(&self.partition, *after, ITEMS_PER_READ)
                    .await?
                    .entries;
                let next = entries
                    .last()
                    .map_or(State::End, |last| State::Log(last.position));
                (PartitionBatch::Entries(entries), next)
            }
            State::End => return Ok(None),
        };
        self.state = next;
        Ok(Some(batch))
    }
}
