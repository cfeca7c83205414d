//! The effects of a group of requests.

use super::{
    super::{
        Clock,
        disk::WriterReads,
        fault::Fault,
        journal::{GroupBuffer, Purpose},
        layout::{self, Space},
        memory::Memory,
        plan::{self, Changes, Plan},
        transfer,
        tree::Tree,
        validate,
        view::View,
    },
    request::WriteRequest,
};
use crate::{
    Commit, Conflict, Keep, Order, Partition, Purged, Require, Stamps, StoreError, Table,
    transfer::{Exists, Loaded, PartitionPiece},
};

/// Maximum number of partitions that a request removes.
const PARTITIONS_PER_REMOVAL: usize = 1_000;

/// Result of a request, sent once the group is durable.
pub(super) enum Response {
    Commit(Result<Result<Plan, Conflict>, StoreError>),
    Purge(Purged),
    Load(Loaded),
    RemovePartitions(Result<bool, StoreError>),
}

/// A group of requests: what their changes make of the memory, and what the journal keeps of them.
pub(super) struct GroupDraft {
    pub(super) memory: Memory,
    pub(super) journal: GroupBuffer,
    /// Whether all requests with changes remove something.
    pub(super) purpose: Purpose,
}

impl GroupDraft {
    pub(super) fn new(memory: Memory) -> Self {
        Self {
            memory,
            journal: GroupBuffer::new(),
            purpose: Purpose::Remove,
        }
    }

    /// Applies changes.
    pub(super) fn apply(&mut self, changes: Changes, purpose: Purpose) {
        if !changes.is_empty() && purpose == Purpose::Store {
            self.purpose = Purpose::Store;
        }
        changes.apply(self.journal.content(), &mut self.memory.active);
    }

    /// Applies large changes without effect, to test whether commits can be written.
    pub(super) fn apply_probe(&mut self) {
        let mut changes = Changes::default();
        changes.put(Tree::Meta, PROBE_KEY, vec![0; PROBE_BYTES]);
        changes.delete(Tree::Meta, PROBE_KEY);
        self.apply(changes, Purpose::Store);
    }
}

/// Key in `meta` that a probe puts and deletes.
const PROBE_KEY: &[u8] = b"probe";

/// Size of the value that a probe puts. Large, because a small commit may find room even on a full
/// disk.
const PROBE_BYTES: usize = 1 << 20;

/// Plans requests, each on what those before it have changed.
pub(super) struct Planner {
    /// Default retention of logs.
    pub(super) keep: Keep,
    pub(super) clock: Clock,
}

impl Planner {
    /// Applies a request to the draft. A storage failure fails the whole group.
    pub(super) fn apply(
        &self,
        reads: &WriterReads<'_>,
        draft: &mut GroupDraft,
        request: &WriteRequest,
    ) -> heed::Result<Response> {
        Ok(match request {
            WriteRequest::Commit {
                partition, commit, ..
            } => Response::Commit(isolate(self.commit(reads, draft, partition, commit))?),
            WriteRequest::Purge {
                partition,
                table,
                require,
                limit,
                ..
            } => {
                let purged = self.purge(reads, draft, partition, *table, require.as_ref(), *limit);
                Response::Purge(isolate(purged)?)
            }
            WriteRequest::Load {
                partition, piece, ..
            } => Response::Load(isolate(self.load(reads, draft, partition, piece))?),
            WriteRequest::RemovePartitions { prefix, .. } => {
                Response::RemovePartitions(isolate(Self::remove_partitions(reads, draft, prefix))?)
            }
            WriteRequest::Probe { .. } | WriteRequest::Close => {
                unreachable!("probes and closing are handled outside of groups")
            }
        })
    }

    fn commit(
        &self,
        reads: &WriterReads<'_>,
        draft: &mut GroupDraft,
        partition: &Partition,
        commit: &Commit,
    ) -> Result<Result<Plan, Conflict>, Fault> {
        let plan = plan::plan(
            reads.trees(&draft.memory),
            (self.clock)(),
            commit.keep.unwrap_or(self.keep),
            partition,
            commit,
        )?;
        Ok(plan.map(|mut plan| {
            let purpose = if commit.frees {
                Purpose::Remove
            } else {
                Purpose::Store
            };
            draft.apply(plan.take_changes(), purpose);
            plan
        }))
    }

    fn load(
        &self,
        reads: &WriterReads<'_>,
        draft: &mut GroupDraft,
        partition: &Partition,
        piece: &PartitionPiece,
    ) -> Result<Result<(), Exists>, Fault> {
        let trees = reads.trees(&draft.memory);
        let plan = transfer::load(trees, (self.clock)(), partition, piece)?;
        Ok(plan.map(|mut plan| draft.apply(plan.take_changes(), Purpose::Store)))
    }

    /// Returns whether more is left to remove.
    fn remove_partitions(
        reads: &WriterReads<'_>,
        draft: &mut GroupDraft,
        prefix: &str,
    ) -> Result<bool, Fault> {
        let trees = reads.trees(&draft.memory);
        let (mut plan, found) = transfer::remove_partitions(trees, prefix, PARTITIONS_PER_REMOVAL)?;
        draft.apply(plan.take_changes(), Purpose::Remove);
        Ok(found == PARTITIONS_PER_REMOVAL)
    }

    fn purge(
        &self,
        reads: &WriterReads<'_>,
        draft: &mut GroupDraft,
        partition: &Partition,
        table: Table,
        require: Option<&Require>,
        limit: usize,
    ) -> Result<Result<bool, Conflict>, Fault> {
        validate::names(partition, require.map_or(&[], std::slice::from_ref))?;
        let trees = reads.trees(&draft.memory);
        let view = View::new(trees, (self.clock)());
        let state = view.state(partition)?;
        if let Some(Require { table, key, is }) = require {
            let document = state
                .as_ref()
                .map(|state| view.document(state.id, *table, key))
                .transpose()?
                .flatten();
            if !plan::holds(*is, document.as_ref()) {
                return Ok(Err(Conflict {
                    require: vec![0],
                    ..Conflict::default()
                }));
            }
        }
        let Some(mut state) = state else {
            return Ok(Ok(true));
        };
        let id = state.id;
        let prefix = if table.order == Order::Numbers {
            layout::space(id, Space::Numbered)
        } else {
            layout::table(id, table)
        };
        let mut changes = Changes::default();
        let mut found = 0;
        for entry in trees.prefix(Tree::Entries, &prefix)?.take(limit) {
            let (key, bytes) = entry?;
            found += 1;
            let document = layout::decode_document(bytes)?;
            state.retired = state.retired.max(document.version);
            if table.order == Order::Numbers {
                let Stamps { seq, number, .. } = document.stamps;
                changes.delete(Tree::Entries, layout::by_key(id, table, &document.key));
                changes.delete(Tree::Entries, layout::by_change(id, seq, number));
            }
            changes.delete(Tree::Entries, key);
        }
        if found > 0 {
            changes.put(Tree::Partitions, partition.name(), state.encode());
        }
        draft.apply(changes, Purpose::Remove);
        Ok(Ok(found < limit))
    }
}

/// Separates the failure of one request from a storage failure, which fails the whole group.
fn isolate<T>(result: Result<T, Fault>) -> heed::Result<Result<T, StoreError>> {
    match result {
        Ok(value) => Ok(Ok(value)),
        Err(Fault::Storage(error)) => Err(error),
        Err(fault) => Ok(Err(fault.into())),
    }
}
