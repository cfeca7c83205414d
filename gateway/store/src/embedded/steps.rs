//! The steps in which the files of a store change. A crash after any of them loses nothing: tests
//! copy the folder there.

use std::path::Path;

/// A change of a store's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// A piece of a checkpoint is in the trees, and more follow.
    PieceCommitted,
    /// The last piece is in the trees, with the journal's position.
    CheckpointCommitted,
    /// The trees are synced.
    CheckpointSynced,
    /// A file for a segment is filled with zeros.
    SegmentFilled,
    /// It has its header.
    SegmentHeaderWritten,
    /// It has its name.
    SegmentBegun,
    /// A segment that the trees have is removed.
    SegmentRemoved,
    /// The folder of a conversion is there.
    ConversionBegun,
    /// A piece is in the converted file, and more may follow.
    ConversionPieceCommitted,
    /// The converted file is complete.
    ConversionCommitted,
    /// The old file has lost its lock file.
    LockFileRemoved,
    /// The converted file is in place of the old one.
    ConversionReplaced,
}

/// Marks the end of a step.
#[cfg(not(test))]
pub(super) fn done(_store: &Path, _step: Step) {}

#[cfg(test)]
pub(super) use self::watched::{done, watch};

#[cfg(test)]
mod watched {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

    use parking_lot::Mutex;

    use super::{Path, Step};

    type Watcher = Arc<dyn Fn(Step) + Send + Sync>;

    static WATCHERS: Mutex<BTreeMap<PathBuf, Watcher>> = Mutex::new(BTreeMap::new());

    /// Passes the steps of a folder to a watcher, on the thread that takes them, until it is dropped.
    pub(in super::super) fn watch(
        store: &Path,
        watcher: impl Fn(Step) + Send + Sync + 'static,
    ) -> Watch {
        let store = store.canonicalize().unwrap();
        WATCHERS.lock().insert(store.clone(), Arc::new(watcher));
        Watch(store)
    }

    pub(in super::super) struct Watch(PathBuf);

    impl Drop for Watch {
        fn drop(&mut self) {
            WATCHERS.lock().remove(&self.0);
        }
    }

    /// Marks the end of a step.
    pub(in super::super) fn done(store: &Path, step: Step) {
        let store = store.canonicalize().unwrap();
        let watcher = WATCHERS.lock().get(&store).cloned();
        if let Some(watcher) = watcher {
            watcher(step);
        }
    }
}
