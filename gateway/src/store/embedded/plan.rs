//! What one commit does: read and decided first, as a list of changes, so that nothing is half written when it conflicts.

use std::collections::HashMap;

use bytes::{BufMut, Bytes, BytesMut};
use fanout::record::Record;
use heed::{RoTxn, RwTxn};

use super::{
    disk::{Disk, Tree},
    layout::{self, State},
    sound,
    view::{Fault, View},
};
use crate::store::{
    Append, Body, Commit, Conflict, Counter, Document, Expected, Keep, Key, Mark, Order, Outcome,
    Partition, Position, Stamps, Table, Write, Written,
};

/// How many old events one commit trims at most, beside as many as it appends: a smaller [`Keep`] than before is reached by and by.
const TRIM: usize = 1_000;

/// What an event weighs besides its reference.
pub(super) const POSITION: u64 = 16;

/// Where the number for the next partition stands.
pub(super) const NEXT: &[u8] = b"next";

/// A commit that may happen.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) outcome: Outcome,
    /// For the partition's topic.
    pub(super) records: Vec<Bytes>,
    changes: Changes,
}

/// Entries to put and to delete, in their order.
#[derive(Debug, Default)]
pub(super) struct Changes(Vec<(Tree, Vec<u8>, Option<Vec<u8>>)>);

impl Changes {
    pub(super) fn put(&mut self, tree: Tree, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) {
        self.0.push((tree, key.into(), Some(value.into())));
    }

    pub(super) fn delete(&mut self, tree: Tree, key: impl Into<Vec<u8>>) {
        self.0.push((tree, key.into(), None));
    }

    /// Takes the number for a new partition.
    pub(super) fn number(&mut self, disk: &Disk, txn: &RoTxn) -> Result<u64, Fault> {
        let number = disk.meta.get(txn, NEXT)?.map_or(Ok(1), layout::last_u64)?;
        self.put(disk.meta, NEXT, (number + 1).to_be_bytes());
        Ok(number)
    }

    /// A document with all that leads to it.
    pub(super) fn document(
        &mut self,
        disk: &Disk,
        partition: u64,
        table: Table,
        document: &Document,
    ) {
        let by_key = layout::by_key(partition, table, &document.key);
        let Stamps { number, seq, .. } = document.stamps;
        match table.order {
            Order::Numbers => {
                self.put(disk.entries, by_key, number.to_be_bytes());
                self.put(disk.entries, layout::by_change(partition, seq, number), []);
                self.put(
                    disk.entries,
                    layout::by_number(partition, number),
                    layout::encode_document(document),
                );
            }
            Order::None | Order::Keys => {
                self.put(disk.entries, by_key, layout::encode_document(document))
            }
        }
    }
}

impl Plan {
    /// One that changes these entries and tells nobody.
    pub(super) fn of(changes: Changes) -> Self {
        Self {
            changes,
            ..Self::default()
        }
    }

    /// Carries it out, up to the transaction's commit.
    pub(super) fn write(&self, txn: &mut RwTxn) -> heed::Result<()> {
        for (tree, key, value) in &self.changes.0 {
            match value {
                Some(value) => tree.put(txn, key, value)?,
                None => {
                    tree.delete(txn, key)?;
                }
            }
        }
        Ok(())
    }
}

/// Decides on a commit: what it will do, or why it may not.
pub(super) fn plan(
    disk: &Disk,
    txn: &RoTxn,
    now: u64,
    keep: Keep,
    partition: &Partition,
    commit: &Commit,
) -> Result<Result<Plan, Conflict>, Fault> {
    sound::check(partition, commit)?;
    let view = View::new(disk, txn, now);
    let kept = view.kept(partition)?;
    let expired = kept
        .as_ref()
        .filter(|state| view.has_expired(state))
        .cloned();
    let state = if expired.is_some() {
        State::default()
    } else {
        kept.unwrap_or_default()
    };
    let mut draft = Draft {
        view,
        state,
        documents: HashMap::new(),
    };

    let mut conflict = Conflict::default();
    for (index, require) in commit.require.iter().enumerate() {
        if !holds(
            require.is,
            draft.document(require.table, &require.key)?.now.as_ref(),
        ) {
            conflict.require.push(index);
        }
    }
    let counts = draft.count(commit, &mut conflict)?;
    if conflict != Conflict::default() {
        return Ok(Err(conflict));
    }

    let at = now.max(draft.state.at);
    let head = draft.state.head;
    let first_seq = if commit.append.is_empty() {
        head.seq
    } else {
        head.seq + 1
    };
    let mut plan = Plan {
        outcome: Outcome {
            at,
            first_seq,
            written: Vec::new(),
            counts,
        },
        ..Plan::default()
    };
    if commit.write.is_empty()
        && commit.increment.is_empty()
        && commit.append.is_empty()
        && commit.expire.is_none()
    {
        return Ok(Ok(plan));
    }
    for write in &commit.write {
        plan.outcome
            .written
            .push(draft.write(write, at, first_seq)?);
    }
    for (index, append) in commit.append.iter().enumerate() {
        let before = if index == 0 { head.at } else { at };
        let position = Position {
            seq: first_seq + index as u64,
            at,
        };
        plan.records.push(
            draft
                .record(commit, append, position, before, &plan.outcome)
                .encode(),
        );
    }

    let changes = &mut plan.changes;
    if let Some(expired) = expired {
        drop_entries(disk, changes, &expired);
    }
    if draft.state.id == 0 {
        draft.state.id = changes.number(disk, txn)?;
    }
    draft.append(commit, at, keep, disk, changes)?;
    draft.finish(partition, commit, at, disk, changes);
    Ok(Ok(plan))
}

/// Takes away a partition's name at once; its entries are removed by and by.
pub(super) fn expire(disk: &Disk, partition: &Partition, state: &State) -> Plan {
    let mut changes = Changes::default();
    drop_partition(disk, &mut changes, partition, state);
    Plan::of(changes)
}

/// The same, as part of something more.
pub(super) fn drop_partition(
    disk: &Disk,
    changes: &mut Changes,
    partition: &Partition,
    state: &State,
) {
    drop_entries(disk, changes, state);
    changes.delete(disk.partitions, partition.name().as_bytes());
}

/// What a partition leaves that is about to lose its name.
pub(super) fn drop_entries(disk: &Disk, changes: &mut Changes, state: &State) {
    changes.delete(disk.expiries, layout::by_expiry(state.expires, state.id));
    changes.put(disk.dropped, state.id.to_be_bytes(), []);
}

/// Whether a document is as expected.
pub(super) fn holds(expected: Expected, document: Option<&Document>) -> bool {
    match (expected, document) {
        (Expected::Absent, document) => document.is_none(),
        (_, None) => false,
        (Expected::Present, Some(_)) => true,
        (Expected::Version(version), Some(document)) => document.version == version,
        (Expected::Changed(seq), Some(document)) => document.stamps.seq == seq,
    }
}

/// The partition as the commit leaves it, as far as it touches it.
struct Draft<'t> {
    view: View<'t>,
    state: State,
    documents: HashMap<(&'static str, Key), Draught>,
}

/// A document before and after.
struct Draught {
    table: Table,
    was: Option<Stamps>,
    now: Option<Document>,
    changed: bool,
}

impl Draft<'_> {
    fn document(&mut self, table: Table, key: &Key) -> Result<&mut Draught, Fault> {
        use std::collections::hash_map::Entry;
        match self.documents.entry((table.name, key.clone())) {
            Entry::Occupied(entry) => Ok(entry.into_mut()),
            Entry::Vacant(entry) => {
                let now = if self.state.id == 0 {
                    None
                } else {
                    self.view.document(self.state.id, table, key)?
                };
                Ok(entry.insert(Draught {
                    table,
                    was: now.as_ref().map(|document| document.stamps),
                    now,
                    changed: false,
                }))
            }
        }
    }

    /// Counts, or tells which increments may not be.
    fn count(&mut self, commit: &Commit, conflict: &mut Conflict) -> Result<Vec<u64>, Fault> {
        let mut results = Vec::with_capacity(commit.increment.len());
        for (index, increment) in commit.increment.iter().enumerate() {
            let (counts, name, max_names) = match &increment.counter {
                Counter::Partition(name) => (&mut self.state.counters, *name, None),
                Counter::Document { table, key, name } => {
                    let document = self.document(*table, key)?;
                    let Some(now) = &mut document.now else {
                        conflict.increment.push(index);
                        continue;
                    };
                    document.changed = true;
                    (&mut now.counts, &**name, increment.max_names)
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

    fn write(&mut self, write: &Write, at: u64, first_seq: u64) -> Result<Written, Fault> {
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
                document.changed = true;
                let is_new = document.now.is_none();
                let number = if table.order == Order::Numbers {
                    next
                } else {
                    0
                };
                let now = document.now.get_or_insert_with(|| Document {
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
                now.version += 1;
                now.value = value.clone();
                match mark {
                    Mark::None => {}
                    Mark::Edited => now.stamps.edited_at = at,
                    Mark::Deleted => {
                        now.stamps.deleted_at = at;
                        now.counts.clear();
                    }
                }
                if let Some(event) = event {
                    now.stamps.seq = first_seq + *event as u64;
                }
                let written = Written {
                    version: now.version,
                    stamps: now.stamps,
                };
                if is_new && number != 0 {
                    self.state.head.number = number;
                }
                written
            }
            Write::Touch { table, key, event } => {
                let document = self.document(*table, key)?;
                let Some(now) = &mut document.now else {
                    return Ok(Written::default());
                };
                document.changed = true;
                now.stamps.seq = first_seq + *event as u64;
                Written {
                    version: now.version,
                    stamps: now.stamps,
                }
            }
            Write::Delete { table, key } => {
                let document = self.document(*table, key)?;
                if let Some(gone) = document.now.take() {
                    document.changed = true;
                    self.state.retired = retired.max(gone.version);
                }
                Written::default()
            }
        };
        Ok(written)
    }

    fn record(
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
            Body::Bytes(body, count) => Record {
                count: count.map(|index| outcome.counts[index]),
                body: body.clone(),
                ..record
            },
            Body::Written(index) => {
                let put = match &commit.write[*index] {
                    Write::Put { table, key, .. } => self
                        .documents
                        .get(&(table.name, key.clone()))
                        .and_then(|draught| draught.now.as_ref()),
                    Write::Touch { .. } | Write::Delete { .. } => None,
                };
                let put = put.expect("checked: a document is put there, and written only once");
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

    /// The events for the log, and what has to leave it.
    fn append(
        &mut self,
        commit: &Commit,
        at: u64,
        keep: Keep,
        disk: &Disk,
        changes: &mut Changes,
    ) -> Result<(), Fault> {
        if commit.append.is_empty() {
            return Ok(());
        }
        let State {
            id, head, weight, ..
        } = &mut self.state;
        let (first, old_floor) = (head.seq + 1, head.floor.seq);
        head.seq += commit.append.len() as u64;
        head.at = at;
        *weight += commit
            .append
            .iter()
            .map(|append| POSITION + append.reference.len() as u64)
            .sum::<u64>();

        let exceeds = |floor: u64, weight: u64| {
            keep.events != 0 && head.seq - floor > keep.events
                || keep.bytes != 0 && weight > keep.bytes
        };
        let mut old = None;
        for _ in 0..TRIM + commit.append.len() {
            let seq = head.floor.seq + 1;
            if seq == head.seq || !exceeds(head.floor.seq, *weight) {
                break;
            }
            if seq >= first {
                *weight -= POSITION + commit.append[(seq - first) as usize].reference.len() as u64;
                head.floor = Position { seq, at };
                continue;
            }
            if old.is_none() {
                old = Some(self.view.events(*id, seq)?);
            }
            let Some(entry) = old.as_mut().and_then(Iterator::next).transpose()? else {
                break;
            };
            *weight = weight.saturating_sub(POSITION + entry.reference.len() as u64);
            head.floor = entry.position;
        }
        for seq in old_floor + 1..first.min(head.floor.seq + 1) {
            changes.delete(disk.entries, layout::by_seq(*id, seq));
        }
        for (seq, append) in (first..).zip(&commit.append) {
            if seq > head.floor.seq {
                changes.put(
                    disk.entries,
                    layout::by_seq(*id, seq),
                    layout::encode_event(at, append.kind, &append.reference),
                );
            }
        }
        Ok(())
    }

    /// The documents and the state.
    fn finish(
        mut self,
        partition: &Partition,
        commit: &Commit,
        at: u64,
        disk: &Disk,
        changes: &mut Changes,
    ) {
        let id = self.state.id;
        for (
            (_, key),
            Draught {
                table, was, now, ..
            },
        ) in self
            .documents
            .into_iter()
            .filter(|(_, draught)| draught.changed)
        {
            let by_key = layout::by_key(id, table, &key);
            match (now, table.order) {
                (Some(now), Order::Numbers) => {
                    let Stamps { number, seq, .. } = now.stamps;
                    match was {
                        None => changes.put(disk.entries, by_key, number.to_be_bytes()),
                        Some(was) if was.seq != seq => {
                            changes.delete(disk.entries, layout::by_change(id, was.seq, number))
                        }
                        Some(_) => {}
                    }
                    if was.is_none_or(|was| was.seq != seq) {
                        changes.put(disk.entries, layout::by_change(id, seq, number), []);
                    }
                    changes.put(
                        disk.entries,
                        layout::by_number(id, number),
                        layout::encode_document(&now),
                    );
                }
                (Some(now), _) => changes.put(disk.entries, by_key, layout::encode_document(&now)),
                (None, _) => changes.delete(disk.entries, by_key),
            }
        }
        self.state.at = at;
        if let Some(after) = commit.expire {
            if self.state.expires != 0 {
                changes.delete(disk.expiries, layout::by_expiry(self.state.expires, id));
            }
            self.state.expires = at
                .saturating_add(u64::try_from(after.as_millis()).unwrap_or(u64::MAX))
                .max(1);
            changes.put(
                disk.expiries,
                layout::by_expiry(self.state.expires, id),
                partition.name(),
            );
        }
        changes.put(disk.partitions, partition.name(), self.state.encode());
    }
}

/// Counters as a MessagePack map.
fn encode_counts(counts: &[(String, u64)]) -> Bytes {
    const INFALLIBLE: &str = "memory takes every byte";
    let mut out = BytesMut::new().writer();
    let length = u32::try_from(counts.len()).expect("counters are bounded by `max_names`");
    rmp::encode::write_map_len(&mut out, length).expect(INFALLIBLE);
    for (name, count) in counts {
        rmp::encode::write_str(&mut out, name).expect(INFALLIBLE);
        rmp::encode::write_uint(&mut out, *count).expect(INFALLIBLE);
    }
    out.into_inner().freeze()
}
