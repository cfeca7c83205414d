//! Read-only access to a store from another process, at one instant, whether or not a node runs on
//! it.
//!
//! LMDB lets processes share a store. A reader registers in `lock.mdb`, and LMDB keeps the pages
//! that it may read. Pages that the node frees meanwhile are not reused and the file grows, so
//! reads must be short.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt, chown},
    path::{Path, PathBuf},
};

use heed::{CompactionOption, Env, EnvFlags, MdbError, RoTxn, WithoutTls};

use super::{
    disk,
    journal::{self, JournalCopyError, JournalError, Pin},
    layout::{FORMAT, UNSEALED_FORMAT},
    memory::Memory,
    open_error::OpenError,
    pages::{self, Damage, Extent, Meta, Pages},
    plan,
    tree::Tree,
    trees::{Sealing, TreeDatabase, Trees},
};

/// Maximum number of attempts to read the meta pages. Two commits of a running node overwrite both.
const META_READ_ATTEMPTS: usize = 1_000;

/// Copies a store into another folder and syncs the file, whether or not a node runs on it. Returns
/// the length of the copied files in bytes.
///
/// # Errors
/// The folder has no store, the store is damaged, or the copy cannot be written. A partly written
/// copy is not removed.
pub fn copy(from: &Path, to: &Path) -> Result<u64, OpenError> {
    let mut store = ReadOnlyStore::open(from)?;
    if let Some(damage) = store
        .damage()?
        .into_iter()
        .find(|damage| !damage.is_harmless())
    {
        return Err(OpenError::Damaged {
            path: from.to_owned(),
            damage,
        });
    }
    store.check_format()?;
    store.read_journal()?;
    let pin = store.pin.take();
    let mut bytes = store
        .copy(&pages::path(to))
        .map_err(|source| OpenError::Copy {
            path: to.to_owned(),
            source,
        })?;
    disk::check_pages(to)?;
    if pin.is_some() {
        // The copied trees may be newer than those that were opened. The journal has all groups
        // that they lack.
        bytes += journal::copy(from, to).map_err(|error| match error {
            JournalCopyError::Source(source) => OpenError::Journal {
                path: from.to_owned(),
                source,
            },
            JournalCopyError::Target(source) => OpenError::Copy {
                path: to.to_owned(),
                source: source.into(),
            },
        })?;
    }
    Ok(bytes)
}

/// A store at one instant.
pub(super) struct ReadOnlyStore {
    path: PathBuf,
    pages: Pages,
    meta: Meta,
    txn: RoTxn<'static, WithoutTls>,
    env: Env<WithoutTls>,
    /// What the trees lack; empty until [`read_journal`](Self::read_journal).
    memory: Memory,
    databases: Option<([TreeDatabase; 5], Sealing)>,
    /// Keeps the journal's segments.
    pin: Option<Pin>,
}

impl ReadOnlyStore {
    /// Opens the store of a folder. Changes only `lock.mdb`.
    pub(super) fn open(path: &Path) -> Result<Self, OpenError> {
        let unreadable = |source| OpenError::Unreadable {
            path: path.to_owned(),
            source,
        };
        let damaged = |damage| OpenError::Damaged {
            path: path.to_owned(),
            damage,
        };
        let pin = Pin::acquire(path).map_err(|source| OpenError::Folder {
            path: path.to_owned(),
            source,
        })?;
        let pages = Pages::open(path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => OpenError::NoStore {
                path: path.to_owned(),
            },
            _ => OpenError::Folder {
                path: path.to_owned(),
                source,
            },
        })?;
        // A running node may commit between the reads of the two pages.
        (0..META_READ_ATTEMPTS)
            .find_map(|_| pages::newest(&pages).ok())
            .map_or_else(|| pages::newest(&pages), Ok)
            .map_err(damaged)?;
        let (env, _) =
            disk::map(path, disk::MAP_SIZE, EnvFlags::READ_ONLY).map_err(
                |source| match source {
                    heed::Error::Io(source) => OpenError::Folder {
                        path: path.to_owned(),
                        source,
                    },
                    source => unreadable(source),
                },
            )?;
        adopt_lock_owner(path);
        for _ in 0..META_READ_ATTEMPTS {
            let txn = env
                .clone()
                .static_read_txn()
                .map_err(|source| match source {
                    heed::Error::Io(error)
                        if matches!(
                            error.kind(),
                            io::ErrorKind::WouldBlock | io::ErrorKind::PermissionDenied
                        ) =>
                    {
                        OpenError::OtherContainer {
                            path: path.to_owned(),
                        }
                    }
                    source => unreadable(source),
                })?;
            if let Some(meta) = Meta::of(&pages, txn.id() as u64).map_err(damaged)? {
                return Ok(Self {
                    path: path.to_owned(),
                    pages,
                    meta,
                    txn,
                    env,
                    memory: Memory::default(),
                    databases: None,
                    pin,
                });
            }
        }
        Err(damaged(Damage::Unreadable(io::Error::other(
            "its meta pages change too fast",
        ))))
    }

    /// Checks the pages. Only a store without damage is safe to read through the memory map.
    pub(super) fn damage(&self) -> Result<Vec<Damage>, OpenError> {
        pages::walk(&self.pages, &self.meta, Extent::Whole).map_err(|damage| OpenError::Damaged {
            path: self.path.clone(),
            damage,
        })
    }

    /// Opens the trees, if this version reads their format.
    ///
    /// # Errors
    /// There is no store, or one of another format.
    pub(super) fn check_format(&mut self) -> Result<(), OpenError> {
        let path = &self.path;
        let unreadable = |source| OpenError::Unreadable {
            path: path.clone(),
            source,
        };
        let mut found: [Option<TreeDatabase>; 5] = [None; 5];
        for tree in Tree::ALL {
            let database = self.env.open_database(&self.txn, Some(tree.name()));
            found[tree as usize] = database.map_err(unreadable)?;
        }
        let damaged = |damage| match found {
            [None, None, None, None, None] => OpenError::NoStore { path: path.clone() },
            _ => OpenError::Damaged {
                path: path.clone(),
                damage,
            },
        };
        let database = |tree: Tree| {
            found[tree as usize].ok_or_else(|| damaged(Damage::MissingTree(tree.name())))
        };
        let meta = database(Tree::Meta)?;
        let sealing = match disk::format(&self.txn, meta).map_err(unreadable)? {
            Some(FORMAT) => Sealing::Sealed,
            Some(UNSEALED_FORMAT) => Sealing::Unsealed,
            Some(found) => {
                return Err(OpenError::OtherFormat {
                    path: path.clone(),
                    found,
                });
            }
            None => return Err(damaged(Damage::MissingFormat)),
        };
        let mut databases = [meta; 5];
        for tree in Tree::ALL {
            databases[tree as usize] = database(tree)?;
        }
        self.databases = Some((databases, sealing));
        Ok(())
    }

    /// Reads what the trees lack from the journal. If that is damaged, the store has the groups
    /// before the damage.
    ///
    /// # Errors
    /// The journal is damaged, or the trees do not tell what they lack.
    pub(super) fn read_journal(&mut self) -> Result<(), OpenError> {
        let Some((_, Sealing::Sealed)) = self.databases else {
            return Ok(());
        };
        let path = &self.path;
        let position =
            disk::journal_position(self.trees()).map_err(|source| OpenError::Unreadable {
                path: path.clone(),
                source,
            })?;
        let mut memory = Memory::default();
        let end = journal::read(path, position, &mut |group, content| {
            plan::replay(content, &mut memory.active).map_err(|_| JournalError::Content { group })
        });
        let end = end.map_err(|source| OpenError::Journal {
            path: path.clone(),
            source,
        });
        self.memory = memory;
        end.map(drop)
    }

    /// The trees, with what was read from the journal. Only after
    /// [`check_format`](Self::check_format).
    pub(super) fn trees(&self) -> Trees<'_> {
        let (databases, sealing) = self
            .databases
            .as_ref()
            .expect("the caller has checked the format");
        Trees::new(databases, &self.txn, &self.memory, *sealing)
    }

    /// Returns the names of trees that do not belong to a store.
    pub(super) fn unknown_trees(&self) -> heed::Result<Vec<String>> {
        let Some(names): Option<TreeDatabase> = self.env.open_database(&self.txn, None)? else {
            return Ok(Vec::new());
        };
        let names = names
            .iter(&self.txn)?
            .map(|entry| Ok(String::from_utf8_lossy(entry?.0).into_owned()));
        names
            .filter(|name| {
                name.as_ref()
                    .is_ok_and(|name| Tree::ALL.iter().all(|tree| tree.name() != name))
            })
            .collect()
    }

    /// Returns the length of the file in bytes, including free pages.
    pub(super) fn length(&self) -> u64 {
        self.pages.length().unwrap_or_default()
    }

    /// Writes the current state of the store into a new file, without free pages, and syncs the
    /// file. Returns its length in bytes.
    pub(super) fn copy(self, to: &Path) -> heed::Result<u64> {
        let Self { env, txn, .. } = self;
        // LMDB opens its own transaction for the copy.
        drop(txn);
        let mut file = File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(to)?;
        match env.copy_to_file(&mut file, CompactionOption::Enabled) {
            // LMDB cannot compact a store with a page that is neither in use nor free.
            Err(heed::Error::Mdb(MdbError::Incompatible)) => {
                file = File::options().write(true).truncate(true).open(to)?;
                env.copy_to_file(&mut file, CompactionOption::Disabled)?;
            }
            copied => copied?,
        }
        file.sync_all()?;
        Ok(file.metadata()?.len())
    }
}

/// Gives `lock.mdb` to the owner of the data file, if root created it here: the node must be able
/// to use it.
fn adopt_lock_owner(path: &Path) {
    let lock = path.join("lock.mdb");
    if let (Ok(data), Ok(found)) = (fs::metadata(pages::path(path)), fs::metadata(&lock))
        && data.uid() != found.uid()
        && let Err(error) = chown(&lock, Some(data.uid()), Some(data.gid()))
    {
        tracing::debug!(%error, "cannot change the owner of lock.mdb");
    }
}
