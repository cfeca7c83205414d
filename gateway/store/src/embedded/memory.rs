//! Entries that the journal has and LMDB may lack. Copies are cheap and do not change.

use std::ops::Bound;

use bytes::Bytes;
use imbl::OrdMap;

use super::tree::Tree;

/// An entry in memory: a value, or `None` for a deletion.
pub(super) type Entry<'m> = Option<&'m [u8]>;

/// Bytes that an entry takes in addition to its key and value: about two handles and its share of
/// the nodes.
const ENTRY_OVERHEAD: usize = 160;

/// Changes of all trees since an instant.
#[derive(Debug, Clone, Default)]
pub(super) struct Layer {
    trees: [OrdMap<Bytes, Option<Bytes>>; 5],
    bytes: usize,
}

impl Layer {
    /// Bytes in memory, approximately.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Puts a value, or deletes it.
    pub(super) fn apply(&mut self, tree: Tree, key: Bytes, value: Option<Bytes>) {
        let size = |key: usize, value: &Option<Bytes>| {
            ENTRY_OVERHEAD + key + value.as_ref().map_or(0, Bytes::len)
        };
        let length = key.len();
        self.bytes += size(length, &value);
        if let Some(before) = self.trees[tree as usize].insert(key, value) {
            self.bytes -= size(length, &before);
        }
    }

    /// Iterates over all changes of a tree in the order of their keys.
    pub(super) fn iter(&self, tree: Tree) -> impl Iterator<Item = (&[u8], Entry<'_>)> {
        self.trees[tree as usize]
            .iter()
            .map(|(key, value)| (&key[..], value.as_deref()))
    }

    fn get(&self, tree: Tree, key: &[u8]) -> Option<Entry<'_>> {
        self.trees[tree as usize].get(key).map(Option::as_deref)
    }

    fn range<'m>(
        &'m self,
        tree: Tree,
        start: Bound<&[u8]>,
        end: Bound<&[u8]>,
    ) -> impl DoubleEndedIterator<Item = (&'m [u8], Entry<'m>)> + use<'m> {
        self.trees[tree as usize]
            .range::<_, [u8]>((start, end))
            .map(|(key, value)| (&key[..], value.as_deref()))
    }
}

/// What LMDB may lack: the changes that a checkpoint is writing, and those after it.
#[derive(Debug, Clone, Default)]
pub(super) struct Memory {
    /// Changes since the begin of the last checkpoint.
    pub(super) active: Layer,
    /// Changes that the running checkpoint writes; empty if none is running.
    pub(super) frozen: Layer,
}

impl Memory {
    /// Returns the newest change of a key; `None` if there is none.
    pub(super) fn get(&self, tree: Tree, key: &[u8]) -> Option<Entry<'_>> {
        self.active
            .get(tree, key)
            .or_else(|| self.frozen.get(tree, key))
    }

    /// Iterates over the changes of a range: the active and the frozen ones.
    pub(super) fn range<'m>(
        &'m self,
        tree: Tree,
        start: Bound<&[u8]>,
        end: Bound<&[u8]>,
    ) -> [impl DoubleEndedIterator<Item = (&'m [u8], Entry<'m>)> + use<'m>; 2] {
        [
            self.active.range(tree, start, end),
            self.frozen.range(tree, start, end),
        ]
    }

    /// Bytes that are not in LMDB yet, approximately.
    pub(super) fn bytes(&self) -> usize {
        self.active.bytes + self.frozen.bytes
    }
}
