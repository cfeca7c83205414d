//! The start of a store: brings the trees up to date with the journal of an earlier process.

use std::{path::Path, time::Duration};

use super::{
    checkpoint,
    disk::Disk,
    journal::{self, Journal, JournalError},
    memory::Layer,
    open_error::OpenError,
    plan,
};

/// Bytes of changes that are written into the trees at a time.
const BYTES_PER_CHECKPOINT: usize = 32 << 20;

/// Writes the groups that the trees lack into them, and starts a new segment.
///
/// # Errors
/// The journal is damaged or cannot be read, or the trees cannot be written.
pub(super) fn recover(disk: &Disk, path: &Path) -> Result<Journal, OpenError> {
    let unreadable = |source| OpenError::Unreadable {
        path: path.to_owned(),
        source,
    };
    let damaged = |source| OpenError::Journal {
        path: path.to_owned(),
        source,
    };
    let folder = |source| OpenError::Folder {
        path: path.to_owned(),
        source,
    };
    let position = disk.journal_position().map_err(unreadable)?;
    let (mut layer, mut groups, mut failure) = (Layer::default(), 0u64, None);
    let end = journal::recover(path, position, &mut |group, content| {
        groups += 1;
        plan::replay(content, &mut layer).map_err(|_| JournalError::Content { group })?;
        if layer.bytes() >= BYTES_PER_CHECKPOINT && failure.is_none() {
            let written =
                checkpoint::write(disk, &std::mem::take(&mut layer), group, Duration::ZERO);
            failure = written.err();
        }
        Ok(())
    })
    .map_err(damaged)?;
    if let Some(error) = failure {
        return Err(unreadable(error));
    }
    if let Some((segment, offset)) = &end.torn {
        tracing::warn!(
            segment = %segment.display(),
            offset,
            "cut the end of the journal: a group was not completed, and never acknowledged"
        );
    }
    if groups > 0 {
        tracing::info!(groups, "recovered commits from the journal");
    }
    // The segment first: a store that knows a position in its journal is refused without one.
    let journal = Journal::start(path, end.last + 1).map_err(folder)?;
    if position != Some(end.last) {
        checkpoint::write(disk, &layer, end.last, Duration::ZERO).map_err(unreadable)?;
    }
    journal.finished().cut(end.last).map_err(folder)?;
    Ok(journal)
}
