//! The start of a store: brings the trees up to date with the journal of an earlier process.

use std::path::Path;

use super::{
    checkpoint,
    disk::Disk,
    journal::{self, Journal, JournalError},
    memory::Layer,
    open_error::OpenError,
    plan,
    writer::CheckpointLimits,
};

/// Why the journal cannot be brought into the trees.
#[derive(Debug, thiserror::Error)]
enum ReplayError {
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error(transparent)]
    Trees(#[from] heed::Error),
}

/// Writes the groups that the trees lack into them, in the pieces that the limits tell, and starts a
/// new segment.
///
/// # Errors
/// The journal is damaged or cannot be read, or the trees cannot be written.
pub(super) fn recover(
    disk: &Disk,
    path: &Path,
    limits: &CheckpointLimits,
) -> Result<Journal, OpenError> {
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
    let pieces = limits.pieces.without_pause();
    let position = disk.journal_position().map_err(unreadable)?;
    let (mut layer, mut groups) = (Layer::default(), 0u64);
    let end = journal::recover(path, position, &mut |group, content| {
        groups += 1;
        plan::replay(content, &mut layer).map_err(|_| JournalError::Content { group })?;
        if layer.bytes() >= limits.bytes {
            let full = std::mem::take(&mut layer);
            checkpoint::write(disk, &full, group, pieces)?;
        }
        Ok(())
    })
    .map_err(|error| match error {
        ReplayError::Journal(source) => damaged(source),
        ReplayError::Trees(source) => unreadable(source),
    })?;
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
        checkpoint::write(disk, &layer, end.last, pieces).map_err(unreadable)?;
    }
    journal.finished().cut(end.last).map_err(folder)?;
    Ok(journal)
}
