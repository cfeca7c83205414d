//! The check of LMDB's data file, page by page with ordinary reads.
//!
//! LMDB maps the file and trusts its content: a truncated file, or a page of the wrong kind, can
//! crash the process. This module finds such damage and returns an error before LMDB maps the file.
//!
//! It reads the two meta pages ([`meta`]) and the trees of pages ([`walk`](mod@walk)), and does not
//! interpret records.

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

/// Name of the data file in its folder.
pub const DATA: &str = "data.mdb";

/// Size of numbers in pages, which have the machine's word size and byte order.
const WORD: usize = size_of::<usize>();

/// Size of a page's header: its number, a reserved field, its flags, two bounds.
const HEADER: usize = WORD + 8;

/// Damage of the data file.
#[derive(Debug, thiserror::Error)]
pub enum Damage {
    /// The operating system cannot read the file.
    #[error("data.mdb cannot be read: {0}")]
    Unreadable(#[from] io::Error),
    /// The file ends within its first two pages.
    #[error("data.mdb has {0} bytes, too few for a store")]
    Empty(u64),
    /// The file ends before a page that is in use.
    #[error(
        "data.mdb ends after {length} bytes, and page {page} of {pages} is in use beyond: it was cut off"
    )]
    Truncated {
        /// Length of the file in bytes.
        length: u64,
        /// The page in use.
        page: u64,
        /// Number of pages that the file should have.
        pages: u64,
    },
    /// A meta page is invalid.
    #[error("meta page {0} of data.mdb is not as it was written")]
    Meta(u64),
    /// The two meta pages are not of consecutive commits.
    #[error(
        "the meta pages of data.mdb are of the commits {0} and {1}, not of two in a row: one of them is not as it was written"
    )]
    Torn(u64, u64),
    /// A tree is missing.
    #[error("data.mdb lacks the tree {0}")]
    MissingTree(&'static str),
    /// The entry with the format is missing.
    #[error("data.mdb does not tell its format")]
    MissingFormat,
    /// A page is invalid.
    #[error("page {page} of data.mdb {what}")]
    Page {
        /// The page.
        page: u64,
        /// The defect, as a predicate.
        what: &'static str,
    },
    /// The number of pages or entries of a tree differs from the number in its description.
    #[error("the tree {tree} of data.mdb has {found} {what} and counts {counted}")]
    Count {
        /// The name of the tree.
        tree: String,
        /// The kind of pages, or entries.
        what: &'static str,
        /// The actual number.
        found: u64,
        /// The number in the tree's description.
        counted: u64,
    },
}

impl Damage {
    /// Returns whether the damage only wastes space.
    pub(super) fn is_harmless(&self) -> bool {
        matches!(self, Self::Page { what: LOST, .. })
    }
}

const LOST: &str = "is neither in use nor free: its room is lost";

/// The data file, open for reading.
#[derive(Debug)]
pub(super) struct Pages {
    file: File,
}

impl Pages {
    /// Opens the data file of a folder.
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

/// Returns the path of the data file of a folder.
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
