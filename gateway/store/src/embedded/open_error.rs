//! Why a store cannot be opened, copied or checked.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::{
    journal::{self, JournalError},
    layout::FORMAT,
    pages::Damage,
};

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
    /// The start has to write, and the disk is full.
    #[error(
        "the data folder {path} cannot be used: its disk or quota is full ({source}). Nothing is lost: make room there, and start again; do not bring back an older copy"
    )]
    NoRoom {
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
    /// The journal is damaged.
    #[error(
        "the data folder {path} is damaged ({source}): bring back a copy of it (`chaos restore`), or name another folder"
    )]
    Journal {
        /// The folder.
        path: PathBuf,
        /// The damage.
        source: JournalError,
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

impl OpenError {
    /// Turns a failed write of a start into [`NoRoom`](Self::NoRoom) if the disk is full. LMDB calls a
    /// write that was cut short an input/output error, so a write of our own decides.
    pub(super) fn or_no_room(self, store: &Path) -> Self {
        let cause = match &self {
            Self::Folder { source, .. }
            | Self::Unreadable {
                source: heed::Error::Io(source),
                ..
            } => source,
            _ => return self,
        };
        let source = match cause.raw_os_error() {
            _ if journal::has_no_room(cause) => io::Error::from(cause.kind()),
            Some(EIO) => match journal::try_room(store) {
                Err(error) if journal::has_no_room(&error) => error,
                _ => return self,
            },
            _ => return self,
        };
        Self::NoRoom {
            path: store.to_owned(),
            source,
        }
    }
}

/// The number of "input/output error", the same on all Unix systems.
const EIO: i32 = 5;
