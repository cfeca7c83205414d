//! [`Transfer`] for the embedded store.
//! A load allocates a partition number, records it in `meta`, and writes its entries under that
//! number. The last piece writes the partition's name. Readers do not find the partition before
//! that.

use std::ops::Bound;

use async_trait::async_trait;

use super::{
    Embedded,
    fault::Fault,
    layout::{self, LayoutState, Space},
    plan::{self, Changes, Plan},
    tree::Tree,
    trees::Trees,
    validate,
    view::{View, ViewLimit},
    writer::WriteRequest,
};
use crate::{
    Document, Order, Partition, StoreError, Table,
    transfer::{Exists, Loaded, Outline, PartitionPiece, Transfer, TransferCursor},
};

/// Maximum number of partition names per call.
const NAMES_PER_CALL: usize = 1_000;

/// Prefix of keys in `meta` that map the name of a partly loaded partition to its number.
pub(super) const LOAD_PREFIX: &str = "load:";

fn load_key(name: &str) -> Vec<u8> {
    [LOAD_PREFIX, name].concat().into_bytes()
}

/// Returns a plan that loads a piece.
pub(super) fn load(
    trees: Trees<'_>,
    now: u64,
    partition: &Partition,
    piece: &PartitionPiece,
) -> Result<Result<Plan, Exists>, Fault> {
    validate::piece(partition, piece)?;
    let view = View::new(trees, now);
    let name = partition.name();
    let mut changes = Changes::default();
    match view.stored(partition)? {
        Some(state) if view.has_expired(&state) => {
            plan::drop_partition(&mut changes, partition, &state)
        }
        Some(_) => return Ok(Err(Exists)),
        None => {}
    }
    let started = trees
        .get(Tree::Meta, &load_key(name))?
        .map(layout::last_u64)
        .transpose()?;
    let id = match started {
        Some(id) => id,
        None => changes.allocate_partition(&trees)?,
    };
    for (table, document) in &piece.documents {
        changes.document(id, *table, document);
    }
    for entry in &piece.entries {
        let event = layout::encode_event(entry.position.at, entry.kind, &entry.reference);
        changes.put(Tree::Entries, layout::by_seq(id, entry.position.seq), event);
    }
    match &piece.outline {
        Some(outline) => {
            let expires = outline.expires.unwrap_or(0);
            let Outline {
                head,
                last_commit_at: at,
                retired,
                log_bytes,
                ..
            } = *outline;
            let state = LayoutState {
                id,
                head,
                at,
                expires,
                log_bytes,
                retired,
                counters: outline.counters.clone(),
            };
            changes.put(Tree::Partitions, name, state.encode());
            if expires != 0 {
                changes.put(Tree::Expiries, layout::by_expiry(expires, id), name);
            }
            changes.delete(Tree::Meta, load_key(name));
        }
        None if started.is_none() => changes.put(Tree::Meta, load_key(name), id.to_be_bytes()),
        None => {}
    }
    Ok(Ok(Plan::of(changes)))
}

/// Returns a plan that drops up to `limit` partitions, complete or partly loaded, whose names start
/// with `prefix`, and their number. Sweeps remove their entries later.
pub(super) fn remove_partitions(
    trees: Trees<'_>,
    prefix: &str,
    limit: usize,
) -> Result<(Plan, usize), Fault> {
    let mut changes = Changes::default();
    let mut found = 0;
    for entry in trees
        .prefix(Tree::Partitions, prefix.as_bytes())?
        .take(limit)
    {
        let (name, state) = entry?;
        changes.delete(Tree::Partitions, name);
        plan::drop_entries(&mut changes, &LayoutState::decode(state)?);
        found += 1;
    }
    for entry in trees
        .prefix(Tree::Meta, &load_key(prefix))?
        .take(limit - found)
    {
        let (key, id) = entry?;
        changes.delete(Tree::Meta, key);
        changes.put(Tree::Dropped, id, []);
        found += 1;
    }
    Ok((Plan::of(changes), found))
}

impl View<'_> {
    fn outline(&self, partition: &Partition) -> Result<Option<Outline>, Fault> {
        let Some(LayoutState {
            id,
            head,
            at,
            expires,
            log_bytes,
            retired,
            counters,
        }) = self.state(partition)?
        else {
            return Ok(None);
        };
        // A purge removes the lowest numbers first, and there are no other holes.
        let purged = self
            .lowest_number(id)?
            .map_or(head.number, |lowest| lowest - 1);
        let expires = Some(expires).filter(|expires| *expires != 0);
        Ok(Some(Outline {
            head,
            counters,
            last_commit_at: at,
            retired,
            purged,
            log_bytes,
            expires,
        }))
    }

    fn lowest_number(&self, partition: u64) -> Result<Option<u64>, Fault> {
        let prefix = layout::space(partition, Space::Numbered);
        let lowest = self
            .trees
            .prefix(Tree::Entries, &prefix)?
            .next()
            .transpose()?;
        Ok(lowest.map(|(key, _)| layout::last_u64(key)).transpose()?)
    }

    fn names(
        &self,
        prefix: &str,
        from: Option<&TransferCursor>,
    ) -> Result<(Vec<Partition>, Option<TransferCursor>), Fault> {
        let start = from.map_or(
            Bound::Included(prefix.as_bytes()),
            |TransferCursor(last)| Bound::Excluded(last.as_bytes()),
        );
        let mut names = Vec::new();
        for entry in self
            .trees
            .range(Tree::Partitions, start, Bound::Unbounded)?
        {
            let (name, state) = entry?;
            if !name.starts_with(prefix.as_bytes()) {
                break;
            }
            if names.len() == NAMES_PER_CALL {
                let last = names
                    .last()
                    .map(|last: &Partition| TransferCursor(last.name().to_owned()));
                return Ok((names, last));
            }
            if !self.has_expired(&LayoutState::decode(state)?) {
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
        from: Option<&TransferCursor>,
        limit: usize,
    ) -> Result<Vec<Document>, Fault> {
        if table.order == Order::Numbers {
            return Err(Fault::Malformed("numbered tables are read by number"));
        }
        let Some(LayoutState { id, .. }) = self.state(partition)? else {
            return Ok(Vec::new());
        };
        let prefix = layout::table(id, table);
        let start = from.map(|TransferCursor(last)| layout::by_key(id, table, last));
        let start = start
            .as_ref()
            .map_or(Bound::Included(&prefix[..]), |start| {
                Bound::Excluded(&start[..])
            });
        let limit = ViewLimit {
            documents: limit,
            bytes: usize::MAX,
        };
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
        from: Option<TransferCursor>,
    ) -> Result<(Vec<Partition>, Option<TransferCursor>), StoreError> {
        let prefix = prefix.to_owned();
        self.reads
            .view(NAMES_PER_CALL, move |view| {
                view.names(&prefix, from.as_ref())
            })
            .await
    }

    async fn outline(&self, partition: &Partition) -> Result<Option<Outline>, StoreError> {
        let partition = partition.clone();
        self.reads
            .view(1, move |view| view.outline(&partition))
            .await
    }

    async fn scan(
        &self,
        partition: &Partition,
        table: Table,
        from: Option<TransferCursor>,
        limit: usize,
    ) -> Result<(Vec<Document>, Option<TransferCursor>), StoreError> {
        let partition = partition.clone();
        let documents = self
            .reads
            .view(limit, move |view| {
                view.scan(&partition, table, from.as_ref(), limit)
            })
            .await?;
        let next = documents
            .last()
            .filter(|_| documents.len() == limit)
            .map(|last| TransferCursor(last.key.to_string()));
        Ok((documents, next))
    }

    async fn load(&self, partition: &Partition, piece: PartitionPiece) -> Loaded {
        self.ask(|answer| WriteRequest::Load {
            partition: partition.clone(),
            piece,
            answer,
        })
        .await
    }

    async fn remove_partitions(
        &self,
        prefix: &str,
        _: Option<TransferCursor>,
    ) -> Result<Option<TransferCursor>, StoreError> {
        let more = self
            .ask(|answer| WriteRequest::RemovePartitions {
                prefix: prefix.to_owned(),
                answer,
            })
            .await?;
        Ok(more.then(TransferCursor::default))
    }
}
