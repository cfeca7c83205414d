//! The check of a store: its pages, then every record and index of the layout. Changes nothing.
//!
//! The domain checks the values of documents through [`ValueCheck`].

mod context;
mod partition;

use std::{
    collections::{HashMap, HashSet},
    path::Path,
};

pub use self::context::{CheckSummary, Finding, ValueCheck};
use self::{
    context::{Check, NamedPartition},
    partition::PartitionCheck,
};
use super::{
    fault::Fault,
    layout::{self, LayoutState},
    open_error::OpenError,
    read_only::ReadOnlyStore,
    transfer::LOAD_PREFIX,
    tree::Tree,
    trees::Trees,
};

/// Checks a store at one instant: a backup, or the store of a stopped or running node. Passes each
/// finding to `report`.
///
/// # Errors
/// The store cannot be opened or read.
pub fn check(
    path: &Path,
    values: &mut dyn ValueCheck,
    report: &mut dyn FnMut(Finding),
) -> Result<CheckSummary, OpenError> {
    let mut store = ReadOnlyStore::open(path)?;
    let mut summary = CheckSummary {
        bytes: store.length(),
        ..CheckSummary::default()
    };
    for damage in store.damage()? {
        if damage.is_harmless() {
            summary.lost_pages += 1;
            continue;
        }
        summary.only_pages = true;
        report(Finding {
            what: damage.to_string(),
            repair: "could not tell what stood there: would bring back a backup".to_owned(),
        });
    }
    if summary.only_pages {
        return Ok(summary);
    }
    let unreadable = |source| OpenError::Unreadable {
        path: path.to_owned(),
        source,
    };
    store.check_format()?;
    match store.read_journal() {
        Err(OpenError::Journal { source, .. }) if source.is_damage() => report(Finding {
            what: source.to_string(),
            repair: "could not tell what stood there: would bring back a backup".to_owned(),
        }),
        read => read?,
    }
    for name in store.unknown_trees().map_err(unreadable)? {
        report(Finding {
            what: format!("there is a tree {name:?}, which no store has"),
            repair: "would remove it".to_owned(),
        });
    }
    records(store.trees(), values, report, summary).map_err(|fault| unreadable(fault.into()))
}

/// Checks the records of a store without damaged pages.
pub(super) fn records(
    trees: Trees<'_>,
    values: &mut dyn ValueCheck,
    report: &mut dyn FnMut(Finding),
    summary: CheckSummary,
) -> Result<CheckSummary, Fault> {
    let mut check = Check {
        trees,
        values,
        report,
        summary,
    };
    check.run()?;
    Ok(check.summary)
}

impl Check<'_> {
    fn run(&mut self) -> Result<(), Fault> {
        self.meta()?;
        let mut named = self.partitions()?;
        self.expiries(&named)?;
        let mut nameless = self.dropped(&named)?;
        nameless.extend(self.partly_loaded()?);
        let mut orphans: Option<(u64, u64)> = None;
        let mut partition: Option<PartitionCheck> = None;
        for entry in self.trees.iter(Tree::Entries)? {
            let Some((key, value)) = self.intact(entry)? else {
                continue;
            };
            let Some((id, rest)) = key
                .split_first_chunk()
                .map(|(id, rest)| (u64::from_be_bytes(*id), rest))
            else {
                self.report(
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
                partition = named.remove(&id).map(PartitionCheck::new);
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
        // The partitions without entries are left.
        partition
            .into_iter()
            .chain(named.into_values().map(PartitionCheck::new))
            .for_each(|partition| partition.finish(self));
        Ok(())
    }

    fn orphans(&mut self, orphans: Option<(u64, u64)>) {
        if let Some((id, count)) = orphans {
            self.report(
                format!("{count} entries belong to the partition numbered {id}, which has no name"),
                "would remove the entries",
            );
        }
    }

    fn meta(&mut self) -> Result<(), Fault> {
        for entry in self.trees.iter(Tree::Meta)? {
            self.intact(entry)?;
        }
        Ok(())
    }

    fn partitions(&mut self) -> Result<HashMap<u64, NamedPartition>, Fault> {
        let next = match self.trees.get(Tree::Meta, super::plan::NEXT_PARTITION) {
            // It is reported already.
            Err(Fault::Damaged { .. }) => u64::MAX,
            next => next?.map_or(Ok(1), layout::last_u64).unwrap_or(0),
        };
        let mut named: HashMap<u64, NamedPartition> = HashMap::new();
        let mut highest = 0;
        for entry in self.trees.iter(Tree::Partitions)? {
            let Some((key, value)) = self.intact(entry)? else {
                continue;
            };
            self.summary.partitions += 1;
            let name = String::from_utf8_lossy(key).into_owned();
            if !is_partition_name(key) {
                self.report(
                    format!("a partition has the name {name:?}, which none can have"),
                    "would remove the partition",
                );
            }
            let Ok(state) = LayoutState::decode(value) else {
                self.report(
                    format!("the state of partition {name} cannot be read"),
                    "would create it again from the partition's entries",
                );
                continue;
            };
            highest = highest.max(state.id);
            if let Some(other) = named.get(&state.id) {
                let what = format!(
                    "the partitions {} and {name} have the same number, {}, and so the same entries",
                    other.name, state.id
                );
                self.report(
                    what,
                    "could not tell whose they are: would bring back a backup",
                );
                continue;
            }
            named.insert(state.id, NamedPartition { name, state });
        }
        if named.contains_key(&0) || highest >= next {
            let what =
                format!("the next partition would get the number {next}, and {highest} is in use");
            self.report(
                what,
                format!("would set the next number to {}", highest + 1),
            );
        }
        Ok(named)
    }

    fn expiries(&mut self, named: &HashMap<u64, NamedPartition>) -> Result<(), Fault> {
        let mut listed = HashSet::new();
        for entry in self.trees.iter(Tree::Expiries)? {
            let Some((key, name)) = self.intact(entry)? else {
                continue;
            };
            let at = key.first_chunk().map_or(0, |at| u64::from_be_bytes(*at));
            let id = layout::last_u64(key).unwrap_or(0);
            let is_consistent = named.get(&id).is_some_and(|named| {
                key.len() == 16 && named.name.as_bytes() == name && named.state.expires == at
            });
            if is_consistent {
                listed.insert(id);
            } else {
                let what = format!(
                    "an expiry is noted for {}, which has no such expiry",
                    String::from_utf8_lossy(name)
                );
                self.report(what, "would remove the note");
            }
        }
        for (id, NamedPartition { name, state }) in named {
            if state.expires != 0 && !listed.contains(id) {
                self.report(
                    format!("the partition {name} expires, and that is noted nowhere"),
                    "would note it, so that it is removed in time",
                );
            }
        }
        Ok(())
    }

    /// Returns the numbers of partly loaded partitions, which get their names with the last piece.
    fn partly_loaded(&self) -> Result<Vec<u64>, Fault> {
        self.trees
            .prefix(Tree::Meta, LOAD_PREFIX.as_bytes())?
            .filter(|entry| !matches!(entry, Err(Fault::Damaged { .. })))
            .map(|entry| Ok(layout::last_u64(entry?.1).unwrap_or(0)))
            .collect()
    }

    fn dropped(&mut self, named: &HashMap<u64, NamedPartition>) -> Result<HashSet<u64>, Fault> {
        let mut dropped = HashSet::new();
        for entry in self.trees.iter(Tree::Dropped)? {
            let Some((key, _)) = self.intact(entry)? else {
                continue;
            };
            let id = layout::last_u64(key).unwrap_or(0);
            match named.get(&id) {
                Some(NamedPartition { name, .. }) => {
                    let what = format!(
                        "the partition {name} is there, and noted as dropped: its entries would be removed"
                    );
                    self.report(what, "would remove the note");
                }
                None => drop(dropped.insert(id)),
            }
        }
        Ok(dropped)
    }
}

fn is_partition_name(name: &[u8]) -> bool {
    std::str::from_utf8(name).is_ok_and(|name| !name.is_empty() && !name.contains(['{', '}']))
}
