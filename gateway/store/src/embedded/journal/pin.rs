//! The lock by which readers in other processes keep segments from being removed.

use std::{
    fs::{File, TryLockError},
    io,
    path::Path,
};

use super::FOLDER;

const FILE: &str = "pin";

/// Keeps the segments of a store's journal while it is held. A process that ends releases it.
#[derive(Debug)]
pub(in super::super) struct Pin {
    /// None if the journal was copied: no node writes to it.
    _file: Option<File>,
}

impl Pin {
    /// Waits until the node is not removing segments, and pins them. Returns `None` if the store has
    /// no journal.
    pub(in super::super) fn acquire(store: &Path) -> io::Result<Option<Self>> {
        let folder = store.join(FOLDER);
        if !folder.is_dir() {
            return Ok(None);
        }
        let file = match File::open(folder.join(FILE)) {
            Ok(file) => Some(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        if let Some(file) = &file {
            file.lock_shared()?;
        }
        Ok(Some(Self { _file: file }))
    }
}

/// Returns the exclusive lock, unless another process holds a [`Pin`].
pub(super) fn try_exclusive(folder: &Path) -> io::Result<Option<File>> {
    let file = File::open(folder.join(FILE))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Creates the file that is locked, if it is not there.
pub(super) fn create(folder: &Path) -> io::Result<()> {
    File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(folder.join(FILE))
        .map(drop)
}
