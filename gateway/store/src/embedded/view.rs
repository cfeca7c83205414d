//! Reads of the store at one instant.

use std::ops::Bound;

use bytes::Bytes;

use super::{
    fault::Fault,
    layout::{self, LayoutState, Space},
    tree::Tree,
    trees::Trees,
};
use crate::{
    Continuity, Document, DocumentKey, Log, LogEntry, Order, PAGE_BYTES, Page, Partition,
    PartitionHead, Position, Range, Read, Snapshot, Table,
};

/// The maximum size of a page.
#[derive(Debug, Clone, Copy)]
pub(super) struct ViewLimit {
    pub(super) documents: usize,
    /// Bytes of values in a page of more than one document.
    pub(super) bytes: usize,
}

impl ViewLimit {
    fn documents(documents: usize) -> Self {
        Self {
            documents,
            bytes: PAGE_BYTES,
        }
    }

    /// Returns whether a page of `bytes` has room for another document.
    fn allows(self, page: &Page, bytes: usize, document: &Document) -> bool {
        page.documents.is_empty() || bytes + document.value.len() <= self.bytes
    }
}

/// The store at one instant.
pub(super) struct View<'t> {
    pub(super) trees: Trees<'t>,
    /// Partitions that expire until then are hidden, whether they were swept or not.
    now: u64,
}

impl<'t> View<'t> {
    pub(super) fn new(trees: Trees<'t>, now: u64) -> Self {
        Self { trees, now }
    }

    /// Returns the state of a partition, even if it has expired.
    pub(super) fn stored(&self, partition: &Partition) -> Result<Option<LayoutState>, Fault> {
        let bytes = self
            .trees
            .get(Tree::Partitions, partition.name().as_bytes())?;
        Ok(bytes.map(LayoutState::decode).transpose()?)
    }

    pub(super) fn has_expired(&self, state: &LayoutState) -> bool {
        state.expires != 0 && state.expires <= self.now
    }

    /// Returns the state of a partition that has not expired.
    pub(super) fn state(&self, partition: &Partition) -> Result<Option<LayoutState>, Fault> {
        Ok(self
            .stored(partition)?
            .filter(|state| !self.has_expired(state)))
    }

    pub(super) fn document(
        &self,
        partition: u64,
        table: Table,
        key: &str,
    ) -> Result<Option<Document>, Fault> {
        let Some(found) = self
            .trees
            .get(Tree::Entries, &layout::by_key(partition, table, key))?
        else {
            return Ok(None);
        };
        match table.order {
            Order::Numbers => self.numbered(partition, layout::last_u64(found)?),
            Order::None | Order::Keys => Ok(Some(layout::decode_document(found)?)),
        }
    }

    fn numbered(&self, partition: u64, number: u64) -> Result<Option<Document>, Fault> {
        let bytes = self
            .trees
            .get(Tree::Entries, &layout::by_number(partition, number))?;
        Ok(bytes.map(layout::decode_document).transpose()?)
    }

    pub(super) fn snapshot(&self, read: &Read) -> Result<Snapshot, Fault> {
        let Some(state) = self.state(&read.partition)? else {
            return Ok(Snapshot {
                documents: vec![None; read.documents.len()],
                ..Snapshot::default()
            });
        };
        let documents = read
            .documents
            .iter()
            .map(|(table, key)| self.document(state.id, *table, key))
            .collect::<Result<_, _>>()?;
        let newest = match read.newest {
            Some(_) => self
                .before(state.id, None, ViewLimit::documents(1))?
                .documents
                .pop(),
            None => None,
        };
        Ok(Snapshot {
            head: state.head,
            counters: state.counters,
            documents,
            newest,
        })
    }

    pub(super) fn documents(
        &self,
        partition: &Partition,
        keys: &[(Table, DocumentKey)],
        max_bytes: usize,
    ) -> Result<Vec<Option<Document>>, Fault> {
        let state = self.state(partition)?;
        let (mut documents, mut bytes) = (Vec::new(), 0);
        for (table, key) in keys {
            let document = match &state {
                Some(state) => self.document(state.id, *table, key)?,
                None => None,
            };
            bytes += document.as_ref().map_or(0, |document| document.value.len());
            if bytes > max_bytes && !documents.is_empty() {
                break;
            }
            documents.push(document);
        }
        Ok(documents)
    }

    pub(super) fn page(
        &self,
        partition: &Partition,
        table: Table,
        range: &Range,
        limit: usize,
    ) -> Result<(Page, PartitionHead), Fault> {
        // No entry has the number 0, so a page of an absent partition is empty.
        let LayoutState { id, head, .. } = self.state(partition)?.unwrap_or_default();
        let limit = ViewLimit::documents(limit);
        let page = match (table.order, range) {
            (Order::Keys, Range::Keys { after }) => {
                let prefix = layout::table(id, table);
                let start = after.as_ref().map(|after| layout::by_key(id, table, after));
                let start = start
                    .as_ref()
                    .map_or(Bound::Included(&prefix[..]), |start| {
                        Bound::Excluded(&start[..])
                    });
                self.ascending(start, &prefix, limit, |_, bytes| {
                    Ok(Some(layout::decode_document(bytes)?))
                })
            }
            (Order::Numbers, Range::Before(number)) => self.before(id, *number, limit),
            (Order::Numbers, Range::After(number)) => {
                let start = layout::by_number(id, *number);
                self.ascending(
                    Bound::Excluded(&start),
                    &layout::space(id, Space::Numbered),
                    limit,
                    |_, bytes| Ok(Some(layout::decode_document(bytes)?)),
                )
            }
            (Order::Numbers, Range::Changed(seq)) => {
                let start = layout::by_change(id, *seq, u64::MAX);
                self.ascending(
                    Bound::Excluded(&start),
                    &layout::space(id, Space::Changes),
                    limit,
                    |key, _| self.numbered(id, layout::last_u64(key)?),
                )
            }
            _ => Err(Fault::Malformed("the table cannot be paged in this order")),
        }?;
        Ok((page, head))
    }

    /// Reads documents in ascending order of the keys with a prefix. `document` decodes an entry.
    pub(super) fn ascending(
        &self,
        start: Bound<&[u8]>,
        prefix: &[u8],
        limit: ViewLimit,
        document: impl Fn(&[u8], &[u8]) -> Result<Option<Document>, Fault>,
    ) -> Result<Page, Fault> {
        let (mut page, mut used) = (Page::default(), 0);
        for entry in self.trees.range(Tree::Entries, start, Bound::Unbounded)? {
            let (key, bytes) = entry?;
            if !key.starts_with(prefix) {
                break;
            }
            if page.documents.len() == limit.documents {
                page.more = true;
                break;
            }
            let Some(document) = document(key, bytes)? else {
                continue;
            };
            if !limit.allows(&page, used, &document) {
                page.more = true;
                break;
            }
            used += document.value.len();
            page.documents.push(document);
        }
        Ok(page)
    }

    fn before(&self, partition: u64, number: Option<u64>, limit: ViewLimit) -> Result<Page, Fault> {
        let start = layout::by_number(partition, 0);
        let end = layout::by_number(partition, number.unwrap_or(u64::MAX));
        let (mut page, mut used) = (Page::default(), 0);
        for entry in self.trees.rev_range(
            Tree::Entries,
            Bound::Included(&start[..]),
            Bound::Excluded(&end[..]),
        )? {
            let (_, bytes) = entry?;
            if page.documents.len() == limit.documents {
                page.more = true;
                break;
            }
            let document = layout::decode_document(bytes)?;
            if !limit.allows(&page, used, &document) {
                page.more = true;
                break;
            }
            used += document.value.len();
            page.documents.push(document);
        }
        page.documents.reverse();
        Ok(page)
    }

    /// Iterates over the events from `seq` on.
    pub(super) fn events(
        &self,
        partition: u64,
        seq: u64,
    ) -> Result<impl Iterator<Item = Result<LogEntry, Fault>> + 't, Fault> {
        let (first, last) = (
            layout::by_seq(partition, seq),
            layout::by_seq(partition, u64::MAX),
        );
        let range = self.trees.range(
            Tree::Entries,
            Bound::Included(&first[..]),
            Bound::Included(&last[..]),
        )?;
        Ok(range.map(|entry| {
            let (key, bytes) = entry?;
            let (at, kind, reference) = layout::decode_event(bytes)?;
            let position = Position {
                seq: layout::last_u64(key)?,
                at,
            };
            Ok(LogEntry {
                position,
                kind,
                reference: Bytes::copy_from_slice(reference),
            })
        }))
    }

    pub(super) fn log(
        &self,
        partition: &Partition,
        after: Position,
        limit: usize,
    ) -> Result<Log, Fault> {
        let LayoutState { id, head, .. } = self.state(partition)?.unwrap_or_default();
        let continuity = if after.seq < head.floor.seq {
            Continuity::Trimmed
        } else if after == head.floor || after == head.position() {
            Continuity::Continuous
        } else if after.seq == head.floor.seq || after.seq >= head.seq {
            Continuity::Diverged
        } else {
            match self.events(id, after.seq)?.next().transpose()? {
                Some(entry) if entry.position == after => Continuity::Continuous,
                _ => Continuity::Diverged,
            }
        };
        let entries = match continuity {
            Continuity::Continuous if after.seq < head.seq => self
                .events(id, after.seq + 1)?
                .take(limit)
                .collect::<Result<_, _>>()?,
            _ => Vec::new(),
        };
        Ok(Log {
            entries,
            head,
            continuity,
        })
    }
}
