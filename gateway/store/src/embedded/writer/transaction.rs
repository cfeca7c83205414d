//! The transaction of a group of requests.

use std::sync::Arc;

use heed::RwTxn;

use super::{
    super::{
        Clock,
        disk::Disk,
        layout::{self, Space},
        plan::{self, Plan},
        transfer, validate,
        view::{Fault, View},
    },
    request::WriteRequest,
};
use crate::{
    Commit, Conflict, Keep, Order, Partition, Purged, Require, StoreError, Table,
    transfer::{Exists, Loaded, PartitionPiece},
};

/// Maximum number of partitions that a request removes in one transaction.
const PARTITIONS_PER_REMOVAL: usize = 1_000;

/// Result of a request, sent once the transaction is committed.
pub(super) enum Response {
    Commit(Result<Result<Plan, Conflict>, StoreError>),
    Purge(Purged),
    Load(Loaded),
    Wipe(Result<bool, StoreError>),
}

/// Applies groups of requests.
pub(super) struct Transactions {
    pub(super) disk: Arc<Disk>,
    /// Default retention of logs.
    pub(super) keep: Keep,
    pub(super) clock: Clock,
}

impl Transactions {
    /// Applies the requests in one transaction and syncs it to the disk.
    pub(super) fn apply(&self, group: &[WriteRequest]) -> heed::Result<Vec<Response>> {
        let mut txn = self.disk.write()?;
        let mut responses = Vec::with_capacity(group.len());
        for request in group {
            responses.push(match request {
                WriteRequest::Commit {
                    partition, commit, ..
                } => Response::Commit(isolate(self.commit(&mut txn, partition, commit))?),
                WriteRequest::Purge {
                    partition,
                    table,
                    require,
                    limit,
                    ..
                } => Response::Purge(isolate(self.purge(
                    &mut txn,
                    partition,
                    *table,
                    require.as_ref(),
                    *limit,
                ))?),
                WriteRequest::Load {
                    partition, piece, ..
                } => Response::Load(isolate(self.load(&mut txn, partition, piece))?),
                WriteRequest::RemovePartitions { prefix, .. } => {
                    Response::Wipe(isolate(self.remove_partitions(&mut txn, prefix))?)
                }
                WriteRequest::Probe { .. } | WriteRequest::Close => {
                    unreachable!("probes and closing are handled outside of transactions")
                }
            });
        }
        // Returns once the disk has synced.
        txn.commit()?;
        Ok(responses)
    }

    fn commit(
        &self,
        txn: &mut RwTxn,
        partition: &Partition,
        commit: &Commit,
    ) -> Result<Result<Plan, Conflict>, Fault> {
        let plan = plan::plan(
            &self.disk,
            txn,
            (self.clock)(),
            commit.keep.unwrap_or(self.keep),
            partition,
            commit,
        )?;
        if let Ok(plan) = &plan {
            plan.write(txn)?;
        }
        Ok(plan)
    }

    fn load(
        &self,
        txn: &mut RwTxn,
        partition: &Partition,
        piece: &PartitionPiece,
    ) -> Result<Result<(), Exists>, Fault> {
        let plan = transfer::load(&self.disk, txn, (self.clock)(), partition, piece)?;
        Ok(match plan {
            Ok(plan) => Ok(plan.write(txn)?),
            Err(exists) => Err(exists),
        })
    }

    /// Returns whether more is left to remove.
    fn remove_partitions(&self, txn: &mut RwTxn, prefix: &str) -> Result<bool, Fault> {
        let (plan, found) =
            transfer::remove_partitions(&self.disk, txn, prefix, PARTITIONS_PER_REMOVAL)?;
        plan.write(txn)?;
        Ok(found == PARTITIONS_PER_REMOVAL)
    }

    fn purge(
        &self,
        txn: &mut RwTxn,
        partition: &Partition,
        table: Table,
        require: Option<&Require>,
        limit: usize,
    ) -> Result<Result<bool, Conflict>, Fault> {
        validate::names(partition, require.map_or(&[], std::slice::from_ref))?;
        let Disk {
            entries,
            partitions,
            ..
        } = *self.disk;
        let view = View::new(&self.disk, txn, (self.clock)());
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
        let mut keys = Vec::new();
        let mut found = 0;
        for entry in entries.prefix_iter(txn, &prefix)?.take(limit) {
            let (key, bytes) = entry?;
            found += 1;
            let document = layout::decode_document(bytes)?;
            state.retired = state.retired.max(document.version);
            if table.order == Order::Numbers {
                keys.push(layout::by_key(id, table, &document.key));
                keys.push(layout::by_change(
                    id,
                    document.stamps.seq,
                    document.stamps.number,
                ));
            }
            keys.push(key.to_owned());
        }
        for key in keys {
            entries.delete(txn, &key)?;
        }
        if found > 0 {
            partitions.put(txn, partition.name().as_bytes(), &state.encode())?;
        }
        Ok(Ok(found < limit))
    }
}

/// Separates the failure of one request from a storage failure, which fails the whole transaction.
fn isolate<T>(result: Result<T, Fault>) -> heed::Result<Result<T, StoreError>> {
    match result {
        Ok(value) => Ok(Ok(value)),
        Err(Fault::Storage(error)) => Err(error),
        Err(fault) => Ok(Err(fault.into())),
    }
}
