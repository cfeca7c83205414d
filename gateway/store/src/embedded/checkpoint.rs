//! Checkpoints: a thread that brings the trees up to date with the journal, in large pieces.
//!
//! The writer freezes the changes in memory and hands them over. The thread writes them in the order
//! of their keys, in several transactions between which others use the disk; the last one stores the
//! number of the last group with them. Then it drops the frozen changes from memory and the segments
//! from the journal. An interrupted checkpoint is repeated after the next start: the changes are
//! resolved, so writing some of them twice changes nothing.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, Sender, SyncSender, TryRecvError, channel, sync_channel},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use super::{
    disk::{self, Disk, JOURNAL_KEY},
    fault,
    journal::FinishedSegments,
    memory::Layer,
    steps::{self, Step},
    tree::Tree,
};

/// The transactions in which a checkpoint writes changes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pieces {
    /// Bytes of keys and values in one transaction.
    pub(super) bytes: usize,
    /// Pause between two transactions, for the syncs of commits.
    pub(super) pause: Duration,
}

impl Pieces {
    pub(super) const DEFAULT: Self = Self {
        bytes: 4 << 20,
        pause: Duration::from_millis(5),
    };

    /// For a store that serves nobody.
    pub(super) fn without_pause(self) -> Self {
        Self {
            pause: Duration::ZERO,
            ..self
        }
    }
}

/// Pause before a failed checkpoint is tried again.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Frozen changes.
struct Job {
    layer: Layer,
    /// Number of the last group with changes in the layer.
    through: u64,
}

/// The writer's side of the checkpoints' thread.
#[derive(Debug)]
pub(super) struct Checkpoints {
    jobs: SyncSender<Job>,
    done: Receiver<()>,
    is_running: bool,
    /// Whether the last attempt failed.
    failing: Arc<AtomicBool>,
    /// Whether this handle was dropped.
    stopping: Arc<AtomicBool>,
}

/// A checkpoint that fails is not tried again: the journal has its changes.
impl Drop for Checkpoints {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Relaxed);
    }
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Job")
            .field("through", &self.through)
            .finish_non_exhaustive()
    }
}

impl Checkpoints {
    /// Starts the thread. It ends when this handle is dropped, after the running checkpoint.
    /// `on_broken` is called when no further checkpoint can succeed in this process.
    pub(super) fn start(
        disk: Arc<Disk>,
        segments: FinishedSegments,
        pieces: Pieces,
        on_broken: impl Fn() + Send + 'static,
    ) -> std::io::Result<(Self, JoinHandle<()>)> {
        let (jobs, queued) = sync_channel(1);
        let (finish, done) = channel();
        let failing = Arc::new(AtomicBool::new(false));
        let stopping = Arc::new(AtomicBool::new(false));
        let thread = Thread {
            disk,
            segments,
            pieces,
            failing: failing.clone(),
            stopping: stopping.clone(),
            finish,
            on_broken: Box::new(on_broken),
        };
        let thread = thread::Builder::new()
            .name("store-checkpoint".into())
            .spawn(move || thread.run(&queued))?;
        let checkpoints = Self {
            jobs,
            done,
            is_running: false,
            failing,
            stopping,
        };
        Ok((checkpoints, thread))
    }

    /// Hands over frozen changes. Must not be called while a checkpoint is running.
    pub(super) fn begin(&mut self, layer: Layer, through: u64) {
        self.is_running = self.jobs.send(Job { layer, through }).is_ok();
    }

    /// Returns whether the last checkpoint is not finished.
    pub(super) fn is_running(&mut self) -> bool {
        if self.is_running {
            self.is_running = matches!(self.done.try_recv(), Err(TryRecvError::Empty));
        }
        self.is_running
    }

    /// Waits until the last checkpoint is finished, at most so long.
    pub(super) fn wait(&mut self, timeout: Duration) {
        if self.is_running {
            self.is_running = matches!(
                self.done.recv_timeout(timeout),
                Err(std::sync::mpsc::RecvTimeoutError::Timeout)
            );
        }
    }

    /// Returns whether the last attempt failed.
    pub(super) fn is_failing(&self) -> bool {
        self.failing.load(Ordering::Relaxed)
    }
}

struct Thread {
    disk: Arc<Disk>,
    segments: FinishedSegments,
    pieces: Pieces,
    failing: Arc<AtomicBool>,
    stopping: Arc<AtomicBool>,
    finish: Sender<()>,
    on_broken: Box<dyn Fn() + Send>,
}

impl Thread {
    fn run(&self, jobs: &Receiver<Job>) {
        for job in jobs {
            while let Err(error) = write(&self.disk, &job.layer, job.through, self.pieces) {
                if !self.failing.swap(true, Ordering::Relaxed) {
                    tracing::error!(%error, "the store cannot write a checkpoint, will retry");
                }
                if disk::is_broken(&error) {
                    (self.on_broken)();
                    return;
                }
                if self.stopping.load(Ordering::Relaxed) {
                    return;
                }
                thread::sleep(RETRY_PAUSE);
            }
            self.failing.store(false, Ordering::Relaxed);
            self.disk.drop_frozen();
            if let Err(error) = self.segments.cut(job.through) {
                tracing::warn!(%error, "cannot remove a segment of the journal, will retry");
            }
            // Fails when the writer has ended.
            let _ = self.finish.send(());
        }
    }
}

/// Writes changes into the trees, with the number of the last group that has some of them, and
/// syncs.
pub(super) fn write(disk: &Disk, layer: &Layer, through: u64, pieces: Pieces) -> heed::Result<()> {
    let changes: Vec<_> = Tree::ALL
        .into_iter()
        .flat_map(|tree| layer.iter(tree).map(move |(key, value)| (tree, key, value)))
        .collect();
    let mut rest = &changes[..];
    loop {
        let mut bytes = 0;
        let length = rest
            .iter()
            .take_while(|(_, key, value)| {
                let has_room = bytes < pieces.bytes;
                bytes += key.len() + value.map_or(0, <[u8]>::len);
                has_room
            })
            .count();
        let (piece, after) = rest.split_at(length);
        with_growth(disk, || {
            let mut txn = disk.write()?;
            for (tree, key, value) in piece {
                disk.put(&mut txn, *tree, key, *value)?;
            }
            if after.is_empty() {
                let number = through.to_be_bytes();
                disk.put(&mut txn, Tree::Meta, JOURNAL_KEY, Some(&number))?;
            }
            txn.commit()
        })?;
        if after.is_empty() {
            steps::done(disk.path(), Step::CheckpointCommitted);
            disk.sync()?;
            steps::done(disk.path(), Step::CheckpointSynced);
            return Ok(());
        }
        steps::done(disk.path(), Step::PieceCommitted);
        rest = after;
        thread::sleep(pieces.pause);
    }
}

/// Retries an attempt in a larger map while it fails because the map is full.
fn with_growth<T>(disk: &Disk, mut attempt: impl FnMut() -> heed::Result<T>) -> heed::Result<T> {
    loop {
        match attempt() {
            Err(error) if fault::is_full(&error) => {
                let size = disk.grow()?;
                tracing::info!(size, "grew the store's memory map");
            }
            result => return result,
        }
    }
}
