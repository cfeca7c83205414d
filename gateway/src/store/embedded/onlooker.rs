//! The store of a folder as another process than its node reads it: at one instant, whether a node runs on it or not.
//!
//! LMDB lets processes share a store: a reader is noted in `lock.mdb`, and what it reads stays as it is until it is done.
//! Meanwhile nothing that the node frees is used again, so its file grows: keep it short.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt, chown},
    path::{Path, PathBuf},
};

use heed::{CompactionOption, Env, EnvFlags, EnvOpenOptions, MdbError, RoTxn, WithoutTls};

use super::{
    disk::{self, FORMAT_KEY, OpenError, TREES, Tree},
    layout::{self, FORMAT},
    pages::{self, Damage, Extent, Meta, Pages},
};

/// How often the meta pages are read anew: two commits of a busy node overwrite both.
const TRIES: usize = 1_000;

/// Copies the store of a folder, of a node that runs or not, into another folder, and syncs the file: how many bytes it has.
///
/// # Errors
/// There is no store, or what is there is damaged, so that a copy of it would be, too; or the copy cannot be written. What
/// was written of it stays.
pub fn copy(from: &Path, to: &Path) -> Result<u64, OpenError> {
    let onlooker = Onlooker::open(from)?;
    if let Some(damage) = onlooker
        .damage()?
        .into_iter()
        .find(|damage| !damage.is_harmless())
    {
        return Err(OpenError::Damaged {
            path: from.to_owned(),
            damage,
        });
    }
    onlooker.trees()?;
    let bytes = onlooker
        .copy(&pages::path(to))
        .map_err(|source| OpenError::Copy {
            path: to.to_owned(),
            source,
        })?;
    disk::look(to)?;
    Ok(bytes)
}

/// A store at one instant.
pub(super) struct Onlooker {
    path: PathBuf,
    pages: Pages,
    /// Of the instant.
    meta: Meta,
    txn: RoTxn<'static, WithoutTls>,
    env: Env<WithoutTls>,
}

impl Onlooker {
    /// Opens the store of a folder to read it, and changes nothing there but `lock.mdb`.
    pub(super) fn open(path: &Path) -> Result<Self, OpenError> {
        let unreadable = |source| OpenError::Unreadable {
            path: path.to_owned(),
            source,
        };
        let damaged = |damage| OpenError::Damaged {
            path: path.to_owned(),
            damage,
        };
        let pages = Pages::open(path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => OpenError::Nothing {
                path: path.to_owned(),
            },
            _ => OpenError::Folder {
                path: path.to_owned(),
                source,
            },
        })?;
        // Of a node at work, the two may be read with commits in between.
        (0..TRIES)
            .find_map(|_| pages::newest(&pages).ok())
            .map_or_else(|| pages::newest(&pages), Ok)
            .map_err(damaged)?;
        let options = EnvOpenOptions::new().read_txn_without_tls();
        let (env, _) =
            disk::map(path, disk::MAP_SIZE, options, EnvFlags::READ_ONLY).map_err(|source| {
                match source {
                    heed::Error::Io(source) => OpenError::Folder {
                        path: path.to_owned(),
                        source,
                    },
                    source => unreadable(source),
                }
            })?;
        own_as_the_data(path);
        for _ in 0..TRIES {
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
                        OpenError::Apart {
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
                });
            }
        }
        Err(damaged(Damage::Unread(io::Error::other(
            "its meta pages change too fast",
        ))))
    }

    /// What is wrong with its pages. Only what has none of it is safe to be read through the map.
    pub(super) fn damage(&self) -> Result<Vec<Damage>, OpenError> {
        pages::walk(&self.pages, &self.meta, Extent::Whole).map_err(|damage| OpenError::Damaged {
            path: self.path.clone(),
            damage,
        })
    }

    /// The trees, if this version reads their format.
    pub(super) fn trees(&self) -> Result<[Tree; 5], OpenError> {
        let unreadable = |source| OpenError::Unreadable {
            path: self.path.clone(),
            source,
        };
        let tree = |name| {
            let tree = self
                .env
                .open_database(&self.txn, Some(name))
                .map_err(unreadable)?;
            tree.ok_or_else(|| OpenError::Nothing {
                path: self.path.clone(),
            })
        };
        let [meta, partitions, entries, expiries, dropped] = TREES;
        let meta: Tree = tree(meta)?;
        match meta
            .get(&self.txn, FORMAT_KEY)
            .map_err(unreadable)?
            .map(layout::last_u64)
        {
            Some(Ok(found)) if found <= FORMAT => {}
            Some(found) => {
                return Err(OpenError::Newer {
                    path: self.path.clone(),
                    found: found.unwrap_or(u64::MAX),
                });
            }
            None => {
                return Err(OpenError::Nothing {
                    path: self.path.clone(),
                });
            }
        }
        Ok([
            meta,
            tree(partitions)?,
            tree(entries)?,
            tree(expiries)?,
            tree(dropped)?,
        ])
    }

    /// The names of trees that no store has.
    pub(super) fn strangers(&self) -> heed::Result<Vec<String>> {
        let Some(names): Option<Tree> = self.env.open_database(&self.txn, None)? else {
            return Ok(Vec::new());
        };
        let names = names
            .iter(&self.txn)?
            .map(|entry| Ok(String::from_utf8_lossy(entry?.0).into_owned()));
        names
            .filter(|name| name.as_ref().is_ok_and(|name| !TREES.contains(&&**name)))
            .collect()
    }

    pub(super) fn txn(&self) -> &RoTxn<'_> {
        &self.txn
    }

    /// Bytes that it takes on the disk, with what is free in it.
    pub(super) fn length(&self) -> u64 {
        self.pages.length().unwrap_or_default()
    }

    /// Writes the store as it is now into a new file, without what is free in it, and syncs that: how many bytes it became.
    pub(super) fn copy(self, to: &Path) -> heed::Result<u64> {
        let Self { env, txn, .. } = self;
        // The copy is of an instant of its own.
        drop(txn);
        let mut file = File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(to)?;
        match env.copy_to_file(&mut file, CompactionOption::Enabled) {
            // A page that is neither in use nor free is in the way of leaving out what is free.
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

/// Where root looks at another's store, `lock.mdb` may be new, and is the node's to use.
fn own_as_the_data(path: &Path) {
    let lock = path.join("lock.mdb");
    if let (Ok(data), Ok(found)) = (fs::metadata(pages::path(path)), fs::metadata(&lock))
        && data.uid() != found.uid()
        && let Err(error) = chown(&lock, Some(data.uid()), Some(data.gid()))
    {
        tracing::debug!(%error, "lock.mdb stays with its owner");
    }
}
