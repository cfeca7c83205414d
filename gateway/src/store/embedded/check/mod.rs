//! Whether a store is whole: its pages, then every record and every index that the layout promises.
//!
//! Nothing is mended. What documents mean is for the layers above to judge, by [`Sense`].

mod partition;

use std::{
    collections::{HashMap, HashSet},
    path::Path,
};

use heed::RoTxn;

use self::partition::Inspection;
use super::{
    disk::{OpenError, Tree},
    layout::{self, State, Unreadable},
    onlooker::Onlooker,
    transfer::LOADS,
};
use crate::store::Document;

/// Something that is wrong with a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What.
    pub what: String,
    /// What mending it would mean.
    pub mending: String,
}

/// What was looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Looked {
    /// Bytes of the file.
    pub bytes: u64,
    /// Partitions.
    pub partitions: u64,
    /// Documents.
    pub documents: u64,
    /// Events in logs.
    pub events: u64,
    /// Pages that are neither in use nor free. Nothing is wrong with that, but that their room is lost.
    pub lost_pages: u64,
    /// Whether pages are damaged, so that no record was read: LMDB trusts its pages, and could end the process.
    pub only_pages: bool,
}

/// What the layers above know of what is kept.
pub trait Sense {
    /// A document of the partition that is told next. What is wrong with its value, if anything.
    fn document(&mut self, table: &str, document: &Document) -> Option<Finding>;
    /// A partition, whose documents were told, with its counters. What is wrong with it as a whole, if anything.
    fn partition(&mut self, name: &str, counters: &[(String, u64)]) -> Option<Finding>;
}

/// Checks the store of a folder at one instant: a stopped node's, a running one's, a backup.
///
/// # Errors
/// It cannot be checked at all.
pub fn check(
    path: &Path,
    sense: &mut dyn Sense,
    tell: &mut dyn FnMut(Finding),
) -> Result<Looked, OpenError> {
    let onlooker = Onlooker::open(path)?;
    let mut looked = Looked {
        bytes: onlooker.length(),
        ..Looked::default()
    };
    for damage in onlooker.damage()? {
        if damage.is_harmless() {
            looked.lost_pages += 1;
            continue;
        }
        looked.only_pages = true;
        tell(Finding {
            what: damage.to_string(),
            mending: "could not tell what stood there: would bring back a backup".to_owned(),
        });
    }
    if looked.only_pages {
        return Ok(looked);
    }
    let unreadable = |source| OpenError::Unreadable {
        path: path.to_owned(),
        source,
    };
    let trees = onlooker.trees()?;
    for name in onlooker.strangers().map_err(unreadable)? {
        tell(Finding {
            what: format!("there is a tree {name:?}, which no store has"),
            mending: "would remove it".to_owned(),
        });
    }
    records(onlooker.txn(), trees, sense, tell, looked).map_err(unreadable)
}

/// Checks the records, of which the pages are sound.
pub(super) fn records(
    txn: &RoTxn<'_>,
    trees: [Tree; 5],
    sense: &mut dyn Sense,
    tell: &mut dyn FnMut(Finding),
    looked: Looked,
) -> heed::Result<Looked> {
    let mut check = Check {
        txn,
        trees,
        sense,
        tell,
        looked,
    };
    check.run()?;
    Ok(check.looked)
}

/// A partition by its number.
struct Named {
    name: String,
    state: State,
}

struct Check<'a> {
    txn: &'a RoTxn<'a>,
    trees: [Tree; 5],
    sense: &'a mut dyn Sense,
    tell: &'a mut dyn FnMut(Finding),
    looked: Looked,
}

impl Check<'_> {
    fn find(&mut self, what: impl Into<String>, mending: impl Into<String>) {
        (self.tell)(Finding {
            what: what.into(),
            mending: mending.into(),
        });
    }

    /// An entry of the partitions.
    fn entry(&self, key: &[u8]) -> heed::Result<Option<&[u8]>> {
        self.trees[2].get(self.txn, key)
    }

    fn run(&mut self) -> heed::Result<()> {
        let mut named = self.partitions()?;
        self.expiries(&named)?;
        let mut nameless = self.dropped(&named)?;
        nameless.extend(self.begun()?);
        let mut orphans: Option<(u64, u64)> = None;
        let mut partition: Option<Inspection> = None;
        for entry in self.trees[2].iter(self.txn)? {
            let (key, value) = entry?;
            let Some((id, rest)) = key
                .split_first_chunk()
                .map(|(id, rest)| (u64::from_be_bytes(*id), rest))
            else {
                self.find(
                    "an entry has a key that is too short",
                    "would remove the entry",
                );
                continue;
            };
            if partition
                .as_ref()
                .is_none_or(|partition| partition.id() != id)
            {
                if let Some(done) = partition.take() {
                    done.finish(self);
                }
                partition = named.remove(&id).map(Inspection::new);
            }
            match &mut partition {
                Some(partition) => partition.entry(self, rest, value)?,
                None if nameless.contains(&id) => {}
                None => match &mut orphans {
                    Some((number, count)) if *number == id => *count += 1,
                    orphans => {
                        let before = orphans.replace((id, 1));
                        self.orphans(before);
                    }
                },
            }
        }
        self.orphans(orphans);
        // What has no entries is left.
        partition
            .into_iter()
            .chain(named.into_values().map(Inspection::new))
            .for_each(|partition| partition.finish(self));
        Ok(())
    }

    fn orphans(&mut self, orphans: Option<(u64, u64)>) {
        if let Some((id, count)) = orphans {
            self.find(
                format!("{count} entries belong to the partition numbered {id}, which has no name"),
                "would remove the entries",
            );
        }
    }

    fn partitions(&mut self) -> heed::Result<HashMap<u64, Named>> {
        let next = match self.trees[0]
            .get(self.txn, super::plan::NEXT)?
            .map(layout::last_u64)
            .transpose()
        {
            Ok(next) => next.unwrap_or(1),
            Err(Unreadable) => 0,
        };
        let mut named: HashMap<u64, Named> = HashMap::new();
        let mut highest = 0;
        for entry in self.trees[1].iter(self.txn)? {
            let (key, value) = entry?;
            self.looked.partitions += 1;
            let name = String::from_utf8_lossy(key).into_owned();
            if !self.is_sound(key) {
                self.find(
                    format!("a partition has the name {name:?}, which none can have"),
                    "would remove the partition",
                );
            }
            let Ok(state) = State::decode(value) else {
                self.find(
                    format!("the state of partition {name} cannot be read"),
                    "would make it anew from the partition's entries",
                );
                continue;
            };
            highest = highest.max(state.id);
            if let Some(other) = named.get(&state.id) {
                let what = format!(
                    "the partitions {} and {name} have the same number, {}, and so the same entries",
                    other.name, state.id
                );
                self.find(
                    what,
                    "could not tell whose they are: would bring back a backup",
                );
                continue;
            }
            named.insert(state.id, Named { name, state });
        }
        if named.contains_key(&0) || highest >= next {
            let what =
                format!("the next partition would get the number {next}, and {highest} is in use");
            self.find(
                what,
                format!("would set the next number to {}", highest + 1),
            );
        }
        Ok(named)
    }

    fn is_sound(&self, name: &[u8]) -> bool {
        std::str::from_utf8(name).is_ok_and(|name| !name.is_empty() && !name.contains(['{', '}']))
    }

    fn expiries(&mut self, named: &HashMap<u64, Named>) -> heed::Result<()> {
        let mut noted = HashSet::new();
        for entry in self.trees[3].iter(self.txn)? {
            let (key, name) = entry?;
            let at = key.first_chunk().map_or(0, |at| u64::from_be_bytes(*at));
            let id = layout::last_u64(key).unwrap_or(0);
            let is_so = named.get(&id).is_some_and(|named| {
                key.len() == 16 && named.name.as_bytes() == name && named.state.expires == at
            });
            if is_so {
                noted.insert(id);
            } else {
                let what = format!(
                    "an expiry is noted for {}, which has no such expiry",
                    String::from_utf8_lossy(name)
                );
                self.find(what, "would remove the note");
            }
        }
        for (id, Named { name, state }) in named {
            if state.expires != 0 && !noted.contains(id) {
                self.find(
                    format!("the partition {name} expires, and that is noted nowhere"),
                    "would note it, so that it is removed in time",
                );
            }
        }
        Ok(())
    }

    /// The numbers of partitions whose load has begun: they get their names with the last piece.
    fn begun(&self) -> heed::Result<Vec<u64>> {
        let notes = self.trees[0].prefix_iter(self.txn, LOADS.as_bytes())?;
        notes
            .map(|note| Ok(layout::last_u64(note?.1).unwrap_or(0)))
            .collect()
    }

    fn dropped(&mut self, named: &HashMap<u64, Named>) -> heed::Result<HashSet<u64>> {
        let mut dropped = HashSet::new();
        for entry in self.trees[4].iter(self.txn)? {
            let id = layout::last_u64(entry?.0).unwrap_or(0);
            match named.get(&id) {
                Some(Named { name, .. }) => {
                    let what = format!(
                        "the partition {name} is there, and noted as dropped: its entries would be removed"
                    );
                    self.find(what, "would remove the note");
                }
                None => drop(dropped.insert(id)),
            }
        }
        Ok(dropped)
    }
}

/// Takes the table and the key of a document from what follows the space in an entry's key.
fn table_and_key(rest: &[u8]) -> Option<(&str, &str)> {
    let zero = rest.iter().position(|byte| *byte == 0)?;
    let (table, key) = (&rest[..zero], &rest[zero + 1..]);
    Some((
        std::str::from_utf8(table).ok()?,
        std::str::from_utf8(key).ok()?,
    ))
}

/// Missing numbers in words.
fn range(first: u64, last: u64) -> String {
    if first == last {
        first.to_string()
    } else {
        format!("{first} to {last}")
    }
}
