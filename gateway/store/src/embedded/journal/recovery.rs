//! Reading a journal: its whole groups in order, and what is wrong with it.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use bytes::Bytes;

use super::{
    FOLDER,
    format::{
        ALIGNMENT, SEGMENT_HEADER_BYTES, SegmentHeader, SegmentKind, Trailer, group_at, is_cut_at,
    },
    segments::{self, SEGMENT_BYTES},
};

/// Attempts to read a segment in which a node writes: a group may be half written at one of them.
const READ_ATTEMPTS: usize = 100;

/// Why a journal cannot be read. Each names the place.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// A file cannot be read.
    #[error("{path} cannot be read: {source}")]
    Unreadable {
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The header of a segment is not as it was written.
    #[error("the first {SEGMENT_HEADER_BYTES} bytes of {path} are not as they were written")]
    Header {
        /// The segment.
        path: PathBuf,
    },
    /// A group is not as it was written, and later ones are there.
    #[error("group {group} of the journal, at byte {offset} of {path}, is not as it was written")]
    Group {
        /// Number of the group.
        group: u64,
        /// Its place in the segment.
        offset: usize,
        /// The segment.
        path: PathBuf,
    },
    /// A segment ends where none ends.
    #[error(
        "{path} is not complete: it was cut or changed at or after byte {offset}, where group {group} begins or the file ends"
    )]
    Incomplete {
        /// Number of the first group that may be missing.
        group: u64,
        /// Offset after the last whole group.
        offset: usize,
        /// The segment.
        path: PathBuf,
    },
    /// Groups that the trees do not have are missing.
    #[error(
        "the journal in {folder} lacks the groups from {group} on, and the trees lack them, too"
    )]
    Missing {
        /// Number of the first missing group.
        group: u64,
        /// Folder of the journal.
        folder: PathBuf,
    },
    /// The content of a group cannot be decoded.
    #[error("group {group} of the journal holds something that this version cannot read")]
    Content {
        /// Number of the group.
        group: u64,
    },
}

impl JournalError {
    /// Returns whether the journal was read, and is not as it was written.
    pub(in super::super) fn is_damage(&self) -> bool {
        !matches!(self, Self::Unreadable { .. })
    }
}

/// The end of a journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct JournalEnd {
    /// Number of the last whole group; 0 if there was never one.
    pub(in super::super) last: u64,
    /// The segment with bytes of a group that was not completed, and their offset.
    pub(in super::super) torn: Option<(PathBuf, usize)>,
}

/// Reads the journal of a store that no other process has open: passes each whole group after
/// `after` to `replay`. `after` is `None` if the store never had a journal.
///
/// # Errors
/// The journal is damaged, or `replay` failed, which ends the reading.
pub(in super::super) fn recover<E: From<JournalError>>(
    store: &Path,
    after: Option<u64>,
    replay: &mut dyn FnMut(u64, Bytes) -> Result<(), E>,
) -> Result<JournalEnd, E> {
    read_segments(store, after, 1, replay)
}

/// Reads the journal of a store to which a node may be writing, under a [`Pin`](super::Pin).
///
/// # Errors
/// The journal is damaged, or `replay` failed.
pub(in super::super) fn read(
    store: &Path,
    after: Option<u64>,
    replay: &mut dyn FnMut(u64, Bytes) -> Result<(), JournalError>,
) -> Result<JournalEnd, JournalError> {
    read_segments(store, after, READ_ATTEMPTS, replay)
}

/// Why a journal was not copied.
#[derive(Debug)]
pub(in super::super) enum JournalCopyError {
    /// It cannot be read.
    Source(JournalError),
    /// The copy cannot be written.
    Target(io::Error),
}

impl From<io::Error> for JournalCopyError {
    fn from(error: io::Error) -> Self {
        Self::Target(error)
    }
}

/// Copies the journal of a store to which a node may be writing into another store's folder, up to
/// the last whole group, under a [`Pin`](super::Pin). Each copied segment ends with a trailer, so
/// that a part that is missing later is noticed. Returns its length in bytes.
///
/// # Errors
/// The journal is damaged, or the copy cannot be written.
pub(in super::super) fn copy(from: &Path, to: &Path) -> Result<u64, JournalCopyError> {
    let (from, to) = (from.join(FOLDER), to.join(FOLDER));
    let found = segments::list(&from).map_err(|source| {
        JournalCopyError::Source(JournalError::Unreadable {
            path: from.clone(),
            source,
        })
    })?;
    segments::create_folder(&to)?;
    let mut bytes = 0;
    let mut found = found.into_iter().peekable();
    while let Some((first, path)) = found.next() {
        let segment =
            read_segment(&path, first, READ_ATTEMPTS).map_err(JournalCopyError::Source)?;
        let mut file = File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(segments::path(&to, first))?;
        let header = SegmentHeader {
            kind: SegmentKind::Copied,
            ..segment.header
        };
        let groups = &segment.bytes[SEGMENT_HEADER_BYTES as usize..segment.end];
        let trailer = match found.peek() {
            Some(_) => Trailer::Continued,
            None => Trailer::Last,
        };
        file.write_all(&header.encode())?;
        file.write_all(groups)?;
        file.write_all(&trailer.encode(header.generation, segment.next()))?;
        file.sync_all()?;
        bytes += file.metadata()?.len();
    }
    File::open(&to)?.sync_all()?;
    Ok(bytes)
}

fn read_segments<E: From<JournalError>>(
    store: &Path,
    after: Option<u64>,
    attempts: usize,
    replay: &mut dyn FnMut(u64, Bytes) -> Result<(), E>,
) -> Result<JournalEnd, E> {
    let folder = store.join(FOLDER);
    let missing = |group| JournalError::Missing {
        group,
        folder: folder.clone(),
    };
    let found = match segments::list(&folder) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(source) => {
            return Err(E::from(JournalError::Unreadable {
                path: folder.clone(),
                source,
            }));
        }
    };
    if let (true, Some(after)) = (found.is_empty(), after) {
        return Err(missing(after + 1).into());
    }
    let after = after.unwrap_or(0);
    let mut end = JournalEnd {
        last: after,
        torn: None,
    };
    let mut next = None;
    let mut trailer = None;
    for (first, path) in found {
        // After a power failure, any of the segments that the trees have may be removed.
        let is_needless = |next: u64| (next..=after + 1).contains(&first);
        if let Some(next) = next.filter(|next| *next != first && !is_needless(*next)) {
            // The segment before ends with a bad group, or a segment is missing.
            return Err(match end.torn {
                Some((path, offset)) => JournalError::Group {
                    group: next,
                    offset,
                    path,
                },
                None => missing(next),
            }
            .into());
        }
        if next.is_none() && first > after + 1 {
            return Err(missing(after + 1).into());
        }
        let segment = read_segment(&path, first, attempts)?;
        for (number, content) in (first..).zip(&segment.groups) {
            if number > after {
                replay(number, segment.bytes.slice(content.clone()))?;
            }
        }
        next = Some(segment.next());
        trailer = segment.trailer;
        let rest = &segment.bytes[segment.end..];
        let is_torn = trailer.is_none() && rest.iter().any(|byte| *byte != 0);
        end.torn = is_torn.then_some((path, segment.end));
    }
    if let (Some(next), Some(Trailer::Continued)) = (next, trailer) {
        return Err(missing(next).into());
    }
    let last = next.map_or(after, |next| next - 1);
    if last < after {
        return Err(missing(last + 1).into());
    }
    end.last = last;
    Ok(end)
}

/// The whole groups of a segment.
struct Segment {
    header: SegmentHeader,
    bytes: Bytes,
    groups: Vec<std::ops::Range<usize>>,
    /// Offset after the last whole group.
    end: usize,
    /// Only of a copy.
    trailer: Option<Trailer>,
}

impl Segment {
    /// Number of the group after those of the segment.
    fn next(&self) -> u64 {
        self.header.first + self.groups.len() as u64
    }
}

fn read_segment(path: &Path, first: u64, attempts: usize) -> Result<Segment, JournalError> {
    let mut attempt = 0;
    loop {
        attempt += 1;
        let bytes = fs::read(path).map_err(|source| JournalError::Unreadable {
            path: path.to_owned(),
            source,
        })?;
        let header = SegmentHeader::decode(&bytes)
            .filter(|header| header.first == first)
            .ok_or_else(|| JournalError::Header {
                path: path.to_owned(),
            })?;
        let (mut groups, mut end) = (Vec::new(), SEGMENT_HEADER_BYTES as usize);
        while let Some((number, content, next)) = group_at(&bytes, header.generation, end) {
            if number != first + groups.len() as u64 {
                break;
            }
            groups.push(content);
            end = next;
        }
        let is_followed = (end + ALIGNMENT..bytes.len())
            .step_by(ALIGNMENT)
            .any(|offset| group_at(&bytes, header.generation, offset).is_some());
        let group = first + groups.len() as u64;
        let trailer = match header.kind {
            SegmentKind::Live => None,
            SegmentKind::Copied => Trailer::decode(&bytes[end..], header.generation, group),
        };
        let is_complete = match header.kind {
            SegmentKind::Live => bytes.len() as u64 >= SEGMENT_BYTES && !is_cut_at(&bytes, end),
            SegmentKind::Copied => trailer.is_some(),
        };
        if is_complete && !is_followed {
            return Ok(Segment {
                header,
                bytes: bytes.into(),
                groups,
                end,
                trailer,
            });
        }
        if attempt == attempts {
            let (offset, path) = (end, path.to_owned());
            return Err(match is_followed {
                true => JournalError::Group {
                    group,
                    offset,
                    path,
                },
                false => JournalError::Incomplete {
                    group,
                    offset,
                    path,
                },
            });
        }
    }
}
