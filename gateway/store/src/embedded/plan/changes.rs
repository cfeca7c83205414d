//! Changes of stored entries, and their encoding in the journal.

use bytes::Bytes;

use super::super::{fault::Fault, layout, memory::Layer, tree::Tree, trees::Trees};
use crate::{Document, Order, Stamps, Table};

/// Key in the `meta` tree of the number for the next partition.
pub(in super::super) const NEXT_PARTITION: &[u8] = b"next";

/// Flag of a change's first byte, which otherwise is the number of its tree: the key is deleted.
const DELETION: u8 = 0x80;

/// Entries to put and to delete, in order.
#[derive(Debug, Default)]
pub(in super::super) struct Changes(Vec<(Tree, Bytes, Option<Bytes>)>);

impl Changes {
    pub(in super::super) fn put(
        &mut self,
        tree: Tree,
        key: impl Into<Vec<u8>>,
        value: impl Into<Vec<u8>>,
    ) {
        let (key, value): (Vec<u8>, Vec<u8>) = (key.into(), value.into());
        self.0.push((tree, key.into(), Some(value.into())));
    }

    pub(in super::super) fn delete(&mut self, tree: Tree, key: impl Into<Vec<u8>>) {
        self.0.push((tree, Bytes::from(key.into()), None));
    }

    pub(in super::super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Allocates the number of a new partition.
    pub(in super::super) fn allocate_partition(&mut self, trees: &Trees<'_>) -> Result<u64, Fault> {
        let number = trees
            .get(Tree::Meta, NEXT_PARTITION)?
            .map_or(Ok(1), layout::last_u64)?;
        self.put(Tree::Meta, NEXT_PARTITION, (number + 1).to_be_bytes());
        Ok(number)
    }

    /// Puts a document and its index entries.
    pub(in super::super) fn document(&mut self, partition: u64, table: Table, document: &Document) {
        let by_key = layout::by_key(partition, table, &document.key);
        let Stamps { number, seq, .. } = document.stamps;
        match table.order {
            Order::Numbers => {
                self.put(Tree::Entries, by_key, number.to_be_bytes());
                self.put(Tree::Entries, layout::by_change(partition, seq, number), []);
                self.put(
                    Tree::Entries,
                    layout::by_number(partition, number),
                    layout::encode_document(document),
                );
            }
            Order::None | Order::Keys => {
                self.put(Tree::Entries, by_key, layout::encode_document(document))
            }
        }
    }

    /// Appends the changes to a group of the journal, and applies them to a layer.
    pub(in super::super) fn apply(self, group: &mut Vec<u8>, layer: &mut Layer) {
        for (tree, key, value) in self.0 {
            group.push(tree as u8 | if value.is_none() { DELETION } else { 0 });
            put_bytes(group, &key);
            if let Some(value) = &value {
                put_bytes(group, value);
            }
            layer.apply(tree, key, value);
        }
    }
}

/// Applies a group of the journal to a layer.
///
/// # Errors
/// It is not the encoding of changes.
pub(in super::super) fn replay(group: Bytes, layer: &mut Layer) -> Result<(), layout::Unreadable> {
    let mut rest = group;
    while let Some(first) = rest.first().copied() {
        let tree = *Tree::ALL
            .get(usize::from(first & !DELETION))
            .ok_or(layout::Unreadable)?;
        rest = rest.slice(1..);
        let key = take_bytes(&mut rest)?;
        let value = if first & DELETION == 0 {
            Some(take_bytes(&mut rest)?)
        } else {
            None
        };
        layer.apply(tree, key, value);
    }
    Ok(())
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend((bytes.len() as u32).to_le_bytes());
    out.extend(bytes);
}

fn take_bytes(rest: &mut Bytes) -> Result<Bytes, layout::Unreadable> {
    let length = rest.first_chunk().ok_or(layout::Unreadable)?;
    let length = u32::from_le_bytes(*length) as usize;
    if rest.len() - 4 < length {
        return Err(layout::Unreadable);
    }
    let mut taken = rest.split_off(4);
    *rest = taken.split_off(length);
    Ok(taken)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn replayed_group_has_the_same_changes(
            changes in prop::collection::vec((0..5usize, any::<Vec<u8>>(), any::<Option<Vec<u8>>>()), 0..20),
        ) {
            let (mut group, mut applied, mut replayed) = (Vec::new(), Layer::default(), Layer::default());
            let mut all = Changes::default();
            for (tree, key, value) in changes {
                match value {
                    Some(value) => all.put(Tree::ALL[tree], key, value),
                    None => all.delete(Tree::ALL[tree], key),
                }
            }
            all.apply(&mut group, &mut applied);
            replay(group.into(), &mut replayed).unwrap();
            prop_assert_eq!(applied.bytes(), replayed.bytes());
            for tree in Tree::ALL {
                prop_assert!(applied.iter(tree).eq(replayed.iter(tree)));
            }
        }

        #[test]
        fn arbitrary_bytes_are_an_error_or_changes(bytes: Vec<u8>) {
            let _ = replay(bytes.into(), &mut Layer::default());
        }
    }
}
