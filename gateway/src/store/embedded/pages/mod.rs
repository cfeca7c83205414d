//! LMDB's file as it lies on the disk, read page by page with ordinary reads.
//!
//! LMDB maps the file and believes what stands in it: a file that ends too early ends the process with a signal, and so may
//! a page that is not what another says it is. What is read here is an error instead, so this looks before LMDB does.
//!
//! Owned here: the two meta pages ([`meta`]), the trees of pages behind them ([`walk`](mod@walk)). Left out: what the records mean.

mod meta;
mod walk;

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

pub(super) use self::{
    meta::{Meta, newest},
    walk::{Extent, walk},
};

/// The file of the store within its folder.
pub(crate) const DATA: &str = "data.mdb";

/// Pages and numbers in them have the machine's own width and byte order.
const WORD: usize = size_of::<usize>();

/// What stands before the content of a page: its number, a spare, its flags, two bounds.
const HEADER: usize = WORD + 8;

/// What is wrong with the file.
#[derive(Debug, thiserror::Error)]
pub enum Damage {
    /// The system does not give what should be there.
    #[error("data.mdb cannot be read: {0}")]
    Unread(#[from] io::Error),
    /// It ends before its first two pages do.
    #[error("data.mdb has {0} bytes, too few for a store")]
    Empty(u64),
    /// It ends before a page that is in use.
    #[error(
        "data.mdb ends after {length} bytes, and page {page} of {pages} is in use beyond: it was cut off"
    )]
    Short {
        /// Its length in bytes.
        length: u64,
        /// The page.
        page: u64,
        /// How many pages there should be.
        pages: u64,
    },
    /// A meta page is none.
    #[error("meta page {0} of data.mdb is not as it was written")]
    Meta(u64),
    /// The two meta pages are not those of two commits in a row.
    #[error(
        "the meta pages of data.mdb are of the commits {0} and {1}, not of two in a row: one of them is not as it was written"
    )]
    Torn(u64, u64),
    /// A page is not what it should be.
    #[error("page {page} of data.mdb {what}")]
    Page {
        /// The page.
        page: u64,
        /// What it does.
        what: &'static str,
    },
    /// A tree has other pages or entries than it counts.
    #[error("the tree {tree} of data.mdb has {found} {what} and counts {counted}")]
    Count {
        /// The name of the tree.
        tree: String,
        /// What is counted.
        what: &'static str,
        /// How many there are.
        found: u64,
        /// How many there should be.
        counted: u64,
    },
}

impl Damage {
    /// Whether it only takes room.
    pub(super) fn is_harmless(&self) -> bool {
        matches!(self, Self::Page { what: LOST, .. })
    }
}

/// What a page does that nothing leads to.
const LOST: &str = "is neither in use nor free: its room is lost";

/// The file, open for reading.
#[derive(Debug)]
pub(super) struct Pages {
    file: File,
}

impl Pages {
    /// Opens the file of a folder.
    pub(super) fn open(folder: &Path) -> io::Result<Self> {
        Ok(Self {
            file: File::open(path(folder))?,
        })
    }

    pub(super) fn length(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read(&self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        self.file.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    }
}

/// The path of a folder's file.
pub(super) fn path(folder: &Path) -> PathBuf {
    folder.join(DATA)
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    bytes
        .get(at..)
        .and_then(<[u8]>::first_chunk)
        .map_or(0, |bytes| u16::from_ne_bytes(*bytes))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes
        .get(at..)
        .and_then(<[u8]>::first_chunk)
        .map_or(0, |bytes| u32::from_ne_bytes(*bytes))
}

fn word_at(bytes: &[u8], at: usize) -> u64 {
    bytes
        .get(at..)
        .and_then(<[u8]>::first_chunk)
        .map_or(0, |bytes| usize::from_ne_bytes(*bytes) as u64)
}
