//! The folder: its lock, its format, the memory map and the trees in it.

use std::{
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
};

use heed::{Database, Env, EnvFlags, EnvOpenOptions, MdbError, RoTxn, RwTxn, types::Bytes};
use parking_lot::{RwLock, RwLockReadGuard};

use super::{
    layout::{self, FORMAT},
    pages::{self, Damage, Extent, Pages},
};

/// A tree from bytes to bytes.
pub(super) type Tree = Database<Bytes, Bytes>;

/// Address space reserved for the map. It costs nothing until it is filled, and grows when it is full.
pub(super) const MAP_SIZE: usize = if cfg!(target_pointer_width = "64") {
    1 << 40
} else {
    1 << 30
};

/// Where address space is limited (`ulimit -v`), the map starts no smaller than this.
const LEAST_MAP_SIZE: usize = 1 << 28;

/// Threads that may read at once: all workers and all blocking threads of a runtime.
const READERS: u32 = 1_024;

pub(super) const FORMAT_KEY: &[u8] = b"format";

/// The trees of a store, in the order of [`Disk`]'s fields.
pub(super) const TREES: [&str; 5] = ["meta", "partitions", "entries", "expiries", "dropped"];

/// Pages that are looked at before a store is opened: some milliseconds where they are in memory, a second or two where they are not.
const LOOK: usize = 16_384;

/// Why a store could not be opened; each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder cannot be made or written.
    #[error(
        "the data folder {path} cannot be used ({source}): name one that this user may write to"
    )]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process has it open.
    #[error(
        "the data folder {path} is in use by another process: stop that one, or name another folder; several nodes share a Redis, not a folder"
    )]
    InUse {
        /// The folder.
        path: PathBuf,
    },
    /// A newer version wrote it.
    #[error(
        "the data folder {path} has format {found}, and this version reads up to {FORMAT}: start the newer version that wrote it"
    )]
    Newer {
        /// The folder.
        path: PathBuf,
        /// Its format.
        found: u64,
    },
    /// A process in another container has the number of this one, and LMDB cannot tell them apart.
    #[error(
        "the data folder {path} is in use in another container: run this in the container of its node (`docker exec`, say)"
    )]
    Apart {
        /// The folder.
        path: PathBuf,
    },
    /// There is no store in it.
    #[error(
        "the folder {path} holds no store: name the data folder of a node with the embedded store, or a backup of one"
    )]
    Nothing {
        /// The folder.
        path: PathBuf,
    },
    /// Its file is not as it was written.
    #[error(
        "the data folder {path} is damaged ({damage}): bring back a copy of it (`chaos restore`), or name another folder; `chaos check` tells more"
    )]
    Damaged {
        /// The folder.
        path: PathBuf,
        /// What was found.
        damage: Damage,
    },
    /// A copy of it cannot be written.
    #[error(
        "the copy cannot be written to {path} ({source}): make room there, or name another folder"
    )]
    Copy {
        /// Where to.
        path: PathBuf,
        /// What the system said.
        source: heed::Error,
    },
    /// It is no store, or a broken one.
    #[error(
        "the data folder {path} cannot be read ({source}): bring back a copy of it, or name another folder"
    )]
    Unreadable {
        /// The folder.
        path: PathBuf,
        /// What the storage said.
        source: heed::Error,
    },
}

/// The open folder.
#[derive(Debug)]
pub(super) struct Disk {
    env: Env,
    /// The format, and the number for the next partition.
    pub(super) meta: Tree,
    /// Partitions by name.
    pub(super) partitions: Tree,
    /// Everything in partitions.
    pub(super) entries: Tree,
    /// Names of partitions by their expiry.
    pub(super) expiries: Tree,
    /// Numbers of partitions that were dropped, and whose entries are still to be removed.
    pub(super) dropped: Tree,
    /// Held by whoever reads; growing the map takes it alone.
    growth: RwLock<()>,
    size: AtomicUsize,
    /// The last field, so that the map is closed before.
    _lock: Lock,
}

/// The folder's lock, held as long as this lives.
#[derive(Debug)]
pub(crate) struct Lock(File);

impl Lock {
    pub(crate) fn take(path: &Path) -> Result<Self, OpenError> {
        let folder = |source| OpenError::Folder {
            path: path.to_owned(),
            source,
        };
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path.join("chaos.lock"))
            .map_err(folder)?;
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(TryLockError::WouldBlock) => Err(OpenError::InUse {
                path: path.to_owned(),
            }),
            Err(TryLockError::Error(source)) => Err(folder(source)),
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing the file alone would not do: a process that another thread is starting has the open file, too, until it
        // runs its program, and with it the lock.
        if let Err(error) = self.0.unlock() {
            tracing::warn!(%error, "the data folder was not unlocked; it is when this process ends");
        }
    }
}

impl Disk {
    /// Opens or makes the store in a folder.
    pub(super) fn open(path: &Path, map_size: usize) -> Result<Self, OpenError> {
        let folder = |source| OpenError::Folder {
            path: path.to_owned(),
            source,
        };
        fs::create_dir_all(path).map_err(folder)?;
        // Before the map, so that it is held longer, also where the opening fails.
        let lock = Lock::take(path)?;
        let fresh = !pages::path(path).exists();
        if !fresh {
            look(path)?;
        }
        let unreadable = |source| OpenError::Unreadable {
            path: path.to_owned(),
            source,
        };
        let (env, size) =
            map(path, map_size, EnvOpenOptions::new(), EnvFlags::empty()).map_err(|source| {
                match source {
                    heed::Error::Io(source) => folder(source),
                    source => unreadable(source),
                }
            })?;
        let trees = trees(&env)
            .map_err(unreadable)?
            .map_err(|found| OpenError::Newer {
                path: path.to_owned(),
                found,
            })?;
        if fresh {
            // The data is synced by each commit; that there is a file of this name, by its folder.
            File::open(path)
                .and_then(|folder| folder.sync_all())
                .map_err(folder)?;
        }
        let [meta, partitions, entries, expiries, dropped] = trees;
        Ok(Self {
            env,
            meta,
            partitions,
            entries,
            expiries,
            dropped,
            growth: RwLock::new(()),
            size: AtomicUsize::new(size),
            _lock: lock,
        })
    }

    /// Reads at one instant. Holds up nobody, but keep it short: what is freed meanwhile is not used again.
    pub(super) fn read<T, E: From<heed::Error>>(
        &self,
        read: impl FnOnce(&RoTxn) -> Result<T, E>,
    ) -> Result<T, E> {
        let _growth: RwLockReadGuard<'_, ()> = self.growth.read();
        let txn = self.env.read_txn()?;
        read(&txn)
    }

    /// Lets go what readers of other processes held that are gone: a backup that was killed, say. Until then nothing that was
    /// freed since is used again. How many there were.
    pub(super) fn forget_readers(&self) -> heed::Result<usize> {
        self.env.clear_stale_readers()
    }

    /// Begins a write. Called by the writer alone.
    pub(super) fn write(&self) -> heed::Result<RwTxn<'_>> {
        self.env.write_txn()
    }

    /// Doubles the map. Called by the writer alone, between its writes.
    pub(super) fn grow(&self) -> heed::Result<usize> {
        let _alone = self.growth.write();
        let size = self.size.load(Ordering::Relaxed).saturating_mul(2);
        #[expect(
            unsafe_code,
            reason = "no transaction may be open: readers hold `growth`, and the only writer is the caller"
        )]
        unsafe { self.env.resize(size) }?;
        self.size.store(size, Ordering::Relaxed);
        Ok(size)
    }
}

/// Whether a write failed for want of address space.
pub(super) fn is_full(error: &heed::Error) -> bool {
    matches!(error, heed::Error::Mdb(MdbError::MapFull))
}

/// Whether LMDB has given up: it does when the last write of a commit fails, and until the store is opened again.
pub(super) fn is_broken(error: &heed::Error) -> bool {
    matches!(error, heed::Error::Mdb(MdbError::Panic))
}

/// Looks whether the file is one that can be mapped, before it is: see [`pages`].
pub(super) fn look(path: &Path) -> Result<(), OpenError> {
    let damaged = |damage| match damage {
        Damage::Unread(source) if source.kind() == io::ErrorKind::NotFound => OpenError::Nothing {
            path: path.to_owned(),
        },
        Damage::Unread(source) if source.kind() == io::ErrorKind::PermissionDenied => {
            OpenError::Folder {
                path: path.to_owned(),
                source,
            }
        }
        damage => OpenError::Damaged {
            path: path.to_owned(),
            damage,
        },
    };
    let pages = Pages::open(path).map_err(Damage::from).map_err(damaged)?;
    let found = pages::newest(&pages)
        .and_then(|meta| pages::walk(&pages, &meta, Extent::Pages(LOOK)))
        .map_err(damaged)?;
    found
        .into_iter()
        .next()
        .map_or(Ok(()), |damage| Err(damaged(damage)))
}

/// Maps the file of a folder, into less address space where there is not as much.
pub(super) fn map<T: heed::TlsUsage>(
    path: &Path,
    mut size: usize,
    mut options: EnvOpenOptions<T>,
    flags: EnvFlags,
) -> heed::Result<(Env<T>, usize)> {
    loop {
        options.map_size(size).max_dbs(8).max_readers(READERS);
        #[expect(
            unsafe_code,
            reason = "who writes holds the folder's lock, and who does not asks to read only"
        )]
        let opened = unsafe { options.flags(flags).open(path) };
        match opened {
            Err(heed::Error::Io(error))
                if error.kind() == io::ErrorKind::OutOfMemory && size / 2 >= LEAST_MAP_SIZE =>
            {
                size /= 2
            }
            opened => return opened.map(|env| (env, size)),
        }
    }
}

/// The trees, made where they are missing, and the format; no tree is made in a store of a newer format.
fn trees(env: &Env) -> heed::Result<Result<[Tree; 5], u64>> {
    let mut txn = env.write_txn()?;
    let meta: Tree = env.create_database(&mut txn, Some("meta"))?;
    match meta.get(&txn, FORMAT_KEY)?.map(layout::last_u64) {
        Some(Ok(found)) if found <= FORMAT => {}
        Some(found) => return Ok(Err(found.unwrap_or(u64::MAX))),
        None => meta.put(&mut txn, FORMAT_KEY, &FORMAT.to_be_bytes())?,
    }
    let [_, partitions, entries, expiries, dropped] = TREES;
    let mut tree = |name| env.create_database(&mut txn, Some(name));
    let trees = [
        meta,
        tree(partitions)?,
        tree(entries)?,
        tree(expiries)?,
        tree(dropped)?,
    ];
    // Also when nothing is new: the handles of an aborted transaction end with it.
    txn.commit()?;
    Ok(Ok(trees))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    #[test]
    fn an_unlocked_folder_is_free_though_a_child_still_has_the_file() {
        let folder = tempfile::TempDir::new().unwrap();
        let lock = Lock::take(folder.path()).unwrap();
        assert!(matches!(
            Lock::take(folder.path()),
            Err(OpenError::InUse { .. })
        ));
        // As a fork does, until the child runs its program.
        let inherited = lock.0.try_clone().unwrap();
        drop(lock);
        drop(Lock::take(folder.path()).unwrap());
        drop(inherited);
    }
}
