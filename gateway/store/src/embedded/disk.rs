//! The data folder: its lock, LMDB's memory map, the format, and the trees with what is in memory.

use std::{
    fs::{self, File, TryLockError},
    io,
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
};

use heed::{Env, EnvFlags, EnvOpenOptions, MdbError, RoTxn, RwTxn, WithoutTls};
use parking_lot::{RwLock, RwLockReadGuard};

use super::{
    checksum, convert,
    layout::{self, FORMAT, UNSEALED_FORMAT},
    memory::{Layer, Memory},
    open_error::OpenError,
    pages::{self, Damage, Extent, Pages},
    tree::Tree,
    trees::{Sealing, TreeDatabase, Trees},
};

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

/// Key in `meta` of the number of the last journal group whose changes are in the trees.
pub(super) const JOURNAL_KEY: &[u8] = b"journal";

/// Number of pages that are checked before a store is opened. Takes some milliseconds if they are
/// cached, a second or two otherwise.
const PAGES_CHECKED_AT_OPEN: usize = 16_384;

/// An open data folder.
#[derive(Debug)]
pub(super) struct Disk {
    env: Env<WithoutTls>,
    databases: [TreeDatabase; 5],
    /// What the trees may lack. A checkpoint drops its part after its transaction is committed.
    memory: RwLock<Memory>,
    /// Read-locked by readers, write-locked to grow the map.
    growth: RwLock<()>,
    size: AtomicUsize,
    /// The last field: the map is closed before the lock is released.
    _lock: Lock,
}

/// A transaction in which the writer reads.
pub(super) struct WriterReads<'d> {
    txn: RoTxn<'d, WithoutTls>,
    databases: &'d [TreeDatabase; 5],
    _growth: RwLockReadGuard<'d, ()>,
}

impl WriterReads<'_> {
    /// Returns the trees with these changes above them.
    pub(super) fn trees<'t>(&'t self, memory: &'t Memory) -> Trees<'t> {
        Trees::new(self.databases, &self.txn, memory, Sealing::Sealed)
    }
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
        convert::remove_leftovers(path).map_err(folder)?;
        let is_new = !pages::path(path).exists();
        if !is_new {
            check_pages(path)?;
        }
        let unreadable = |source| OpenError::Unreadable {
            path: path.to_owned(),
            source,
        };
        let open_env = || {
            map(path, map_size, EnvFlags::NO_META_SYNC).map_err(|source| match source {
                heed::Error::Io(source) => folder(source),
                source => unreadable(source),
            })
        };
        let (mut env, mut size) = open_env()?;
        let mut opened = databases(&env).map_err(unreadable)?;
        if matches!(opened, Err(Refusal::Format(UNSEALED_FORMAT))) {
            drop(env);
            convert::convert(path)?;
            (env, size) = open_env()?;
            opened = databases(&env).map_err(unreadable)?;
        }
        let databases = opened.map_err(|refusal| match refusal {
            Refusal::Format(found) => OpenError::OtherFormat {
                path: path.to_owned(),
                found,
            },
            Refusal::Damage(damage) => OpenError::Damaged {
                path: path.to_owned(),
                damage,
            },
        })?;
        if is_new {
            // Commits sync the file; this syncs its directory entry.
            File::open(path)
                .and_then(|folder| folder.sync_all())
                .map_err(folder)?;
        }
        let disk = Self {
            env,
            databases,
            memory: RwLock::default(),
            growth: RwLock::new(()),
            size: AtomicUsize::new(size),
            _lock: lock,
        };
        disk.verify_meta().map_err(unreadable)?;
        Ok(disk)
    }

    /// Verifies the entries that all others depend on.
    fn verify_meta(&self) -> heed::Result<()> {
        self.read(|trees| {
            for entry in trees.iter(Tree::Meta)? {
                entry?;
            }
            Ok(())
        })
    }

    pub(super) fn path(&self) -> &Path {
        self.env.path()
    }

    /// Reads at one instant. Does not block writes, but must be short: pages that are freed
    /// meanwhile are not reused.
    pub(super) fn read<T, E: From<heed::Error>>(
        &self,
        read: impl FnOnce(Trees<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let _growth: RwLockReadGuard<'_, ()> = self.growth.read();
        let (txn, memory) = self.snapshot()?;
        read(Trees::new(&self.databases, &txn, &memory, Sealing::Sealed))
    }

    /// Returns the trees and what they may lack, of one instant: while the memory is locked, no
    /// checkpoint drops its changes, and no newer ones reach the trees.
    fn snapshot(&self) -> heed::Result<(RoTxn<'_, WithoutTls>, Memory)> {
        let memory = self.memory.read();
        Ok((self.env.read_txn()?, memory.clone()))
    }

    /// Begins reading for the writer, which reads with changes that readers do not see yet: the
    /// returned memory, and what the writer adds to it.
    pub(super) fn begin(&self) -> heed::Result<(WriterReads<'_>, Memory)> {
        let growth = self.growth.read();
        let (txn, memory) = self.snapshot()?;
        let reads = WriterReads {
            txn,
            databases: &self.databases,
            _growth: growth,
        };
        Ok((reads, memory))
    }

    /// Returns the number of the last group of the journal that the trees have; `None` if the store
    /// never had a journal.
    pub(super) fn journal_position(&self) -> heed::Result<Option<u64>> {
        self.read(journal_position)
    }

    /// Returns what the trees may lack.
    pub(super) fn memory(&self) -> Memory {
        self.memory.read().clone()
    }

    /// Bytes of changes that are not frozen, and of all changes that the trees may lack.
    pub(super) fn memory_bytes(&self) -> (usize, usize) {
        let memory = self.memory.read();
        (memory.active.bytes(), memory.bytes())
    }

    /// Makes changes visible to readers. Only the writer calls it.
    pub(super) fn publish(&self, active: Layer) {
        self.memory.write().active = active;
    }

    /// Freezes the changes for a checkpoint, and returns them. Only the writer calls it, while no
    /// checkpoint is running.
    pub(super) fn freeze(&self) -> Layer {
        let mut memory = self.memory.write();
        memory.frozen = std::mem::take(&mut memory.active);
        memory.frozen.clone()
    }

    /// Drops the changes of a checkpoint that is in the trees.
    pub(super) fn drop_frozen(&self) {
        self.memory.write().frozen = Layer::default();
    }

    /// Releases the readers of ended processes, for example of a killed backup. They keep freed
    /// pages from reuse. Returns their number.
    pub(super) fn release_dead_readers(&self) -> heed::Result<usize> {
        self.env.clear_stale_readers()
    }

    /// Begins a write transaction. Only the checkpoints' thread calls it.
    pub(super) fn write(&self) -> heed::Result<RwTxn<'_>> {
        self.env.write_txn()
    }

    /// Puts a value into a tree, or deletes it.
    pub(super) fn put(
        &self,
        txn: &mut RwTxn<'_>,
        tree: Tree,
        key: &[u8],
        value: Option<&[u8]>,
    ) -> heed::Result<()> {
        let database = self.databases[tree as usize];
        match value {
            Some(value) => database.put(txn, key, &checksum::sealed(tree, key, value)),
            None => database.delete(txn, key).map(drop),
        }
    }

    /// Returns the value of a key as the transaction sees it.
    #[cfg(test)]
    pub(super) fn stored(&self, txn: &RwTxn<'_>, tree: Tree, key: &[u8]) -> Option<Vec<u8>> {
        let memory = Memory::default();
        let trees = Trees::new(&self.databases, txn, &memory, Sealing::Sealed);
        trees
            .get(tree, key)
            .expect("an intact value")
            .map(<[u8]>::to_vec)
    }

    /// Syncs the last committed transaction: a commit alone leaves its meta page to the next one.
    pub(super) fn sync(&self) -> heed::Result<()> {
        self.env.force_sync()
    }

    /// Doubles the size of the map. Only the checkpoints' thread calls it, between its transactions.
    pub(super) fn grow(&self) -> heed::Result<usize> {
        let _exclusive = self.growth.write();
        let size = self.size.load(Ordering::Relaxed).saturating_mul(2);
        #[expect(
            unsafe_code,
            reason = "no transaction may be open: readers hold `growth`, and only the caller writes"
        )]
        unsafe { self.env.resize(size) }?;
        self.size.store(size, Ordering::Relaxed);
        Ok(size)
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

/// Returns the number of the last group of the journal that the trees have; `None` if the store
/// never had a journal.
pub(super) fn journal_position(trees: Trees<'_>) -> heed::Result<Option<u64>> {
    Ok(trees.get(Tree::Meta, JOURNAL_KEY)?.map(layout::first_u64))
}

/// Why the trees of a store are not used.
#[derive(Debug)]
enum Refusal {
    /// They have another format.
    Format(u64),
    Damage(Damage),
}

/// Opens the trees of a store, or creates those of a new one. Creates nothing in a store that it
/// refuses.
fn databases(env: &Env<WithoutTls>) -> heed::Result<Result<[TreeDatabase; 5], Refusal>> {
    let mut txn = env.write_txn()?;
    let names: Option<TreeDatabase> = env.open_database(&txn, None)?;
    let is_new = names.map_or(Ok(true), |names| names.is_empty(&txn))?;
    // The first transaction creates all.
    let lacks = |txn: &RwTxn<'_>, tree: Tree| -> heed::Result<bool> {
        let found: Option<TreeDatabase> = env.open_database(txn, Some(tree.name()))?;
        Ok(!is_new && found.is_none())
    };
    let damaged = |damage| Ok(Err(Refusal::Damage(damage)));
    if lacks(&txn, Tree::Meta)? {
        return damaged(Damage::MissingTree(Tree::Meta.name()));
    }
    let meta: TreeDatabase = env.create_database(&mut txn, Some(Tree::Meta.name()))?;
    match format(&txn, meta)? {
        Some(FORMAT) => {}
        Some(found) => return Ok(Err(Refusal::Format(found))),
        None if !is_new => return damaged(Damage::MissingFormat),
        None => {
            let format = checksum::sealed(Tree::Meta, FORMAT_KEY, &FORMAT.to_be_bytes());
            meta.put(&mut txn, FORMAT_KEY, &format)?;
        }
    }
    let mut databases = [meta; 5];
    for tree in Tree::ALL {
        if lacks(&txn, tree)? {
            return damaged(Damage::MissingTree(tree.name()));
        }
        databases[tree as usize] = env.create_database(&mut txn, Some(tree.name()))?;
    }
    // Needed even if nothing was created: aborting would close the handles.
    txn.commit()?;
    env.force_sync()?;
    Ok(Ok(databases))
}

/// Returns the format of a store, `u64::MAX` if it cannot be read; `None` if it has none yet.
pub(super) fn format(txn: &RoTxn<'_>, meta: TreeDatabase) -> heed::Result<Option<u64>> {
    let Some(stored) = meta.get(txn, FORMAT_KEY)? else {
        return Ok(None);
    };
    // Before format 3 values have no checksum.
    let value = match checksum::verified(Tree::Meta, FORMAT_KEY, stored) {
        Ok(value) => value,
        Err(_) => stored,
    };
    let format = <[u8; 8]>::try_from(value).map_or(u64::MAX, u64::from_be_bytes);
    Ok(Some(format))
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
