//! Changes of stored entries.

use heed::{RoTxn, RwTxn};

use super::super::{
    disk::{Disk, Tree},
    layout,
    view::Fault,
};
use crate::{Document, Order, Stamps, Table};

/// Key in the `meta` tree of the number for the next partition.
pub(in super::super) const NEXT_PARTITION: &[u8] = b"next";

/// Entries to put and to delete, in order.
#[derive(Debug, Default)]
pub(in super::super) struct Changes(Vec<(Tree, Vec<u8>, Option<Vec<u8>>)>);

impl Changes {
    pub(in super::super) fn put(
        &mut self,
        tree: Tree,
        key: impl Into<Vec<u8>>,
        value: impl Into<Vec<u8>>,
    ) {
        self.0.push((tree, key.into(), Some(value.into())));
    }

    pub(in super::super) fn delete(&mut self, tree: Tree, key: impl Into<Vec<u8>>) {
        self.0.push((tree, key.into(), None));
    }

    /// Allocates the number of a new partition.
    pub(in super::super) fn allocate_partition(
        &mut self,
        disk: &Disk,
        txn: &RoTxn,
    ) -> Result<u64, Fault> {
        let number = disk
            .meta
            .get(txn, NEXT_PARTITION)?
            .map_or(Ok(1), layout::last_u64)?;
        self.put(disk.meta, NEXT_PARTITION, (number + 1).to_be_bytes());
        Ok(number)
    }

    /// Puts a document and its index entries.
    pub(in super::super) fn document(
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

    /// Applies the changes to a transaction.
    pub(in super::super) fn write(&self, txn: &mut RwTxn) -> heed::Result<()> {
        for (tree, key, value) in &self.0 {
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
