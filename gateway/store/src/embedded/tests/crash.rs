//! Folders as a crash leaves them, copied after every step that changes their files.

use std::{fs, io, ops::ControlFlow};

use super::{
    damage::{COMMIT, PAGE, word},
    folder::{MESSAGES, message, room},
    *,
};
use crate::{
    Commit, Partition,
    embedded::{
        checkpoint::Pieces,
        disk::{Disk, JOURNAL_KEY},
        fault::Fault,
        journal::{FOLDER, GroupBuffer, Journal, JournalError, Purpose, recover},
        pages, recovery,
        steps::{self, Step},
        tree::Tree,
    },
};

/// Limits with which a checkpoint has several pieces.
const SMALL_PIECES: CheckpointLimits = CheckpointLimits {
    bytes: 16 << 10,
    age: Duration::from_secs(300),
    max_bytes: 1 << 30,
    pieces: Pieces {
        bytes: 4 << 10,
        pause: Duration::ZERO,
    },
};

/// Limits with which checkpoints begin only when the store is closed.
const NO_CHECKPOINTS: CheckpointLimits = CheckpointLimits {
    bytes: usize::MAX,
    ..SMALL_PIECES
};

/// All entries of a store but its position in the journal: keys, and checksums of the values.
pub(super) type Content = Vec<(Tree, Vec<u8>, u32)>;

pub(super) fn content(disk: &Disk) -> Content {
    let all = |trees: crate::embedded::trees::Trees<'_>| {
        let mut content = Vec::new();
        for tree in Tree::ALL {
            for entry in trees.iter(tree)? {
                let (key, value) = entry?;
                if (tree, key) != (Tree::Meta, JOURNAL_KEY) {
                    content.push((tree, key.to_vec(), crc32fast::hash(value)));
                }
            }
        }
        Ok::<_, Fault>(content)
    };
    disk.read(all).unwrap()
}

fn start(path: &Path, limits: CheckpointLimits) -> Embedded {
    let options = Options {
        keep: Keep {
            events: 0,
            bytes: 0,
        },
        map_size: 64 << 10,
        limits,
        clock: Arc::new(|| 1),
    };
    Embedded::open_with(path, options, Local::new(Arc::new(()))).unwrap()
}

/// Makes a change: a new message of so many bytes, an edited one, a partition that expires, or a
/// removal.
async fn change(store: &Embedded, number: usize, bytes: usize) {
    let name = format!("m{number}");
    let (partition, commit) = match number % 5 {
        1 => {
            let mut edit = message(&format!("m{}", number - 1), "edited");
            edit.require.clear();
            (room(), edit)
        }
        2 => {
            let commit = Commit {
                expire: Some(Duration::from_secs(1)),
                ..message(&name, "hi")
            };
            (Partition::new(format!("channel:{number}")), commit)
        }
        3 => {
            let purged = store.purge(&room(), MESSAGES, None, 1).await;
            purged.unwrap().unwrap();
            return;
        }
        _ => (room(), message(&name, vec![number as u8; bytes])),
    };
    store.commit(&partition, commit).await.unwrap().unwrap();
}

/// Returns what a store holds after each of so many changes, the first one before them.
async fn contents(changes: usize, bytes: usize) -> Vec<Content> {
    let folder = TempDir::new().unwrap();
    let store = start(folder.path(), NO_CHECKPOINTS);
    let mut contents = vec![content(&store.disk)];
    for number in 0..changes {
        change(&store, number, bytes).await;
        contents.push(content(&store.disk));
    }
    store.close().await;
    contents
}

fn copy_files(from: &Path, to: &Path) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            fs::create_dir(&target)?;
            copy_files(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target)?;
        }
    }
    Ok(())
}

/// Copies a folder. A segment may get its name meanwhile: then from the beginning.
pub(super) fn copied(from: &Path) -> TempDir {
    let attempt = (0..100).try_for_each(|_| {
        let to = TempDir::new().unwrap();
        match copy_files(from, to.path()) {
            Ok(()) => ControlFlow::Break(to),
            Err(_) => ControlFlow::Continue(()),
        }
    });
    attempt.break_value().unwrap()
}

/// A folder as a crash would have left it.
pub(super) struct Crash {
    pub(super) step: Step,
    /// Changes that were acknowledged before.
    acknowledged: usize,
    pub(super) folder: TempDir,
}

/// Copies of a folder, made while it is used.
#[derive(Clone)]
pub(super) struct Crashes {
    acknowledged: Arc<AtomicI64>,
    copies: Arc<Mutex<Vec<Crash>>>,
}

impl Crashes {
    /// Copies a folder after each step, until the watch is dropped. Where the meta page of LMDB's
    /// last commit is not synced, a second copy has lost it.
    pub(super) fn watch(path: &Path) -> (Self, impl Drop + use<>) {
        let crashes = Self {
            acknowledged: Arc::default(),
            copies: Arc::default(),
        };
        let watched = crashes.clone();
        let (store, metas) = (path.to_owned(), Mutex::new(Vec::new()));
        let watch = steps::watch(path, move |step| {
            // The writer may be writing at the same time.
            if step == Step::SegmentFilled {
                return;
            }
            let acknowledged = watched.acknowledged.load(Ordering::SeqCst) as usize;
            let add = |folder| {
                watched.copies.lock().push(Crash {
                    step,
                    acknowledged,
                    folder,
                })
            };
            let copy = copied(&store);
            let data = fs::read(pages::path(copy.path())).unwrap();
            let before = std::mem::replace(&mut *metas.lock(), data[..2 * PAGE].to_vec());
            if matches!(step, Step::PieceCommitted | Step::CheckpointCommitted)
                && let Some(lost) = without_last_meta(data, &before)
            {
                let copy = copied(copy.path());
                fs::write(pages::path(copy.path()), lost).unwrap();
                add(copy);
            }
            add(copy);
        });
        (crashes, watch)
    }

    fn take(&self) -> Vec<Crash> {
        std::mem::take(&mut *self.copies.lock())
    }
}

/// Returns LMDB's file without the meta page of its last commit; `None` if it is unknown what that
/// page held before.
fn without_last_meta(mut data: Vec<u8>, before: &[u8]) -> Option<Vec<u8>> {
    let commit = |metas: &[u8], page: usize| word(metas, page * PAGE + COMMIT);
    let newest = usize::from(commit(&data, 1) > commit(&data, 0));
    if before.is_empty() || commit(before, newest) + 2 != commit(&data, newest) {
        return None;
    }
    let page = newest * PAGE..(newest + 1) * PAGE;
    data[page.clone()].copy_from_slice(&before[page]);
    Some(data)
}

/// Starts the store of a folder, which must be whole, and returns what it holds.
pub(super) fn restarted(path: &Path) -> Content {
    let disk = Disk::open(path, 64 << 10).unwrap();
    recovery::recover(&disk, path, &SMALL_PIECES).unwrap();
    assert_eq!(check::findings(&disk, path), Vec::<String>::new());
    content(&disk)
}

fn count(crashes: &[Crash], step: Step) -> usize {
    crashes.iter().filter(|crash| crash.step == step).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crash_during_a_running_nodes_checkpoint_loses_nothing() {
    const CHANGES: usize = 24;
    let expected = contents(CHANGES, 5_000).await;
    let folder = TempDir::new().unwrap();
    let store = start(folder.path(), SMALL_PIECES);
    let (crashes, watch) = Crashes::watch(folder.path());
    for number in 0..CHANGES {
        change(&store, number, 5_000).await;
        crashes.acknowledged.fetch_add(1, Ordering::SeqCst);
    }
    store.close().await;
    drop(watch);
    let crashes = crashes.take();
    assert!(count(&crashes, Step::PieceCommitted) > 3);
    assert!(count(&crashes, Step::CheckpointSynced) > 0);
    for crash in &crashes {
        let found = restarted(crash.folder.path());
        assert!(
            expected[crash.acknowledged..].contains(&found),
            "{:?} after {}",
            crash.step,
            crash.acknowledged
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crash_while_segments_begin_and_are_removed_loses_nothing() {
    const CHANGES: usize = 10;
    const BYTES: usize = 2_000_000;
    let expected = contents(CHANGES, BYTES).await;
    let folder = TempDir::new().unwrap();
    let store = start(folder.path(), NO_CHECKPOINTS);
    let (crashes, watch) = Crashes::watch(folder.path());
    for number in 0..CHANGES {
        change(&store, number, BYTES).await;
        crashes.acknowledged.fetch_add(1, Ordering::SeqCst);
    }
    store.close().await;
    drop(watch);
    let crashes = crashes.take();
    for step in [
        Step::SegmentHeaderWritten,
        Step::SegmentBegun,
        Step::SegmentRemoved,
    ] {
        assert!(count(&crashes, step) > 0, "{step:?}");
    }
    for crash in crashes {
        if crash.step == Step::PieceCommitted {
            continue;
        }
        // One that was not acknowledged may be there as a whole.
        let found = restarted(crash.folder.path());
        assert!(
            expected[crash.acknowledged..].contains(&found),
            "{:?} after {}",
            crash.step,
            crash.acknowledged
        );
    }
}

/// Returns a folder whose journal has segments of four groups, as many starts leave it, and what
/// the store holds.
async fn segmented(changes: usize) -> (TempDir, Content) {
    let folder = TempDir::new().unwrap();
    let store = start(folder.path(), NO_CHECKPOINTS);
    for number in 0..changes {
        change(&store, number, 5_000).await;
    }
    let content = content(&store.disk);
    let copy = copied(folder.path());
    store.close().await;
    let mut groups = Vec::new();
    recover(copy.path(), None, &mut |_, group| {
        groups.push(group);
        Ok::<_, JournalError>(())
    })
    .unwrap();
    fs::remove_dir_all(copy.path().join(FOLDER)).unwrap();
    let mut number = 1;
    for chunk in groups.chunks(4) {
        let mut journal = Journal::start(copy.path(), number).unwrap();
        for content in chunk {
            let mut group = GroupBuffer::new();
            group.content().extend(content);
            journal.reserve(&group, Purpose::Store).unwrap();
            number = journal.append(group).unwrap().0 + 1;
        }
    }
    (copy, content)
}

/// Starts the store of a folder, and returns it as crashes meanwhile would have left it.
pub(super) fn crashes_of_a_start(path: &Path) -> Vec<Crash> {
    let (crashes, watch) = Crashes::watch(path);
    restarted(path);
    drop(watch);
    crashes.take()
}

#[tokio::test]
async fn crash_during_a_start_loses_nothing() {
    let (folder, expected) = segmented(14).await;
    let crashes = crashes_of_a_start(copied(folder.path()).path());
    for (step, fewest) in [
        (Step::PieceCommitted, 3),
        (Step::CheckpointCommitted, 2),
        (Step::CheckpointSynced, 2),
        (Step::SegmentBegun, 1),
        (Step::SegmentRemoved, 4),
    ] {
        let found = count(&crashes, step);
        assert!(found >= fewest, "{step:?}: {found}");
    }
    for (index, crash) in crashes.iter().enumerate() {
        let again = copied(crash.folder.path());
        assert_eq!(restarted(again.path()), expected, "{:?}", crash.step);
        // The start after a crash can crash, too.
        if index % 5 == 0 {
            for second in crashes_of_a_start(crash.folder.path()) {
                let found = restarted(second.folder.path());
                assert_eq!(found, expected, "{:?}, {:?}", crash.step, second.step);
            }
        }
    }
}

/// The removal of segments is not synced: after a power failure any of them may be there again.
#[tokio::test]
async fn segments_that_the_trees_have_may_be_removed_in_any_order() {
    let (folder, expected) = segmented(14).await;
    let crashes = crashes_of_a_start(folder.path());
    let synced = crashes
        .iter()
        .rfind(|crash| crash.step == Step::CheckpointSynced)
        .unwrap();
    for removed in 0..1 << 4 {
        let copy = copied(synced.folder.path());
        for (index, first) in [1, 5, 9, 13].into_iter().enumerate() {
            if removed & 1 << index != 0 {
                let name = format!("{FOLDER}/{first:020}.segment");
                fs::remove_file(copy.path().join(name)).unwrap();
            }
        }
        assert_eq!(restarted(copy.path()), expected, "{removed:04b}");
    }
}
