//! A partition out of a store, piece by piece.

use domain::schema;
use store::{
    Document, Entry, Order, Partition, Position, Range, StoreError, Table,
    transfer::{Cursor, Outline, Transfer},
};

/// Documents or entries that are read at once.
const STEP: usize = 200;

/// Some of a partition.
pub(super) enum Part {
    Documents(Table, Vec<Document>),
    Entries(Vec<Entry>),
}

impl Part {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Documents(_, documents) => documents.len(),
            Self::Entries(entries) => entries.len(),
        }
    }

    /// About how much memory it takes.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Documents(_, documents) => {
                documents.iter().map(|document| document.value.len()).sum()
            }
            Self::Entries(entries) => entries.iter().map(|entry| entry.reference.len()).sum(),
        }
    }
}

/// Goes through a partition.
pub(super) struct Walk<'s> {
    store: &'s dyn Transfer,
    pub(super) partition: Partition,
    pub(super) outline: Outline,
    tables: std::vec::IntoIter<Table>,
    at: Place,
}

enum Place {
    Between,
    Scanning(Table, Option<Cursor>),
    Numbers(Table, u64),
    Log(Position),
    End,
}

impl<'s> Walk<'s> {
    /// Before the first piece of a partition, if it is there.
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
            at: Place::Between,
        }))
    }

    /// The next piece, which may be empty; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Part>, StoreError> {
        let (part, next) = match &self.at {
            Place::Between => {
                let Outline { head, purged, .. } = self.outline;
                let next = match self.tables.next() {
                    Some(table) if table.order != Order::Numbers => Place::Scanning(table, None),
                    Some(table) if head.number > purged => Place::Numbers(table, purged),
                    Some(_) => Place::Between,
                    None if head.seq > head.floor.seq => Place::Log(head.floor),
                    None => Place::End,
                };
                (Part::Entries(Vec::new()), next)
            }
            Place::Scanning(table, from) => {
                let (documents, next) = self
                    .store
                    .scan(&self.partition, *table, from.clone(), STEP)
                    .await?;
                let next = next.map_or(Place::Between, |next| Place::Scanning(*table, Some(next)));
                (Part::Documents(*table, documents), next)
            }
            Place::Numbers(table, after) => {
                let (page, _) = self
                    .store
                    .page(&self.partition, *table, Range::After(*after), STEP)
                    .await?;
                let next = match page.documents.last() {
                    Some(last) if page.more => Place::Numbers(*table, last.stamps.number),
                    _ => Place::Between,
                };
                (Part::Documents(*table, page.documents), next)
            }
            Place::Log(after) => {
                let entries = self.store.log(&self.partition, *after, STEP).await?.entries;
                let next = entries
                    .last()
                    .map_or(Place::End, |last| Place::Log(last.position));
                (Part::Entries(entries), next)
            }
            Place::End => return Ok(None),
        };
        self.at = next;
        Ok(Some(part))
    }
}
