//! Partitions, out of the folder and into it.
//!
//! A load takes a number as every new partition does, and puts its entries under that; the number alone is noted in `meta`.
//! Only the last piece gives the partition its name, so that until then nobody finds anything.

use std::ops::Bound;

use async_trait::async_trait;
use heed::RoTxn;

use super::{
    Embedded,
    disk::Disk,
    layout::{self, Space, State},
    plan::{self, Changes, Plan},
    sound,
    view::{Fault, View},
    writer::Request,
};
use crate::store::{
    Document, Order, Partition, StoreError, Table,
    transfer::{Cursor, Exists, Loaded, Outline, Piece, Transfer},
};

/// How many names one step of a walk answers.
const NAMES: usize = 1_000;

/// Where the notes of loads that have begun stand in `meta`, beside the format and the next number: behind this the partition's name.
pub(super) const LOADS: &str = "load:";

fn note(name: &str) -> Vec<u8> {
    [LOADS, name].concat().into_bytes()
}

/// Decides on a piece, which ends with the partition being there or does not.
pub(super) fn load(
    disk: &Disk,
    txn: &RoTxn,
    now: u64,
    partition: &Partition,
    piece: &Piece,
) -> Result<Result<Plan, Exists>, Fault> {
    sound::piece(partition, piece)?;
    let view = View::new(disk, txn, now);
    let name = partition.name();
    let mut changes = Changes::default();
    match view.kept(partition)? {
        Some(state) if view.has_expired(&state) => {
            plan::drop_partition(disk, &mut changes, partition, &state)
        }
        Some(_) => return Ok(Err(Exists)),
        None => {}
    }
    let begun = disk
        .meta
        .get(txn, &note(name))?
        .map(layout::last_u64)
        .transpose()?;
    let id = match begun {
        Some(id) => id,
        None => changes.number(disk, txn)?,
    };
    for (table, document) in &piece.documents {
        changes.document(disk, id, *table, document);
    }
    for entry in &piece.entries {
        let event = layout::encode_event(entry.position.at, entry.kind, &entry.reference);
        changes.put(disk.entries, layout::by_seq(id, entry.position.seq), event);
    }
    match &piece.outline {
        Some(outline) => {
            let expires = outline.expires.unwrap_or(0);
            let Outline {
                head,
                touched: at,
                retired,
                weight,
                ..
            } = *outline;
            let state = State {
                id,
                head,
                at,
                expires,
                weight,
                retired,
                counters: outline.counters.clone(),
            };
            changes.put(disk.partitions, name, state.encode());
            if expires != 0 {
                changes.put(disk.expiries, layout::by_expiry(expires, id), name);
            }
            changes.delete(disk.meta, note(name));
        }
        None if begun.is_none() => changes.put(disk.meta, note(name), id.to_be_bytes()),
        None => {}
    }
    Ok(Ok(Plan::of(changes)))
}

/// Takes away up to `limit` partitions and loads whose names begin so, and says how many it found. Their entries go by and by.
pub(super) fn wipe(
    disk: &Disk,
    txn: &RoTxn,
    prefix: &str,
    limit: usize,
) -> Result<(Plan, usize), Fault> {
    let mut changes = Changes::default();
    let mut found = 0;
    for entry in disk
        .partitions
        .prefix_iter(txn, prefix.as_bytes())?
        .take(limit)
    {
        let (name, state) = entry?;
        changes.delete(disk.partitions, name);
        plan::drop_entries(disk, &mut changes, &State::decode(state)?);
        found += 1;
    }
    for entry in disk
        .meta
        .prefix_iter(txn, &note(prefix))?
        .take(limit - found)
    {
        let (note, id) = entry?;
        changes.delete(disk.meta, note);
        changes.put(disk.dropped, id, []);
        found += 1;
    }
    Ok((Plan::of(changes), found))
}

impl View<'_> {
    fn outline(&self, partition: &Partition) -> Result<Option<Outline>, Fault> {
        let Some(State {
            id,
            head,
            at,
            expires,
            weight,
            retired,
            counters,
        }) = self.state(partition)?
        else {
            return Ok(None);
        };
        // Purging takes the lowest numbers first, and numbers have no holes otherwise.
        let purged = self.lowest(id)?.map_or(head.number, |lowest| lowest - 1);
        let expires = Some(expires).filter(|expires| *expires != 0);
        Ok(Some(Outline {
            head,
            counters,
            touched: at,
            retired,
            purged,
            weight,
            expires,
        }))
    }

    fn lowest(&self, partition: u64) -> Result<Option<u64>, Fault> {
        let prefix = layout::space(partition, Space::Numbered);
        let lowest = self
            .disk
            .entries
            .prefix_iter(self.txn, &prefix)?
            .next()
            .transpose()?;
        Ok(lowest.map(|(key, _)| layout::last_u64(key)).transpose()?)
    }

    fn names(
        &self,
        prefix: &str,
        from: Option<&Cursor>,
    ) -> Result<(Vec<Partition>, Option<Cursor>), Fault> {
        let start = from.map_or(Bound::Included(prefix.as_bytes()), |Cursor(last)| {
            Bound::Excluded(last.as_bytes())
        });
        let mut names = Vec::new();
        for entry in self
            .disk
            .partitions
            .range(self.txn, &(start, Bound::Unbounded))?
        {
            let (name, state) = entry?;
            if !name.starts_with(prefix.as_bytes()) {
                break;
            }
            if names.len() == NAMES {
                let last = names
                    .last()
                    .map(|last: &Partition| Cursor(last.name().to_owned()));
                return Ok((names, last));
            }
            if !self.has_expired(&State::decode(state)?) {
                names.push(Partition::new(
                    std::str::from_utf8(name).map_err(|_| layout::Unreadable)?,
                ));
            }
        }
        Ok((names, None))
    }

    fn scan(
        &self,
        partition: &Partition,
        table: Table,
        from: Option<&Cursor>,
        limit: usize,
    ) -> Result<Vec<Document>, Fault> {
        if table.order == Order::Numbers {
            return Err(Fault::Malformed("a numbered table is read by its numbers"));
        }
        let Some(State { id, .. }) = self.state(partition)? else {
            return Ok(Vec::new());
        };
        let prefix = layout::table(id, table);
        let start = from.map(|Cursor(last)| layout::by_key(id, table, last));
        let start = start
            .as_ref()
            .map_or(Bound::Included(&prefix[..]), |start| {
                Bound::Excluded(&start[..])
            });
        Ok(self
            .ascending(start, &prefix, limit, |_, bytes| {
                Ok(Some(layout::decode_document(bytes)?))
            })?
            .documents)
    }
}

#[async_trait]
impl Transfer for Embedded {
    async fn partitions(
        &self,
        prefix: &str,
        from: Option<Cursor>,
    ) -> Result<(Vec<Partition>, Option<Cursor>), StoreError> {
        self.view(|view| view.names(prefix, from.as_ref()))
    }

    async fn outline(&self, partition: &Partition) -> Result<Option<Outline>, StoreError> {
        self.view(|view| view.outline(partition))
    }

    async fn scan(
        &self,
        partition: &Partition,
        table: Table,
        from: Option<Cursor>,
        limit: usize,
    ) -> Result<(Vec<Document>, Option<Cursor>), StoreError> {
        let documents = self.view(|view| view.scan(partition, table, from.as_ref(), limit))?;
        let next = documents
            .last()
            .filter(|_| documents.len() == limit)
            .map(|last| Cursor(last.key.to_string()));
        Ok((documents, next))
    }

    async fn load(&self, partition: &Partition, piece: Piece) -> Loaded {
        self.ask(|answer| Request::Load {
            partition: partition.clone(),
            piece,
            answer,
        })
        .await
    }

    async fn wipe(&self, prefix: &str, _: Option<Cursor>) -> Result<Option<Cursor>, StoreError> {
        let more = self
            .ask(|answer| Request::Wipe {
                prefix: prefix.to_owned(),
                answer,
            })
            .await?;
        Ok(more.then(Cursor::default))
    }
}
