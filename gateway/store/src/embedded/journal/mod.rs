//! The journal: groups of changes in the order of their commits, each durable with one append and
//! one sync. The trees follow later.
//!
//! Groups have consecutive numbers. They lie in segments, files that are filled with zeros
//! beforehand, so that a sync writes data only and allocates nothing. A segment is removed when the
//! trees have all its groups. Other processes read a running node's journal under a [`Pin`], which
//! keeps segments from being removed.
//!
//! [`mod@format`] is the content of a segment, [`recovery`] reads segments, this module writes them.
//! It knows nothing of what a group contains.

mod format;
mod pin;
mod recovery;
mod segments;

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use self::format::{GROUP_HEADER_BYTES, SEGMENT_HEADER_BYTES, SegmentHeader};
use self::segments::{SEGMENT_BYTES, Spares};
pub(super) use self::{
    format::GroupBuffer,
    pin::Pin,
    recovery::{JournalCopyError, copy, read, recover},
    segments::{FinishedSegments, Purpose},
};
pub use self::{recovery::JournalError, segments::FOLDER};

/// Why a group was not appended.
#[derive(Debug)]
pub(super) enum AppendError {
    /// Nothing was written, and the journal can be used further: the disk is full, say, which a
    /// file system that copies on write may be in a segment, too.
    NotWritten(io::Error),
    /// It is unknown what the disk has, even if a later sync succeeds. Nothing more may be appended.
    Unknown(io::Error),
}

/// Returns whether a write failed because the disk or a quota is full.
pub(super) fn has_no_room(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}

/// Writes as much as a segment into a store's folder, and removes it.
///
/// # Errors
/// There is no room for it, say.
pub(super) fn try_room(store: &Path) -> io::Result<()> {
    let folder = store.join(FOLDER);
    segments::create_folder(&folder)?;
    std::fs::remove_file(segments::create(&folder, SEGMENT_BYTES)?)
}

/// The writer's side of the journal.
#[derive(Debug)]
pub(super) struct Journal {
    folder: PathBuf,
    file: File,
    header: SegmentHeader,
    path: PathBuf,
    /// Offset of the next group in the segment.
    offset: u64,
    capacity: u64,
    next: u64,
    spares: Spares,
    finished: FinishedSegments,
}

impl Journal {
    /// Starts a new segment with the group `next`. The segments before it are removed as those of
    /// [`finished`](Self::finished) are.
    pub(super) fn start(store: &Path, next: u64) -> io::Result<Self> {
        let folder = store.join(FOLDER);
        segments::create_folder(&folder)?;
        File::open(store)?.sync_all()?;
        pin::create(&folder)?;
        let finished = FinishedSegments::of(&folder, next)?;
        let spares = Spares::of(&folder)?;
        let spare = segments::create(&folder, SEGMENT_BYTES)?;
        let (file, path, header) = segments::begin(&folder, &spare, next)?;
        Ok(Self {
            folder,
            file,
            header,
            path,
            offset: SEGMENT_HEADER_BYTES,
            capacity: SEGMENT_BYTES,
            next,
            spares,
            finished,
        })
    }

    /// Number of the last group.
    pub(super) fn last(&self) -> u64 {
        self.next - 1
    }

    /// Segments that are full.
    pub(super) fn finished(&self) -> &FinishedSegments {
        &self.finished
    }

    /// Makes sure that the next group has room.
    pub(super) fn reserve(
        &mut self,
        group: &GroupBuffer,
        purpose: Purpose,
    ) -> Result<(), AppendError> {
        let needed = group.padded_length();
        if self.offset + needed <= self.capacity {
            return Ok(());
        }
        let capacity = SEGMENT_BYTES.max(SEGMENT_HEADER_BYTES + needed);
        let spare = (capacity == SEGMENT_BYTES)
            .then(|| self.spares.take(purpose))
            .flatten();
        let spare = match spare {
            Some(spare) => spare,
            None => segments::create(&self.folder, capacity).map_err(AppendError::NotWritten)?,
        };
        // If this fails, a segment may already begin with the next group, which the old segment must
        // not get then.
        let (file, path, header) =
            segments::begin(&self.folder, &spare, self.next).map_err(AppendError::Unknown)?;
        let finished = std::mem::replace(&mut self.path, path);
        // One without groups began with the same group: the new one has taken its name.
        if self.offset > SEGMENT_HEADER_BYTES {
            self.finished.push(finished, self.last(), self.capacity);
        }
        (self.file, self.header) = (file, header);
        (self.offset, self.capacity) = (SEGMENT_HEADER_BYTES, capacity);
        Ok(())
    }

    /// Appends a group for which room was [reserved](Self::reserve), and returns its number and the
    /// time of the sync once it is durable.
    /// After [`AppendError::NotWritten`] the next group takes the place of this one.
    pub(super) fn append(
        &mut self,
        mut group: GroupBuffer,
    ) -> Result<(u64, Duration), AppendError> {
        let number = self.next;
        let bytes = group.seal(self.header.generation, number);
        self.file
            .write_all_at(bytes, self.offset)
            .map_err(|error| match has_no_room(&error) {
                true => AppendError::NotWritten(error),
                false => AppendError::Unknown(error),
            })?;
        let started_at = Instant::now();
        self.file.sync_data().map_err(AppendError::Unknown)?;
        let sync_time = started_at.elapsed();
        let half = self.capacity / 2;
        if self.offset <= half && self.offset + bytes.len() as u64 > half {
            self.spares.refill();
        }
        self.offset += bytes.len() as u64;
        self.next += 1;
        Ok((number, sync_time))
    }

    /// Bytes of the files that the trees do not have completely.
    pub(super) fn bytes(&self) -> u64 {
        self.finished.bytes() + self.offset
    }
}

const _: () = assert!(GROUP_HEADER_BYTES.is_multiple_of(format::ALIGNMENT));

#[cfg(test)]
mod tests;
