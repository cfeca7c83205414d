//! The arguments of a script: the keys that it declares, and a plan that `struct.unpack` reads from
//! the front.

use super::{hints::Hints, keys::Keys, script::Items};
use crate::{DocumentKey, Expected, Order, Partition, StoreError, Table};

/// The declared keys, without duplicates, and the packed arguments.
pub(super) struct ScriptPlan {
    pub(super) keys: Vec<String>,
    pub(super) pack: Pack,
}

impl ScriptPlan {
    /// An empty plan for a script that reads the partition's head first.
    pub(super) fn new(keys: Keys<'_>) -> Self {
        Self {
            keys: vec![keys.head()],
            pack: Pack(Vec::with_capacity(512)),
        }
    }

    /// Declares a key and returns its index, from 1.
    pub(super) fn key(&mut self, key: String) -> usize {
        match self.keys.iter().position(|k| *k == key) {
            Some(index) => index + 1,
            None => {
                self.keys.push(key);
                self.keys.len()
            }
        }
    }

    /// Packs how to find a document, as `scripts/documents.lua` and `scripts/read.lua` read it.
    pub(super) fn document(&mut self, keys: Keys<'_>, document: &DocumentKeys<'_>) {
        let DocumentKeys {
            table,
            key,
            bucket,
            index_changes,
        } = *document;
        let hash = self.key(keys.by_key(table, key));
        let table_index =
            |plan: &mut Self, name: String| if index_changes { plan.key(name) } else { 0 };
        let (order, index, changes) = match table.order {
            Order::None => (0, 0, 0),
            Order::Keys => (1, table_index(self, keys.index(table)), 0),
            Order::Numbers => {
                let numbers = bucket.map_or(0, |bucket| self.key(keys.by_number(table, bucket)));
                (2, numbers, table_index(self, keys.changes(table)))
            }
        };
        self.pack
            .small(order)
            .text(key)
            .index(hash)
            .index(index)
            .uint(bucket.unwrap_or(0))
            .index(changes);
    }
}

/// A document of a plan, from which its Redis keys follow.
pub(super) struct DocumentKeys<'a> {
    pub(super) table: Table,
    pub(super) key: &'a DocumentKey,
    /// The presumed bucket of the document's number.
    pub(super) bucket: Option<u64>,
    /// Whether the script may change the table's index.
    pub(super) index_changes: bool,
}

/// Updates the hints from the reply `{ 2, number, the number of each document or 0 }` to a wrong
/// guess. The reply may lack the last documents.
pub(super) fn update_hints<'a>(
    hints: &Hints,
    partition: &Partition,
    mut answer: Items,
    documents: impl Iterator<Item = (Table, &'a DocumentKey)>,
) -> Result<(), StoreError> {
    hints.saw_number(partition, answer.int()?);
    let numbers = answer.ints()?;
    for ((table, key), number) in documents.zip(numbers) {
        if table.order == Order::Numbers {
            hints.saw_document(partition, key, number);
        }
    }
    Ok(())
}

/// Packs values for `struct.unpack`: big-endian integers of a fixed size, strings after their
/// length. The methods' docs give the format.
pub(super) struct Pack(pub(super) Vec<u8>);

impl Pack {
    /// `B`
    pub(super) fn small(&mut self, value: u8) -> &mut Self {
        self.0.push(value);
        self
    }

    /// `I2`: a count, or an index from 1.
    pub(super) fn index(&mut self, value: usize) -> &mut Self {
        self.0.extend_from_slice(
            &u16::try_from(value)
                .expect("a plan names far fewer than 65,536 things")
                .to_be_bytes(),
        );
        self
    }

    /// `I6`: saturates at 2⁴⁸ − 1.
    pub(super) fn uint(&mut self, value: u64) -> &mut Self {
        self.0
            .extend_from_slice(&value.min((1 << 48) - 1).to_be_bytes()[2..]);
        self
    }

    /// `I8`: exact to the script up to 2⁵³.
    pub(super) fn wide(&mut self, value: u64) -> &mut Self {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    /// `i8`
    pub(super) fn int(&mut self, value: i64) -> &mut Self {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    /// `i8`: a limit, or -1 for none.
    pub(super) fn bound(&mut self, value: Option<u64>) -> &mut Self {
        self.int(value.map_or(-1, |value| i64::try_from(value).unwrap_or(i64::MAX)))
    }

    /// `BI6`: a precondition.
    pub(super) fn expected(&mut self, is: Expected) -> &mut Self {
        let (what, value) = match is {
            Expected::Absent => (0, 0),
            Expected::Present => (1, 0),
            Expected::Version(version) => (2, version),
            Expected::Changed(seq) => (3, seq),
        };
        self.small(what).uint(value)
    }

    /// `I2c0`
    pub(super) fn text(&mut self, text: &str) -> &mut Self {
        self.short(text.as_bytes())
    }

    /// `I2c0`
    pub(super) fn short(&mut self, bytes: &[u8]) -> &mut Self {
        self.index(bytes.len());
        self.0.extend_from_slice(bytes);
        self
    }

    /// `I4c0`
    pub(super) fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(
            &u32::try_from(bytes.len())
                .expect("values are far below 4 GiB")
                .to_be_bytes(),
        );
        self.0.extend_from_slice(bytes);
        self
    }
}
