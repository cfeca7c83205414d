//! The trees of a store at one instant: what LMDB holds, and above it what is only in the journal
//! and in memory.

use std::{cmp::Ordering, ops::Bound};

use heed::{Database, RoTxn, types};

use super::{
    checksum,
    fault::Fault,
    memory::{Entry, Memory},
    tree::Tree,
};

/// An LMDB tree with byte strings as keys and values.
pub(super) type TreeDatabase = Database<types::Bytes, types::Bytes>;

/// A key and its value.
pub(super) type KeyValue<'t> = (&'t [u8], &'t [u8]);

/// Whether the values in LMDB have checksums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sealing {
    /// They have.
    Sealed,
    /// They have none: a store of an older format.
    Unsealed,
}

impl Sealing {
    fn open<'t>(self, tree: Tree, key: &[u8], stored: &'t [u8]) -> Result<&'t [u8], Fault> {
        match self {
            Self::Sealed => checksum::verified(tree, key, stored),
            Self::Unsealed => Ok(stored),
        }
    }
}

/// The trees at one instant. Entries in memory hide those of LMDB.
#[derive(Clone, Copy)]
pub(super) struct Trees<'t> {
    databases: &'t [TreeDatabase; 5],
    txn: &'t RoTxn<'t>,
    memory: &'t Memory,
    sealing: Sealing,
}

impl<'t> Trees<'t> {
    pub(super) fn new(
        databases: &'t [TreeDatabase; 5],
        txn: &'t RoTxn<'t>,
        memory: &'t Memory,
        sealing: Sealing,
    ) -> Self {
        Self {
            databases,
            txn,
            memory,
            sealing,
        }
    }

    /// Number of LMDB's commit that is read.
    #[cfg(test)]
    pub(super) fn commit(&self) -> u64 {
        self.txn.id() as u64
    }

    /// Returns the value of a key.
    pub(super) fn get(&self, tree: Tree, key: &[u8]) -> Result<Option<&'t [u8]>, Fault> {
        if let Some(entry) = self.memory.get(tree, key) {
            return Ok(entry);
        }
        let database = self.databases[tree as usize];
        let Some(stored) = database.get(self.txn, key)? else {
            self.verify_neighbours(tree, key)?;
            return Ok(None);
        };
        self.sealing.open(tree, key, stored).map(Some)
    }

    /// Verifies the entries before and after the place of a key that is not there: a damaged key
    /// lies beside the place of the one that it was, unless the order of the keys shows the damage.
    /// Not among the documents and events, where absent keys are frequent, and where it would be one
    /// record that is missing: an absent partition would be created anew, without its content.
    fn verify_neighbours(&self, tree: Tree, key: &[u8]) -> Result<(), Fault> {
        if tree == Tree::Entries {
            return Ok(());
        }
        let database = self.databases[tree as usize];
        let before = database.get_lower_than(self.txn, key)?;
        let after = database.get_greater_than(self.txn, key)?;
        for (key, stored) in before.into_iter().chain(after) {
            self.sealing.open(tree, key, stored)?;
        }
        Ok(())
    }

    /// Iterates over a range in ascending order.
    pub(super) fn range(
        &self,
        tree: Tree,
        start: Bound<&[u8]>,
        end: Bound<&[u8]>,
    ) -> Result<Merged<'t>, Fault> {
        let stored = self.databases[tree as usize].range(self.txn, &(start, end))?;
        let sealing = self.sealing;
        let stored = stored.map(move |entry| verified(sealing, tree, entry));
        let [active, frozen] = self.memory.range(tree, start, end);
        Ok(Merged::new(
            Ordering::Less,
            [
                Source::memory(active),
                Source::memory(frozen),
                Source(Box::new(stored), None),
            ],
        ))
    }

    /// Iterates over a range in descending order.
    pub(super) fn rev_range(
        &self,
        tree: Tree,
        start: Bound<&[u8]>,
        end: Bound<&[u8]>,
    ) -> Result<Merged<'t>, Fault> {
        let stored = self.databases[tree as usize].rev_range(self.txn, &(start, end))?;
        let sealing = self.sealing;
        let stored = stored.map(move |entry| verified(sealing, tree, entry));
        let [active, frozen] = self.memory.range(tree, start, end);
        Ok(Merged::new(
            Ordering::Greater,
            [
                Source::memory(active.rev()),
                Source::memory(frozen.rev()),
                Source(Box::new(stored), None),
            ],
        ))
    }

    /// Iterates over all entries of a tree.
    pub(super) fn iter(&self, tree: Tree) -> Result<Merged<'t>, Fault> {
        self.range(tree, Bound::Unbounded, Bound::Unbounded)
    }

    /// Iterates over the entries whose keys begin with `prefix`.
    pub(super) fn prefix(
        &self,
        tree: Tree,
        prefix: &[u8],
    ) -> Result<impl Iterator<Item = Result<KeyValue<'t>, Fault>> + 't, Fault> {
        let prefix = prefix.to_vec();
        let range = self.range(tree, Bound::Included(&prefix), Bound::Unbounded)?;
        Ok(range.take_while(move |entry| {
            entry
                .as_ref()
                .map_or(true, |(key, _)| key.starts_with(&prefix))
        }))
    }

    /// Returns the first entry of a tree.
    pub(super) fn first(&self, tree: Tree) -> Result<Option<KeyValue<'t>>, Fault> {
        self.iter(tree)?.next().transpose()
    }
}

fn verified<'t>(
    sealing: Sealing,
    tree: Tree,
    entry: heed::Result<KeyValue<'t>>,
) -> Result<(&'t [u8], Entry<'t>), Fault> {
    let (key, stored) = entry?;
    Ok((key, Some(sealing.open(tree, key, stored)?)))
}

type SourceItem<'t> = Result<(&'t [u8], Entry<'t>), Fault>;

/// An ordered source of entries, and its next entry if that was read already.
struct Source<'t>(
    Box<dyn Iterator<Item = SourceItem<'t>> + 't>,
    Option<(&'t [u8], Entry<'t>)>,
);

impl<'t> Source<'t> {
    fn memory(entries: impl Iterator<Item = (&'t [u8], Entry<'t>)> + 't) -> Self {
        Self(Box::new(entries.map(Ok)), None)
    }

    /// Reads the next entry if none is waiting.
    fn fill(&mut self) -> Result<(), Fault> {
        if self.1.is_none() {
            self.1 = self.0.next().transpose()?;
        }
        Ok(())
    }
}

/// The entries of several sources in order. Of entries with the same key, the one of the first
/// source counts.
pub(super) struct Merged<'t> {
    sources: [Source<'t>; 3],
    /// Order of two keys that follow each other.
    order: Ordering,
    has_failed: bool,
}

impl<'t> Merged<'t> {
    fn new(order: Ordering, sources: [Source<'t>; 3]) -> Self {
        Self {
            sources,
            order,
            has_failed: false,
        }
    }

    fn advance(&mut self) -> SourceOption<'t> {
        loop {
            let mut best: Option<(&'t [u8], Entry<'t>)> = None;
            for source in &mut self.sources {
                source.fill()?;
                if let Some((key, entry)) = source.1
                    && best.is_none_or(|(best, _)| key.cmp(best) == self.order)
                {
                    best = Some((key, entry));
                }
            }
            let Some((key, entry)) = best else {
                return Ok(None);
            };
            for source in &mut self.sources {
                source.1.take_if(|(other, _)| *other == key);
            }
            if let Some(value) = entry {
                return Ok(Some((key, value)));
            }
        }
    }
}

type SourceOption<'t> = Result<Option<KeyValue<'t>>, Fault>;

impl<'t> Iterator for Merged<'t> {
    type Item = Result<KeyValue<'t>, Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.has_failed {
            return None;
        }
        let next = self.advance();
        // A damaged record does not hide those after it.
        self.has_failed = matches!(next, Err(Fault::Storage(_)));
        next.transpose()
    }
}
