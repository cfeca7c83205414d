//! The state of a partition after a commit.

use std::collections::{HashMap, hash_map};

use bytes::{BufMut, Bytes, BytesMut};
use fanout::record::Record;

use super::{
    super::{
        fault::Fault,
        layout::{self, EVENT_OVERHEAD, LayoutState},
        tree::Tree,
        view::View,
    },
    changes::Changes,
};
use crate::{
    Append, Commit, Conflict, Counter, Document, DocumentKey, EventBody, Expected, Keep, Mark,
    Order, Outcome, Partition, Position, Stamps, Table, Write, Written,
};

/// Maximum number of old events that one commit trims, in addition to as many as it appends. Later
/// commits continue.
const MAX_TRIMMED_EVENTS: usize = 1_000;

/// The partition's state and the documents that the commit reads or writes.
pub(super) struct Draft<'t> {
    view: View<'t>,
    pub(super) state: LayoutState,
    documents: HashMap<(&'static str, DocumentKey), DocumentDraft>,
}

struct DocumentDraft {
    table: Table,
    /// Stamps before the commit; `None` if the document was absent.
    before: Option<Stamps>,
    current: Option<Document>,
    is_changed: bool,
}

impl<'t> Draft<'t> {
    pub(super) fn new(view: View<'t>, state: LayoutState) -> Self {
        Self {
            view,
            state,
            documents: HashMap::new(),
        }
    }

    /// Returns the failed preconditions, as indexes into [`Commit::require`].
    pub(super) fn failed_requirements(&mut self, commit: &Commit) -> Result<Vec<usize>, Fault> {
        let mut failed = Vec::new();
        for (index, require) in commit.require.iter().enumerate() {
            let document = self.document(require.table, &require.key)?;
            if !holds(require.is, document.current.as_ref()) {
                failed.push(index);
            }
        }
        Ok(failed)
    }

    fn document(&mut self, table: Table, key: &DocumentKey) -> Result<&mut DocumentDraft, Fault> {
        match self.documents.entry((table.name, key.clone())) {
            hash_map::Entry::Occupied(entry) => Ok(entry.into_mut()),
            hash_map::Entry::Vacant(entry) => {
                let current = if self.state.id == 0 {
                    None
                } else {
                    self.view.document(self.state.id, table, key)?
                };
                Ok(entry.insert(DocumentDraft {
                    table,
                    before: current.as_ref().map(|document| document.stamps),
                    current,
                    is_changed: false,
                }))
            }
        }
    }

    /// Applies the increments and returns their results. Adds those that fail to the conflict.
    pub(super) fn increment(
        &mut self,
        commit: &Commit,
        conflict: &mut Conflict,
    ) -> Result<Vec<u64>, Fault> {
        let mut results = Vec::with_capacity(commit.increment.len());
        for (index, increment) in commit.increment.iter().enumerate() {
            let (counts, name, max_names) = match &increment.counter {
                Counter::Partition(name) => (&mut self.state.counters, *name, None),
                Counter::Document { table, key, name } => {
                    let document = self.document(*table, key)?;
                    let Some(current) = &mut document.current else {
                        conflict.increment.push(index);
                        continue;
                    };
                    document.is_changed = true;
                    (&mut current.counts, &**name, increment.max_names)
                }
            };
            let place = counts.binary_search_by(|(other, _)| other.as_str().cmp(name));
            let result = place
                .map_or(0, |place| counts[place].1)
                .saturating_add_signed(increment.by);
            let is_new = place.is_err() && result > 0;
            if increment.max.is_some_and(|max| result > max)
                || is_new && max_names.is_some_and(|max| counts.len() as u64 >= max)
            {
                conflict.increment.push(index);
                continue;
            }
            match place {
                Ok(place) if result == 0 => {
                    counts.remove(place);
                }
                Ok(place) => counts[place].1 = result,
                Err(place) if is_new => counts.insert(place, (name.to_owned(), result)),
                Err(_) => {}
            }
            results.push(result);
        }
        Ok(results)
    }

    pub(super) fn write(
        &mut self,
        write: &Write,
        at: u64,
        first_seq: u64,
    ) -> Result<Written, Fault> {
        let (next, retired) = (self.state.head.number + 1, self.state.retired);
        let written = match write {
            Write::Put {
                table,
                key,
                value,
                mark,
                event,
            } => {
                let document = self.document(*table, key)?;
                document.is_changed = true;
                let is_new = document.current.is_none();
                let number = if table.order == Order::Numbers {
                    next
                } else {
                    0
                };
                let current = document.current.get_or_insert_with(|| Document {
                    key: key.clone(),
                    version: retired,
                    value: Bytes::new(),
                    stamps: Stamps {
                        number,
                        created_at: at,
                        ..Stamps::default()
                    },
                    counts: Vec::new(),
                });
                current.version += 1;
                current.value = value.clone();
                match mark {
                    Mark::None => {}
                    Mark::Edited => current.stamps.edited_at = at,
                    Mark::Deleted => {
                        current.stamps.deleted_at = at;
                        current.counts.clear();
                    }
                }
                if let Some(event) = event {
                    current.stamps.seq = first_seq + event.index() as u64;
                }
                let written = Written {
                    version: current.version,
                    stamps: current.stamps,
                };
                if is_new && number != 0 {
                    self.state.head.number = number;
                }
                written
            }
            Write::Touch { table, key, event } => {
                let document = self.document(*table, key)?;
                let Some(current) = &mut document.current else {
                    return Ok(Written::default());
                };
                document.is_changed = true;
                current.stamps.seq = first_seq + event.index() as u64;
                Written {
                    version: current.version,
                    stamps: current.stamps,
                }
            }
            Write::Delete { table, key } => {
                let document = self.document(*table, key)?;
                if let Some(gone) = document.current.take() {
                    document.is_changed = true;
                    self.state.retired = retired.max(gone.version);
                }
                Written::default()
            }
        };
        Ok(written)
    }

    pub(super) fn record(
        &self,
        commit: &Commit,
        append: &Append,
        position: Position,
        before: u64,
        outcome: &Outcome,
    ) -> Record {
        let record = Record {
            kind: append.kind,
            control: append.control.clone(),
            position,
            before,
            ..Record::default()
        };
        match &append.body {
            EventBody::Bytes(body, count) => Record {
                count: count.map(|count| outcome.count(count)),
                body: body.clone(),
                ..record
            },
            EventBody::Written(write) => {
                let put = match &commit.write[write.index()] {
                    Write::Put { table, key, .. } => self
                        .documents
                        .get(&(table.name, key.clone()))
                        .and_then(|document| document.current.as_ref()),
                    Write::Touch { .. } | Write::Delete { .. } => None,
                };
                let put = put.expect("validation checked that this write puts a document, once");
                let counts = (!put.counts.is_empty()).then(|| encode_counts(&put.counts));
                Record {
                    stamps: put.stamps,
                    counts,
                    body: put.value.clone(),
                    ..record
                }
            }
        }
    }

    /// Adds the events to the log and trims it.
    pub(super) fn append(
        &mut self,
        commit: &Commit,
        at: u64,
        keep: Keep,
        changes: &mut Changes,
    ) -> Result<(), Fault> {
        if commit.append.is_empty() && commit.keep.is_none() {
            return Ok(());
        }
        let LayoutState {
            id,
            head,
            log_bytes,
            ..
        } = &mut self.state;
        let (first, old_floor) = (head.seq + 1, head.floor.seq);
        if !commit.append.is_empty() {
            head.seq += commit.append.len() as u64;
            head.at = at;
        }
        *log_bytes += commit
            .append
            .iter()
            .map(|append| EVENT_OVERHEAD + append.reference.len() as u64)
            .sum::<u64>();

        let exceeds = |floor: u64, log_bytes: u64| {
            keep.events != 0 && head.seq.saturating_sub(floor) > keep.events
                || keep.bytes != 0 && log_bytes > keep.bytes
        };
        let mut old = None;
        for _ in 0..MAX_TRIMMED_EVENTS + commit.append.len() {
            let seq = head.floor.seq + 1;
            if seq == head.seq || !exceeds(head.floor.seq, *log_bytes) {
                break;
            }
            if seq >= first {
                // Nothing in a damaged log, whose floor is after its head.
                let Some(append) = commit.append.get((seq - first) as usize) else {
                    break;
                };
                *log_bytes =
                    log_bytes.saturating_sub(EVENT_OVERHEAD + append.reference.len() as u64);
                head.floor = Position { seq, at };
                continue;
            }
            if old.is_none() {
                old = Some(self.view.events(*id, seq)?);
            }
            let Some(entry) = old.as_mut().and_then(Iterator::next).transpose()? else {
                break;
            };
            *log_bytes = log_bytes.saturating_sub(EVENT_OVERHEAD + entry.reference.len() as u64);
            head.floor = entry.position;
        }
        for seq in old_floor + 1..first.min(head.floor.seq + 1) {
            changes.delete(Tree::Entries, layout::by_seq(*id, seq));
        }
        for (seq, append) in (first..).zip(&commit.append) {
            if seq > head.floor.seq {
                changes.put(
                    Tree::Entries,
                    layout::by_seq(*id, seq),
                    layout::encode_event(at, append.kind, &append.reference),
                );
            }
        }
        Ok(())
    }

    /// Adds the changes of the documents and of the partition's state.
    pub(super) fn finish(
        mut self,
        partition: &Partition,
        commit: &Commit,
        at: u64,
        changes: &mut Changes,
    ) {
        let id = self.state.id;
        for (
            (_, key),
            DocumentDraft {
                table,
                before,
                current,
                ..
            },
        ) in self
            .documents
            .into_iter()
            .filter(|(_, document)| document.is_changed)
        {
            let by_key = layout::by_key(id, table, &key);
            match (current, table.order) {
                (Some(current), Order::Numbers) => {
                    let Stamps { number, seq, .. } = current.stamps;
                    match before {
                        None => changes.put(Tree::Entries, by_key, number.to_be_bytes()),
                        Some(before) if before.seq != seq => {
                            changes.delete(Tree::Entries, layout::by_change(id, before.seq, number))
                        }
                        Some(_) => {}
                    }
                    if before.is_none_or(|before| before.seq != seq) {
                        changes.put(Tree::Entries, layout::by_change(id, seq, number), []);
                    }
                    changes.put(
                        Tree::Entries,
                        layout::by_number(id, number),
                        layout::encode_document(&current),
                    );
                }
                (Some(current), _) => {
                    changes.put(Tree::Entries, by_key, layout::encode_document(&current))
                }
                (None, _) => changes.delete(Tree::Entries, by_key),
            }
        }
        self.state.at = at;
        if let Some(after) = commit.expire {
            if self.state.expires != 0 {
                changes.delete(Tree::Expiries, layout::by_expiry(self.state.expires, id));
            }
            self.state.expires = at
                .saturating_add(u64::try_from(after.as_millis()).unwrap_or(u64::MAX))
                .max(1);
            changes.put(
                Tree::Expiries,
                layout::by_expiry(self.state.expires, id),
                partition.name(),
            );
        }
        changes.put(Tree::Partitions, partition.name(), self.state.encode());
    }
}

/// Returns whether a document is in the expected state.
pub(in super::super) fn holds(expected: Expected, document: Option<&Document>) -> bool {
    match (expected, document) {
        (Expected::Absent, document) => document.is_none(),
        (_, None) => false,
        (Expected::Present, Some(_)) => true,
        (Expected::Version(version), Some(document)) => document.version == version,
        (Expected::Changed(seq), Some(document)) => document.stamps.seq == seq,
    }
}

/// Encodes counters as a MessagePack map.
fn encode_counts(counts: &[(String, u64)]) -> Bytes {
    const INFALLIBLE: &str = "writing to memory does not fail";
    let mut out = BytesMut::new().writer();
    let length = u32::try_from(counts.len()).expect("counters are bounded by `max_names`");
    rmp::encode::write_map_len(&mut out, length).expect(INFALLIBLE);
    for (name, count) in counts {
        rmp::encode::write_str(&mut out, name).expect(INFALLIBLE);
        rmp::encode::write_uint(&mut out, *count).expect(INFALLIBLE);
    }
    out.into_inner().freeze()
}
