//! The data folder: its lock, the memory map, the format and the trees.

use std::{
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
};

use heed::{
    Database, Env, EnvFlags, EnvOpenOptions, MdbError, RoTxn, RwTxn, WithoutTls, types::Bytes,
};
use parking_lot::{RwLock, RwLockReadGuard};

use super::{
    layout::{self, FORMAT},
    pages::{self, Damage, Extent, Pages},
};

/// An LMDB tree with byte strings as keys and values.
pub(super) type Tree = Database<Bytes, Bytes>;

/// Address space reserved for the map. It takes no memory until it is used, and grows when full.
pub(super) const MAP_SIZE: usize = if cfg!(target_pointer_width = "64") {
    1 << 40
} else {
    1 << 30
};

/// Minimum initial size of the map where address space is limited (`ulimit -v`).
const MIN_MAP_SIZE: usize = 1 << 28;

/// Maximum number of concurrent readers: all worker and blocking threads of a runtime.
const MAX_READERS: u32 = 1_024;

pub(super) const FORMAT_KEY: &[u8] = b"format";

/// The trees of a store, in the order of [`Disk`]'s fields.
pub(super) const TREES: [&str; 5] = ["meta", "partitions", "entries", "expiries", "dropped"];

/// Number of pages that are checked before a store is opened. Takes some milliseconds if they are
/// cached, a second or two otherwise.
const PAGES_CHECKED_AT_OPEN: usize = 16_384;

/// The reason why a store could not be opened. Each message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder cannot be created or written to.
    #[error(
        "the data folder {path} cannot be used ({source}): name one that this user may write to"
    )]
    Folder {
        /// The folder.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Another process has the folder open.
    #[error(
        "the data folder {path} is in use by another process: stop that one, or name another folder; several nodes share a Redis, not a folder"
    )]
    InUse {
        /// The folder.
        path: PathBuf,
    },
    /// Another version wrote the store in a different format.
    #[error(
        "the data folder {path} has format {found}, and this version reads format {FORMAT}: start the version that wrote it"
    )]
    OtherFormat {
        /// The folder.
        path: PathBuf,
        /// The format of the store.
        found: u64,
    },
    /// A process in another container has the same process id, and LMDB cannot distinguish them.
    #[error(
        "the data folder {path} is in use in another container: run this in the container of its node (`docker exec`, say)"
    )]
    OtherContainer {
        /// The folder.
        path: PathBuf,
    },
    /// The folder contains no store.
    #[error(
        "the folder {path} holds no store: name the data folder of a node with the embedded store, or a backup of one"
    )]
    NoStore {
        /// The folder.
        path: PathBuf,
    },
    /// The data file is damaged.
    #[error(
        "the data folder {path} is damaged ({damage}): bring back a copy of it (`chaos restore`), or name another folder; `chaos check` tells more"
    )]
    Damaged {
        /// The folder.
        path: PathBuf,
        /// The first damage that was found.
        damage: Damage,
    },
    /// A copy cannot be written.
    #[error(
        "the copy cannot be written to {path} ({source}): make room there, or name another folder"
    )]
    Copy {
        /// The target folder.
        path: PathBuf,
        /// The cause.
        source: heed::Error,
    },
    /// The file is not a store, or a broken one.
    #[error(
        "the data folder {path} cannot be read ({source}): bring back a copy of it, or name another folder"
    )]
    Unreadable {
        /// The folder.
        path: PathBuf,
        /// The cause.
        source: heed::Error,
    },
}

/// An open data folder.
#[derive(Debug)]
pub(super) struct Disk {
    env: Env<WithoutTls>,
    /// The format, the number for the next partition, and partly loaded partitions.
    pub(super) meta: Tree,
    /// The state of each partition, by name.
    pub(super) partitions: Tree,
    /// Documents, indexes and events of all partitions.
    pub(super) entries: Tree,
    /// Names of partitions by their expiry.
    pub(super) expiries: Tree,
    /// Numbers of dropped partitions whose entries are not removed yet.
    pub(super) dropped: Tree,
    /// Read-locked by readers, write-locked to grow the map.
    growth: RwLock<()>,
    size: AtomicUsize,
    /// The last field: the map is closed before the lock is released.
    _lock: Lock,
}

/// An exclusive lock on a data folder, released on drop.
#[derive(Debug)]
pub struct Lock(File);

impl Lock {
    /// Locks an existing folder.
    ///
    /// # Errors
    /// Another process holds the lock, or the lock file cannot be opened.
    pub fn acquire(path: &Path) -> Result<Self, OpenError> {
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
        // Closing the file is not enough: a process that another thread forks has the file open,
        // too, until its exec, and so holds the lock.
        if let Err(error) = self.0.unlock() {
            tracing::warn!(%error, "cannot unlock the data folder, it stays locked until this process ends");
        }
    }
}

impl Disk {
    /// Opens the store in a folder, or creates both.
    pub(super) fn open(path: &Path, map_size: usize) -> Result<Self, OpenError> {
        let folder = |source| OpenError::Folder {
            path: path.to_owned(),
            source,
        };
        fs::create_dir_all(path).map_err(folder)?;
        // Declared before the map, so that it is dropped after it if opening fails.
        let lock = Lock::acquire(path)?;
        let is_new = !pages::path(path).exists();
        if !is_new {
            check_pages(path)?;
        }
        let unreadable = |source| OpenError::Unreadable {
            path: path.to_owned(),
            source,
        };
        let (env, size) =
            map(path, map_size, EnvFlags::empty()).map_err(|source| match source {
                heed::Error::Io(source) => folder(source),
                source => unreadable(source),
            })?;
        let trees = trees(&env)
            .map_err(unreadable)?
            .map_err(|found| OpenError::OtherFormat {
                path: path.to_owned(),
                found,
            })?;
        if is_new {
            // Commits sync the file; this syncs its directory entry.
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

    /// Reads at one instant. Does not block writes, but must be short: pages that are freed
    /// meanwhile are not reused.
    pub(super) fn read<T, E: From<heed::Error>>(
        &self,
        read: impl FnOnce(&RoTxn) -> Result<T, E>,
    ) -> Result<T, E> {
        let _growth: RwLockReadGuard<'_, ()> = self.growth.read();
        let txn = self.env.read_txn()?;
        read(&txn)
    }

    /// Releases the readers of ended processes, for example of a killed backup. They keep freed
    /// pages from reuse. Returns their number.
    pub(super) fn release_dead_readers(&self) -> heed::Result<usize> {
        self.env.clear_stale_readers()
    }

    /// Begins a write transaction. Only the writer calls it.
    pub(super) fn write(&self) -> heed::Result<RwTxn<'_>> {
        self.env.write_txn()
    }

    /// Doubles the size of the map. Only the writer calls it, between its transactions.
    pub(super) fn grow(&self) -> heed::Result<usize> {
        let _exclusive = self.growth.write();
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

/// Returns whether a write failed because the map is full.
pub(super) fn is_full(error: &heed::Error) -> bool {
    matches!(error, heed::Error::Mdb(MdbError::MapFull))
}

/// Returns whether a write failed because the map, the disk or a quota is full.
pub(super) fn has_no_room(error: &heed::Error) -> bool {
    match error {
        heed::Error::Io(error) => matches!(
            error.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
        ),
        error => is_full(error),
    }
}

/// Returns whether LMDB refuses all further transactions. It does so after the last write of a
/// commit failed, until the store is opened again.
pub(super) fn is_broken(error: &heed::Error) -> bool {
    matches!(error, heed::Error::Mdb(MdbError::Panic))
}

/// Checks the first pages of the file before it is mapped, see [`pages`].
pub(super) fn check_pages(path: &Path) -> Result<(), OpenError> {
    let damaged = |damage| match damage {
        Damage::Unreadable(source) if source.kind() == io::ErrorKind::NotFound => {
            OpenError::NoStore {
                path: path.to_owned(),
            }
        }
        Damage::Unreadable(source) if source.kind() == io::ErrorKind::PermissionDenied => {
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
        .and_then(|meta| pages::walk(&pages, &meta, Extent::Pages(PAGES_CHECKED_AT_OPEN)))
        .map_err(damaged)?;
    found
        .into_iter()
        .next()
        .map_or(Ok(()), |damage| Err(damaged(damage)))
}

/// Maps the file of a folder. Halves the size while address space does not suffice.
///
/// Reader slots belong to transactions, not to threads: a thread releases its slot in a destructor
/// when it ends, which would write to unmapped memory if the store is closed at that moment.
pub(super) fn map(
    path: &Path,
    mut size: usize,
    flags: EnvFlags,
) -> heed::Result<(Env<WithoutTls>, usize)> {
    let mut options = EnvOpenOptions::new().read_txn_without_tls();
    loop {
        options.map_size(size).max_dbs(8).max_readers(MAX_READERS);
        #[expect(
            unsafe_code,
            reason = "a writer holds the folder's lock, all others open read-only"
        )]
        let opened = unsafe { options.flags(flags).open(path) };
        match opened {
            Err(heed::Error::Io(error))
                if error.kind() == io::ErrorKind::OutOfMemory && size / 2 >= MIN_MAP_SIZE =>
            {
                size /= 2;
            }
            opened => return opened.map(|env| (env, size)),
        }
    }
}

/// Opens the trees, and creates missing ones. Returns the format of a store that has another one,
/// and creates nothing there.
fn trees(env: &Env<WithoutTls>) -> heed::Result<Result<[Tree; 5], u64>> {
    let mut txn = env.write_txn()?;
    let meta: Tree = env.create_database(&mut txn, Some("meta"))?;
    match meta.get(&txn, FORMAT_KEY)?.map(layout::last_u64) {
        Some(Ok(found)) if found == FORMAT => {}
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
    // Needed even if nothing was created: aborting would close the handles.
    txn.commit()?;
    Ok(Ok(trees))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use std::{
        sync::{Arc, Barrier},
        thread,
    };

    use super::*;

    #[test]
    fn threads_that_have_read_can_end_while_the_store_closes() {
        const THREADS: usize = 4;
        let folder = tempfile::TempDir::new().unwrap();
        for _ in 0..500 {
            let disk = Arc::new(Disk::open(folder.path(), 1 << 24).unwrap());
            let ending = Arc::new(Barrier::new(THREADS + 1));
            let readers: Vec<_> = (0..THREADS)
                .map(|_| {
                    let (disk, ending) = (disk.clone(), ending.clone());
                    thread::spawn(move || {
                        disk.read::<_, heed::Error>(|_| Ok(())).unwrap();
                        drop(disk);
                        ending.wait();
                    })
                })
                .collect();
            ending.wait();
            drop(disk);
            for reader in readers {
                reader.join().unwrap();
            }
        }
    }

    #[test]
    fn dropping_the_lock_unlocks_although_a_child_has_the_file_open() {
        let folder = tempfile::TempDir::new().unwrap();
        let lock = Lock::acquire(folder.path()).unwrap();
        assert!(matches!(
            Lock::acquire(folder.path()),
            Err(OpenError::InUse { .. })
        ));
        // Like a forked child before its exec.
        let inherited = lock.0.try_clone().unwrap();
        drop(lock);
        drop(Lock::acquire(folder.path()).unwrap());
        drop(inherited);
    }
}
