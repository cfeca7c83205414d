//! The files of the journal: segments, by the number of their first group, and spares.

use std::{
    collections::VecDeque,
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use fanout::LogRateLimit;
use parking_lot::Mutex;

use super::{
    super::steps::{self, Step},
    format::{SegmentHeader, SegmentKind},
    pin,
};

/// Name of the journal's folder in a store's folder.
pub const FOLDER: &str = "journal";

/// Size of a segment. A larger group has a larger one of its own.
pub(super) const SEGMENT_BYTES: u64 = 4 << 20;

/// Purpose of a group: decides whether it may use the room that is kept for removals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Purpose {
    /// It stores something.
    Store,
    /// It removes something, which must be possible on a full disk.
    Remove,
}

const EXTENSION: &str = "segment";
const SPARE_EXTENSION: &str = "spare";

/// Spares that are prepared. The last one is kept for groups that remove something.
const SPARE_COUNT: usize = 2;

/// Bytes of segments from which on a reader that keeps them is logged: as many as changes in memory
/// before commits wait.
const PINNED_BYTES_LOGGED: u64 = 128 << 20;

/// Limit of log lines about such a reader.
static PINNED: LogRateLimit = LogRateLimit::new(1);

/// Bytes that are written at a time to fill a segment.
const FILL_BYTES: usize = 1 << 20;

/// Creates the folder of a journal, readable by its owner only, if it is not there.
pub(super) fn create_folder(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// Returns the segments of a journal in order, with the numbers of their first groups.
pub(super) fn list(folder: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut segments = Vec::new();
    for (path, name) in files(folder, EXTENSION)? {
        if let Ok(first) = name.parse() {
            segments.push((first, path));
        }
    }
    segments.sort_unstable();
    Ok(segments)
}

/// Returns the files with an extension, with their names without it.
fn files(folder: &Path, extension: &str) -> io::Result<Vec<(PathBuf, String)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_stem().and_then(|name| name.to_str());
        if let Some(name) = name.map(str::to_owned)
            && path.extension().is_some_and(|other| other == extension)
        {
            found.push((path, name));
        }
    }
    Ok(found)
}

/// Returns the path of the segment that begins with a group.
pub(super) fn path(folder: &Path, first: u64) -> PathBuf {
    folder.join(format!("{first:020}.{EXTENSION}"))
}

/// Creates a spare: a file of zeros, synced.
pub(super) fn create(folder: &Path, bytes: u64) -> io::Result<PathBuf> {
    let path = folder.join(format!("{:016x}.{SPARE_EXTENSION}", rand::random::<u64>()));
    let fill = || {
        let file = File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        let zeros = vec![0; FILL_BYTES];
        let mut offset = 0;
        while offset < bytes {
            let length = (bytes - offset).min(FILL_BYTES as u64);
            file.write_all_at(&zeros[..length as usize], offset)?;
            offset += length;
        }
        file.sync_all()
    };
    fill().inspect_err(|_| drop(fs::remove_file(&path)))?;
    done(folder, Step::SegmentFilled);
    Ok(path)
}

/// Turns a spare into the segment that begins with the group `first`.
pub(super) fn begin(
    folder: &Path,
    spare: &Path,
    first: u64,
) -> io::Result<(File, PathBuf, SegmentHeader)> {
    let header = SegmentHeader {
        kind: SegmentKind::Live,
        generation: rand::random(),
        first,
    };
    let file = File::options().write(true).open(spare)?;
    file.write_all_at(&header.encode(), 0)?;
    file.sync_data()?;
    done(folder, Step::SegmentHeaderWritten);
    let path = path(folder, first);
    fs::rename(spare, &path)?;
    done(folder, Step::SegmentBegun);
    File::open(folder)?.sync_all()?;
    Ok((file, path, header))
}

/// Marks the end of a step in the folder of a journal.
fn done(folder: &Path, step: Step) {
    if let Some(store) = folder.parent() {
        steps::done(store, step);
    }
}

/// Spare files, prepared by a thread of their own when a segment is half full.
#[derive(Debug, Clone)]
pub(super) struct Spares {
    folder: PathBuf,
    ready: Arc<Mutex<Vec<PathBuf>>>,
}

impl Spares {
    /// Removes the spares of an earlier process: a crash may have interrupted their creation.
    pub(super) fn of(folder: &Path) -> io::Result<Self> {
        for (path, _) in files(folder, SPARE_EXTENSION)? {
            fs::remove_file(&path)?;
        }
        Ok(Self {
            folder: folder.to_owned(),
            ready: Arc::default(),
        })
    }

    /// Returns a spare; `None` if none may be used for this purpose.
    pub(super) fn take(&self, purpose: Purpose) -> Option<PathBuf> {
        let mut ready = self.ready.lock();
        let kept = match purpose {
            Purpose::Store => 1,
            Purpose::Remove => 0,
        };
        if ready.len() > kept {
            ready.pop()
        } else {
            None
        }
    }

    pub(super) fn add(&self, spare: PathBuf) {
        self.ready.lock().push(spare);
    }

    /// Prepares the missing spares in the background.
    pub(super) fn refill(&self) {
        let spares = self.clone();
        let prepare = move || {
            while spares.ready.lock().len() < SPARE_COUNT {
                match create(&spares.folder, SEGMENT_BYTES) {
                    Ok(spare) => spares.add(spare),
                    // The writer tries again when it needs one, and reports the error.
                    Err(error) => return tracing::debug!(%error, "cannot prepare a segment"),
                }
            }
        };
        // Without the thread the writer creates its segments itself.
        let _ = std::thread::Builder::new()
            .name("store-segments".into())
            .spawn(prepare);
    }
}

#[derive(Debug)]
struct FinishedSegment {
    path: PathBuf,
    last: u64,
    bytes: u64,
}

/// Segments that are full. They are removed when the trees have their groups.
#[derive(Debug, Clone)]
pub(in super::super) struct FinishedSegments {
    folder: PathBuf,
    segments: Arc<Mutex<VecDeque<FinishedSegment>>>,
}

impl FinishedSegments {
    /// The segments of a folder before the group `next`.
    pub(super) fn of(folder: &Path, next: u64) -> io::Result<Self> {
        let mut segments = VecDeque::new();
        // One that begins with `next` has no group, and its file is replaced.
        for (_, path) in list(folder)?.into_iter().filter(|(first, _)| *first < next) {
            segments.push_back(FinishedSegment {
                bytes: fs::metadata(&path)?.len(),
                path,
                last: next - 1,
            });
        }
        Ok(Self {
            folder: folder.to_owned(),
            segments: Arc::new(Mutex::new(segments)),
        })
    }

    pub(super) fn push(&self, path: PathBuf, last: u64, bytes: u64) {
        self.segments
            .lock()
            .push_back(FinishedSegment { path, last, bytes });
    }

    pub(super) fn bytes(&self) -> u64 {
        self.segments
            .lock()
            .iter()
            .map(|segment| segment.bytes)
            .sum()
    }

    /// Removes the segments whose groups are all at or before `through`, unless another process
    /// reads the journal: then a later call removes them.
    ///
    /// # Errors
    /// A file cannot be removed. It stays in the list.
    pub(in super::super) fn cut(&self, through: u64) -> io::Result<()> {
        let Some(_exclusive) = pin::try_exclusive(&self.folder)? else {
            self.log_pinned(&PINNED, Instant::now());
            return Ok(());
        };
        let mut segments = self.segments.lock();
        while let Some(segment) = segments.front().filter(|segment| segment.last <= through) {
            fs::remove_file(&segment.path)?;
            segments.pop_front();
            done(&self.folder, Step::SegmentRemoved);
        }
        Ok(())
    }

    pub(super) fn log_pinned(&self, limit: &LogRateLimit, now: Instant) {
        let bytes = self.bytes();
        if bytes >= PINNED_BYTES_LOGGED
            && let Some(suppressed) = limit.pass(now)
        {
            tracing::warn!(
                bytes,
                suppressed,
                "another process reads the store and keeps its journal, which grows: end a `chaos backup` or `chaos check` that hangs"
            );
        }
    }
}
