//! The conversion of a folder of the format before: values get checksums.

use std::{
    fs::{self, File},
    io,
    path::Path,
    time::{Duration, Instant},
};

use heed::{EnvFlags, RoTxn, RwTxn};

use super::{
    checksum,
    disk::{self, FORMAT_KEY},
    layout::FORMAT,
    open_error::OpenError,
    pages,
    steps::{self, Step},
    tree::Tree,
    trees::TreeDatabase,
};

/// Folder of the new file until it is complete, in the store's folder.
const FOLDER: &str = "converting";

/// LMDB's lock file.
const LOCK: &str = "lock.mdb";

/// Bytes of keys and values per transaction.
const BYTES_PER_TRANSACTION: usize = if cfg!(test) { 4 << 10 } else { 16 << 20 };

const PROGRESS_INTERVAL: Duration = Duration::from_secs(2);

/// Writes the store of a folder anew in the current format, and puts the new file in place of the
/// old one when it is complete. The caller holds the folder's lock. A conversion that a crash
/// interrupts starts again.
///
/// # Errors
/// The old file cannot be read, or the new one cannot be written. The old one is left as it was.
pub(super) fn convert(path: &Path) -> Result<(), OpenError> {
    let unreadable = |source| OpenError::Unreadable {
        path: path.to_owned(),
        source,
    };
    let folder_error = |source| OpenError::Folder {
        path: path.to_owned(),
        source,
    };
    let folder = path.join(FOLDER);
    remove_leftovers(path).map_err(folder_error)?;
    fs::create_dir(&folder).map_err(folder_error)?;
    steps::done(path, Step::ConversionBegun);
    tracing::info!(path = %path.display(), format = FORMAT, "converting the store to a newer format");
    let entries = write(path, &folder).map_err(unreadable)?;
    let replace = || {
        // A backup may still read the old file. The new one must not share a lock file with it.
        remove_if_there(fs::remove_file(path.join(LOCK)))?;
        steps::done(path, Step::LockFileRemoved);
        fs::rename(pages::path(&folder), pages::path(path))?;
        steps::done(path, Step::ConversionReplaced);
        File::open(path)?.sync_all()?;
        fs::remove_dir_all(&folder)
    };
    replace().map_err(folder_error)?;
    tracing::info!(entries, "converted the store");
    Ok(())
}

/// Removes what an interrupted conversion has left.
pub(super) fn remove_leftovers(path: &Path) -> io::Result<()> {
    remove_if_there(fs::remove_dir_all(path.join(FOLDER)))
}

fn remove_if_there(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// Returns the number of entries.
fn write(from: &Path, to: &Path) -> heed::Result<u64> {
    let (old, _) = disk::map(from, disk::MAP_SIZE, EnvFlags::READ_ONLY)?;
    let (new, _) = disk::map(to, disk::MAP_SIZE, EnvFlags::empty())?;
    let reads = old.read_txn()?;
    let mut txn = new.write_txn()?;
    let mut progress = Progress::new(&reads, &old)?;
    for tree in Tree::ALL {
        let target: TreeDatabase = new.create_database(&mut txn, Some(tree.name()))?;
        let Some(source): Option<TreeDatabase> = old.open_database(&reads, Some(tree.name()))?
        else {
            continue;
        };
        let mut bytes = 0;
        for entry in source.iter(&reads)? {
            let (key, value) = entry?;
            let format = FORMAT.to_be_bytes();
            let value = match (tree, key) {
                (Tree::Meta, FORMAT_KEY) => &format[..],
                _ => value,
            };
            put(&mut txn, target, tree, key, value)?;
            bytes += key.len() + value.len();
            progress.entry();
            if bytes >= BYTES_PER_TRANSACTION {
                txn.commit()?;
                steps::done(from, Step::ConversionPieceCommitted);
                txn = new.write_txn()?;
                bytes = 0;
            }
        }
    }
    txn.commit()?;
    steps::done(from, Step::ConversionCommitted);
    Ok(progress.done)
}

fn put(
    txn: &mut RwTxn<'_>,
    database: TreeDatabase,
    tree: Tree,
    key: &[u8],
    value: &[u8],
) -> heed::Result<()> {
    database.put(txn, key, &checksum::sealed(tree, key, value))
}

struct Progress {
    done: u64,
    total: u64,
    logged_at: Instant,
}

impl Progress {
    fn new(txn: &RoTxn<'_>, env: &heed::Env<heed::WithoutTls>) -> heed::Result<Self> {
        let mut total = 0;
        for tree in Tree::ALL {
            let database: Option<TreeDatabase> = env.open_database(txn, Some(tree.name()))?;
            total += database.map_or(Ok(0), |database| database.len(txn))?;
        }
        Ok(Self {
            done: 0,
            total,
            logged_at: Instant::now(),
        })
    }

    fn entry(&mut self) {
        self.done += 1;
        if self.logged_at.elapsed() >= PROGRESS_INTERVAL {
            self.logged_at = Instant::now();
            tracing::info!(done = self.done, total = self.total, "converting the store");
        }
    }
}
