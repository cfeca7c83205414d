//! What a script is told: the keys that it may touch, and a plan, packed so that `struct.unpack` reads it from the front.

use crate::store::{Expected, Key, Order, Partition, StoreError, Table};

use super::{hints::Hints, keys, script::Items};

/// The declared keys, each once, and the plan.
pub(super) struct Plan {
    pub(super) keys: Vec<String>,
    pub(super) pack: Pack,
}

impl Plan {
    /// An empty plan for a script that begins with the partition's head.
    pub(super) fn new(partition: &Partition) -> Self {
        Self {
            keys: vec![keys::head(partition)],
            pack: Pack(Vec::with_capacity(512)),
        }
    }

    /// Declares a key; its index, from 1.
    pub(super) fn key(&mut self, key: String) -> usize {
        match self.keys.iter().position(|k| *k == key) {
            Some(index) => index + 1,
            None => {
                self.keys.push(key);
                self.keys.len()
            }
        }
    }

    /// Writes how to find a document, as `scripts/documents.lua` and `scripts/read.lua` take it.
    pub(super) fn document(&mut self, partition: &Partition, document: &Wanted<'_>) {
        let Wanted {
            table,
            key,
            bucket,
            indexed,
        } = *document;
        let hash = self.key(keys::by_key(partition, table, key));
        let table_index = |plan: &mut Self, name: fn(&Partition, Table) -> String| {
            if indexed {
                plan.key(name(partition, table))
            } else {
                0
            }
        };
        let (order, index, changes) = match table.order {
            Order::None => (0, 0, 0),
            Order::Keys => (1, table_index(self, keys::index), 0),
            Order::Numbers => {
                let numbers = bucket.map_or(0, |bucket| {
                    self.key(keys::by_number(partition, table, bucket))
                });
                (2, numbers, table_index(self, keys::changes))
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

/// A document that a plan names.
pub(super) struct Wanted<'a> {
    pub(super) table: Table,
    pub(super) key: &'a Key,
    /// In which hash of numbers it stands or will stand, as far as is known.
    pub(super) bucket: Option<u64>,
    /// Whether the table's index changes with it.
    pub(super) indexed: bool,
}

/// Learns from the answer `{ 2, number, the number of each document or 0 }` of a script that guessed wrong.
pub(super) fn learn<'a>(
    hints: &Hints,
    partition: &Partition,
    mut answer: Items,
    documents: impl Iterator<Item = (Table, &'a Key)>,
) -> Result<(), StoreError> {
    hints.saw_number(partition, answer.int()?);
    for (table, key) in documents {
        let number = answer.int()?;
        if table.order == Order::Numbers {
            hints.saw_document(partition, key, number);
        }
    }
    Ok(())
}

/// Writes what `struct.unpack` reads: big-endian integers of a fixed size, strings after their length.
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

    /// `I6`: what does not fit becomes the greatest that does, 2⁴⁸ − 1.
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

    /// `i8`: a bound, or -1 for none.
    pub(super) fn bound(&mut self, value: Option<u64>) -> &mut Self {
        self.int(value.map_or(-1, |value| i64::try_from(value).unwrap_or(i64::MAX)))
    }

    /// `BI6`: what is required of a document.
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
