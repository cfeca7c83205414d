//! What a script is told: the keys that it may touch, and a plan as one MessagePack array.

use crate::store::{Key, Partition, Table};

use super::{hints::Hints, keys};

/// The declared keys, each once, and the plan.
pub(super) struct Plan {
    pub(super) keys: Vec<String>,
    pub(super) pack: Pack,
}

impl Plan {
    /// A plan of so many parts for a script that begins with the partition's head.
    pub(super) fn new(partition: &Partition, parts: usize) -> Self {
        let mut pack = Pack(Vec::with_capacity(256));
        pack.array(parts);
        Self { keys: vec![keys::head(partition)], pack }
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

    /// Writes how to find a document: `{ order, key, index of its hash by key, … }`. What follows for a listed table is its
    /// index if that changes; for a numbered one the index of the hash by number, which one that is, and the index of changes.
    pub(super) fn document(&mut self, partition: &Partition, document: &Wanted<'_>) {
        let Wanted { table, key, bucket, indexed } = *document;
        let hash = self.key(keys::by_key(partition, table, key));
        let index = |plan: &mut Self, name: fn(&Partition, Table) -> String| if indexed { plan.key(name(partition, table)) } else { 0 };
        match table.order {
            crate::store::Order::None => {
                self.pack.array(3).uint(0).text(key).uint(hash as u64);
            }
            crate::store::Order::Keys => {
                let index = index(self, keys::index);
                self.pack.array(4).uint(1).text(key).uint(hash as u64).uint(index as u64);
            }
            crate::store::Order::Numbers => {
                let numbers = bucket.map_or(0, |bucket| self.key(keys::by_number(partition, table, bucket)));
                let changes = index(self, keys::changes);
                self.pack.array(6).uint(2).text(key).uint(hash as u64).uint(numbers as u64).uint(bucket.unwrap_or(0)).uint(changes as u64);
            }
        }
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
    mut answer: super::script::Items,
    documents: impl Iterator<Item = (Table, &'a Key)>,
) -> Result<(), crate::store::StoreError> {
    hints.saw_number(partition, answer.int()?);
    for (table, key) in documents {
        let number = answer.int()?;
        if table.order == crate::store::Order::Numbers {
            hints.saw_document(partition, key, number);
        }
    }
    Ok(())
}

/// A MessagePack writer that cannot fail. Byte strings are written as strings: the scripts' reader has one kind only.
pub(super) struct Pack(pub(super) Vec<u8>);

const INFALLIBLE: &str = "a vector takes all";

impl Pack {
    pub(super) fn array(&mut self, len: usize) -> &mut Self {
        rmp::encode::write_array_len(&mut self.0, u32::try_from(len).expect("few items")).expect(INFALLIBLE);
        self
    }

    pub(super) fn map(&mut self, len: usize) -> &mut Self {
        rmp::encode::write_map_len(&mut self.0, u32::try_from(len).expect("few items")).expect(INFALLIBLE);
        self
    }

    pub(super) fn uint(&mut self, value: u64) -> &mut Self {
        rmp::encode::write_uint(&mut self.0, value).expect(INFALLIBLE);
        self
    }

    pub(super) fn int(&mut self, value: i64) -> &mut Self {
        rmp::encode::write_sint(&mut self.0, value).expect(INFALLIBLE);
        self
    }

    /// A bound, or -1 for none.
    pub(super) fn bound(&mut self, value: Option<u64>) -> &mut Self {
        match value {
            Some(value) => self.uint(value),
            None => self.int(-1),
        }
    }

    pub(super) fn text(&mut self, text: &str) -> &mut Self {
        self.bytes(text.as_bytes())
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        rmp::encode::write_str_len(&mut self.0, u32::try_from(bytes.len()).expect("values are far below 4 GiB")).expect(INFALLIBLE);
        self.0.extend_from_slice(bytes);
        self
    }
}
