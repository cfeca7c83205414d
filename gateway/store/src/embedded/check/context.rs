//! The context of a check: the trees, the check of values, and the receiver of findings.

use super::super::{
    fault::Fault,
    layout::LayoutState,
    tree::Tree,
    trees::{KeyValue, Trees},
};
use crate::Document;

/// An inconsistency of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Description, a clause.
    pub what: String,
    /// The effect of a repair, as a predicate that starts with "would" or "could".
    pub repair: String,
}

/// The extent of a check.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CheckSummary {
    /// Length of the data file.
    pub bytes: u64,
    /// Number of partitions.
    pub partitions: u64,
    /// Number of documents.
    pub documents: u64,
    /// Number of events in all logs.
    pub events: u64,
    /// Pages that are neither in use nor free. They waste space and are otherwise harmless.
    pub lost_pages: u64,
    /// Whether records were not read because pages are damaged: LMDB trusts its pages, and could
    /// crash the process.
    pub only_pages: bool,
}

/// The domain's check of the values in a store. Gets all documents of a partition, then the
/// partition.
pub trait ValueCheck {
    /// Checks a document of the partition that [`partition`](Self::partition) gets next.
    fn document(&mut self, table: &str, document: &Document) -> Option<Finding>;
    /// Checks a partition after its documents.
    fn partition(&mut self, name: &str, counters: &[(String, u64)]) -> Option<Finding>;
}

/// A partition with its name.
pub(super) struct NamedPartition {
    pub(super) name: String,
    pub(super) state: LayoutState,
}

pub(super) struct Check<'a> {
    pub(super) trees: Trees<'a>,
    pub(super) values: &'a mut dyn ValueCheck,
    pub(super) report: &'a mut dyn FnMut(Finding),
    pub(super) summary: CheckSummary,
}

impl Check<'_> {
    pub(super) fn report(&mut self, what: impl Into<String>, repair: impl Into<String>) {
        (self.report)(Finding {
            what: what.into(),
            repair: repair.into(),
        });
    }

    /// Returns the value of a key in the tree of entries; `None` also if it is damaged, which is
    /// reported when the tree is read.
    pub(super) fn entry(&self, key: &[u8]) -> Result<Option<&[u8]>, Fault> {
        match self.trees.get(Tree::Entries, key) {
            Err(Fault::Damaged { .. }) => Ok(None),
            found => found,
        }
    }

    /// Returns an entry of a tree, or reports that it is damaged.
    pub(super) fn intact<'t>(
        &mut self,
        entry: Result<KeyValue<'t>, Fault>,
    ) -> Result<Option<KeyValue<'t>>, Fault> {
        match entry {
            Ok(entry) => Ok(Some(entry)),
            Err(fault @ Fault::Damaged { .. }) => {
                self.report(
                    fault.to_string(),
                    "could not tell what stood there: would bring back a backup",
                );
                Ok(None)
            }
            Err(fault) => Err(fault),
        }
    }
}

/// Splits the part of an entry's key after the space into the names of the table and the document.
pub(super) fn table_and_key(rest: &[u8]) -> Option<(&str, &str)> {
    let zero = rest.iter().position(|byte| *byte == 0)?;
    let (table, key) = (&rest[..zero], &rest[zero + 1..]);
    Some((
        std::str::from_utf8(table).ok()?,
        std::str::from_utf8(key).ok()?,
    ))
}

/// Formats a range of numbers.
pub(super) fn range(first: u64, last: u64) -> String {
    if first == last {
        first.to_string()
    } else {
        format!("{first} to {last}")
    }
}
