#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::os::unix::fs::FileExt;

use bytes::Bytes;
use fanout::LogRateLimit;
use tempfile::TempDir;

use super::{super::fault::tests::Lines, *};

type Groups = Vec<(u64, Bytes)>;

/// Maximum size of the last group of [`two`], with its header.
const LAST_GROUP_BYTES: usize = 96;

fn group(content: &[u8]) -> GroupBuffer {
    let mut group = GroupBuffer::new();
    group.content().extend(content);
    group
}

fn append(journal: &mut Journal, content: &[u8]) -> u64 {
    let group = group(content);
    journal.reserve(&group, Purpose::Store).unwrap();
    journal.append(group).unwrap().0
}

/// Reads the groups after `after`, and whether the journal ends within a group.
fn recovered(store: &Path, after: impl Into<Option<u64>>) -> Result<(Groups, bool), JournalError> {
    let (mut groups, after) = (Vec::new(), after.into());
    let end = recover(store, after, &mut |number, content| {
        groups.push((number, content));
        Ok(())
    })?;
    assert_eq!(
        end.last,
        groups
            .last()
            .map_or(after.unwrap_or(0), |(number, _)| *number)
    );
    Ok((groups, end.torn.is_some()))
}

fn content(number: u64) -> Vec<u8> {
    format!("group {number} ")
        .repeat(number as usize)
        .into_bytes()
}

/// Copies a journal of six groups, the last three in a second segment: the files are small, so that
/// a test can change every byte. Returns the segments of the copy.
fn small(store: &Path) -> [PathBuf; 2] {
    let source = TempDir::new().unwrap();
    two(source.path());
    copy(source.path(), store).unwrap();
    [1, 4].map(|first| segments::path(&store.join(FOLDER), first))
}

/// Creates a journal of six groups, the last three in a second segment. Returns the segments, with
/// the ends of their groups.
fn two(store: &Path) -> [(PathBuf, usize); 2] {
    // A process that starts again begins a new segment.
    [1, 4].map(|first| {
        let mut journal = Journal::start(store, first).unwrap();
        for number in first..first + 3 {
            append(&mut journal, &content(number));
        }
        (journal.path, journal.offset as usize)
    })
}

fn all_groups() -> Groups {
    (1..=6).map(|n| (n, content(n).into())).collect()
}

#[test]
fn groups_are_read_in_order_from_any_position() {
    let store = TempDir::new().unwrap();
    small(store.path());
    for after in 0..=6 {
        let expected = all_groups().split_off(after as usize);
        assert_eq!(recovered(store.path(), after).unwrap(), (expected, false));
    }
}

#[test]
fn cut_segment_of_a_copy_is_refused_wherever_it_is_cut() {
    let store = TempDir::new().unwrap();
    for path in small(store.path()) {
        let bytes = std::fs::read(&path).unwrap();
        for length in 0..bytes.len() {
            std::fs::write(&path, &bytes[..length]).unwrap();
            refused_at(&path, store.path(), length);
        }
        std::fs::write(&path, &bytes).unwrap();
    }
    assert_eq!(recovered(store.path(), 0).unwrap(), (all_groups(), false));
}

#[test]
fn cut_segment_of_a_node_is_refused_wherever_it_is_cut() {
    let store = TempDir::new().unwrap();
    let [(first, end), (last, _)] = two(store.path());
    let bytes = std::fs::read(&first).unwrap();
    assert_eq!(bytes.len() as u64, SEGMENT_BYTES);
    for length in (0..end + 50).chain([bytes.len() - 1]) {
        std::fs::write(&first, &bytes[..length]).unwrap();
        refused_at(&first, store.path(), length);
    }
    std::fs::write(&first, &bytes).unwrap();
    let bytes = std::fs::read(&last).unwrap();
    for length in [0, 32, 100, bytes.len() / 2, bytes.len() - 1] {
        std::fs::write(&last, &bytes[..length]).unwrap();
        refused_at(&last, store.path(), length);
    }
}

#[test]
fn cut_segment_of_a_large_group_is_refused() {
    let store = TempDir::new().unwrap();
    let mut journal = Journal::start(store.path(), 1).unwrap();
    append(&mut journal, &vec![1; SEGMENT_BYTES as usize + 5_001]);
    let copied = TempDir::new().unwrap();
    copy(store.path(), copied.path()).unwrap();
    for store in [store.path(), copied.path()] {
        let path = segments::path(&store.join(FOLDER), 1);
        let bytes = std::fs::read(&path).unwrap();
        let standard = SEGMENT_BYTES as usize;
        for length in [standard, standard + 4_000, bytes.len() - 8, bytes.len() - 1] {
            std::fs::write(&path, &bytes[..length]).unwrap();
            refused_at(&path, store, length);
        }
    }
}

fn refused_at(path: &Path, store: &Path, length: usize) {
    match recovered(store, 0) {
        Err(JournalError::Header { path: found }) => {
            assert!(length < SEGMENT_HEADER_BYTES as usize && found == path);
        }
        Err(JournalError::Incomplete { path: found, .. }) => assert_eq!(found, path),
        other => panic!("{} cut to {length}: {other:?}", path.display()),
    }
}

#[test]
fn copy_without_its_last_segment_is_refused() {
    let store = TempDir::new().unwrap();
    let [_, last] = small(store.path());
    std::fs::remove_file(last).unwrap();
    for after in 0..=3 {
        let refused = recovered(store.path(), after);
        assert!(
            matches!(refused, Err(JournalError::Missing { group: 4, .. })),
            "{after}: {refused:?}"
        );
    }
}

#[test]
fn node_goes_on_after_a_copy() {
    let store = TempDir::new().unwrap();
    small(store.path());
    let mut journal = Journal::start(store.path(), 7).unwrap();
    let pin = Pin::acquire(store.path()).unwrap();
    // A reader keeps the copied segments.
    journal.finished().cut(6).unwrap();
    append(&mut journal, &content(7));
    drop(pin);
    let mut expected = all_groups();
    expected.push((7, content(7).into()));
    assert_eq!(
        recovered(store.path(), 0).unwrap(),
        (expected.clone(), false)
    );
    let copied = TempDir::new().unwrap();
    copy(store.path(), copied.path()).unwrap();
    assert_eq!(recovered(copied.path(), 0).unwrap(), (expected, false));
}

#[test]
fn flipped_byte_of_a_copy_is_refused() {
    let store = TempDir::new().unwrap();
    for path in small(store.path()) {
        let bytes = std::fs::read(&path).unwrap();
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x10;
            std::fs::write(&path, &flipped).unwrap();
            let error = recovered(store.path(), 0).unwrap_err().to_string();
            assert!(error.contains(&path.display().to_string()), "byte {at}");
        }
        std::fs::write(&path, &bytes).unwrap();
    }
}

#[test]
fn flipped_byte_of_a_node_is_refused_or_cuts_only_the_last_group() {
    let store = TempDir::new().unwrap();
    let segments = two(store.path());
    for (path, end) in &segments {
        let bytes = std::fs::read(path).unwrap();
        let file = std::fs::File::options().write(true).open(path).unwrap();
        // All bytes of the last group, which may be cut, and a sample of the others: a segment is
        // large, so that each takes some time.
        let is_tried = |at: &usize| at.is_multiple_of(13) || at + LAST_GROUP_BYTES >= *end;
        for at in (0..*end).filter(is_tried) {
            file.write_all_at(&[bytes[at] ^ 0x10], at as u64).unwrap();
            match recovered(store.path(), 0) {
                Ok((groups, is_torn)) => {
                    assert_eq!(path, &segments[1].0, "byte {at}");
                    assert!(groups.len() == 5 && is_torn, "byte {at}: {}", groups.len());
                    assert!(all_groups().starts_with(&groups));
                }
                Err(error) => assert!(error.to_string().contains(&path.display().to_string())),
            }
            file.write_all_at(&[bytes[at]], at as u64).unwrap();
        }
    }
}

/// A crash may lose any part of what was written since the last sync, in any order.
#[test]
fn lost_parts_of_the_last_group_lose_no_other_group() {
    let store = TempDir::new().unwrap();
    let mut journal = Journal::start(store.path(), 1).unwrap();
    append(&mut journal, b"synced");
    let start = journal.offset as usize;
    append(&mut journal, &[7; 2_000]);
    let path = segments::path(&store.path().join(FOLDER), 1);
    let whole = std::fs::read(&path).unwrap();
    for lost in 1..16u32 {
        let mut bytes = whole.clone();
        for block in (0..4).filter(|block| lost & 1 << block != 0) {
            let from = (start + block * 512).max(start);
            bytes[from..from + 512].fill(0);
        }
        std::fs::write(&path, bytes).unwrap();
        let (groups, _) = recovered(store.path(), 0).unwrap();
        assert_eq!(groups, [(1, Bytes::from_static(b"synced"))], "{lost:04b}");
    }
}

#[test]
fn missing_segment_is_refused_if_the_trees_lack_its_groups() {
    let store = TempDir::new().unwrap();
    let [first, last] = small(store.path());
    std::fs::remove_file(&first).unwrap();
    assert!(matches!(
        recovered(store.path(), 2),
        Err(JournalError::Missing { group: 3, .. })
    ));
    assert_eq!(recovered(store.path(), 3).unwrap().0.len(), 3);
    std::fs::remove_file(&last).unwrap();
    assert!(matches!(
        recovered(store.path(), 3),
        Err(JournalError::Missing { group: 4, .. })
    ));
    assert!(
        recovered(store.path(), 0).is_err(),
        "no commit may have reached the trees yet"
    );
    assert!(recovered(store.path(), None).unwrap().0.is_empty());
}

/// Creates a journal of nine groups in three segments, and returns these.
fn three(store: &Path) -> [PathBuf; 3] {
    [1, 4, 7].map(|first| {
        let mut journal = Journal::start(store, first).unwrap();
        for number in first..first + 3 {
            append(&mut journal, &content(number));
        }
        journal.path
    })
}

#[test]
fn missing_middle_segment_is_refused_unless_the_trees_have_its_groups() {
    let store = TempDir::new().unwrap();
    let [_, middle, _] = three(store.path());
    std::fs::remove_file(&middle).unwrap();
    for after in 0..6 {
        let refused = recovered(store.path(), after);
        assert!(
            matches!(refused, Err(JournalError::Missing { group: 4, .. })),
            "{after}: {refused:?}"
        );
    }
    for after in 6..=9 {
        let groups = recovered(store.path(), after).unwrap().0;
        assert!(groups.iter().map(|(number, _)| *number).eq(after + 1..=9));
    }
}

#[test]
fn bad_group_at_the_end_of_a_segment_is_refused_if_another_segment_follows() {
    let store = TempDir::new().unwrap();
    let [first, ..] = three(store.path());
    let mut bytes = std::fs::read(&first).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    bytes[end] ^= 1;
    std::fs::write(&first, bytes).unwrap();
    match recovered(store.path(), 0) {
        Err(JournalError::Group { group: 3, path, .. }) => assert_eq!(path, first),
        other => panic!("{other:?}"),
    }
}

#[test]
fn segment_under_the_name_of_another_one_is_refused() {
    let store = TempDir::new().unwrap();
    let paths = three(store.path());
    let bytes = paths.clone().map(|path| std::fs::read(path).unwrap());
    // Two are swapped, or one of an earlier time has a new name.
    for (one, other) in [(0, 1), (0, 2), (1, 2)] {
        for is_swapped in [true, false] {
            std::fs::write(&paths[other], &bytes[one]).unwrap();
            if is_swapped {
                std::fs::write(&paths[one], &bytes[other]).unwrap();
            }
            for after in 0..=9 {
                let refused = recovered(store.path(), after).unwrap_err();
                let JournalError::Header { path } = refused else {
                    panic!("{refused}");
                };
                assert!(path == paths[other] || is_swapped && path == paths[one]);
            }
            for (path, bytes) in paths.iter().zip(&bytes) {
                std::fs::write(path, bytes).unwrap();
            }
        }
    }
    let newest = segments::path(&store.path().join(FOLDER), 10);
    std::fs::write(&newest, &bytes[0]).unwrap();
    match recovered(store.path(), 0) {
        Err(JournalError::Header { path }) => assert_eq!(path, newest),
        other => panic!("{other:?}"),
    }
}

/// A file that is used again has the groups of its earlier time behind the new ones.
#[test]
fn groups_of_an_earlier_generation_are_no_groups() {
    let store = TempDir::new().unwrap();
    let [first, _, last] = three(store.path());
    let old = std::fs::read(&first).unwrap();
    let mut bytes = std::fs::read(&last).unwrap();
    let header = SEGMENT_HEADER_BYTES as usize;
    let end = (header..bytes.len())
        .rposition(|at| bytes[at] != 0)
        .unwrap()
        + header;
    let end = (end + 1).next_multiple_of(format::ALIGNMENT);
    let groups = &old[header..header + 400];
    bytes[end..end + 400].copy_from_slice(groups);
    std::fs::write(&last, bytes).unwrap();
    let (groups, is_torn) = recovered(store.path(), 0).unwrap();
    assert!(groups.iter().map(|(number, _)| *number).eq(1..=9) && is_torn);
}

#[test]
fn journal_that_ends_before_the_trees_is_refused() {
    let store = TempDir::new().unwrap();
    small(store.path());
    assert!(matches!(
        recovered(store.path(), 7),
        Err(JournalError::Missing { group: 7, .. })
    ));
}

#[test]
fn segments_are_removed_when_the_trees_have_them_unless_they_are_pinned() {
    let store = TempDir::new().unwrap();
    let mut journal = Journal::start(store.path(), 1).unwrap();
    let large = vec![1; SEGMENT_BYTES as usize];
    for number in 1..=3 {
        assert_eq!(append(&mut journal, &large), number);
    }
    assert_eq!(append(&mut journal, b"small"), 4);
    let count = || segments::list(&store.path().join(FOLDER)).unwrap().len();
    let before = count();
    assert_eq!(before, 4, "the empty first one was replaced");
    let pin = Pin::acquire(store.path()).unwrap().unwrap();
    journal.finished().cut(3).unwrap();
    assert_eq!(
        count(),
        before,
        "a reader in another process has pinned them"
    );
    drop(pin);
    journal.finished().cut(2).unwrap();
    assert_eq!(recovered(store.path(), 2).unwrap().0.len(), 2);
    journal.finished().cut(3).unwrap();
    assert_eq!(count(), 1);
    assert_eq!(
        recovered(store.path(), 3).unwrap().0,
        [(4, Bytes::from_static(b"small"))]
    );
}

#[test]
fn reader_that_keeps_a_large_journal_is_logged_once_a_second() {
    let store = TempDir::new().unwrap();
    let journal = Journal::start(store.path(), 1).unwrap();
    let finished = journal.finished();
    let lines = Lines::default();
    let count = || lines.0.load(std::sync::atomic::Ordering::Relaxed);
    let pin = Pin::acquire(store.path()).unwrap();
    tracing::subscriber::with_default(lines.clone(), || {
        let path = segments::path(&journal.folder, 0);
        finished.push(path.clone(), 0, (128 << 20) - 1);
        finished.cut(0).unwrap();
        assert_eq!(count(), 0, "a short backup is normal");
        finished.push(path, 0, 1);
        finished.cut(0).unwrap();
        assert_eq!(count(), 1);
        let (limit, start) = (LogRateLimit::new(1), Instant::now());
        for second in 0..3 {
            for _ in 0..100 {
                finished.log_pinned(&limit, start + Duration::from_secs(second));
            }
        }
        assert_eq!(count(), 4);
    });
    drop(pin);
}

#[test]
fn segment_without_groups_is_replaced_at_the_next_start() {
    let store = TempDir::new().unwrap();
    drop(Journal::start(store.path(), 1).unwrap());
    let mut journal = Journal::start(store.path(), 1).unwrap();
    journal.finished().cut(0).unwrap();
    append(&mut journal, b"first");
    assert_eq!(recovered(store.path(), 0).unwrap().0.len(), 1);
}

#[test]
fn interrupted_change_of_segments_ends_the_journal() {
    let store = TempDir::new().unwrap();
    let mut journal = Journal::start(store.path(), 1).unwrap();
    append(&mut journal, b"first");
    // The rename to the next segment fails.
    let next = segments::path(&store.path().join(FOLDER), 2);
    std::fs::create_dir(&next).unwrap();
    let large = group(&vec![1; SEGMENT_BYTES as usize]);
    let reserved = journal.reserve(&large, Purpose::Store);
    assert!(matches!(reserved, Err(AppendError::Unknown(_))));
    std::fs::remove_dir(&next).unwrap();
    assert_eq!(recovered(store.path(), 0).unwrap().0.len(), 1);
}

#[test]
fn large_group_leaves_the_spares() {
    let store = TempDir::new().unwrap();
    let mut journal = Journal::start(store.path(), 1).unwrap();
    for _ in 0..2 {
        let spare = segments::create(&journal.folder, SEGMENT_BYTES).unwrap();
        journal.spares.add(spare);
    }
    append(&mut journal, &vec![1; 2 * SEGMENT_BYTES as usize]);
    assert!(journal.spares.take(Purpose::Store).is_some());
    assert!(
        journal.spares.take(Purpose::Store).is_none(),
        "the last one is kept"
    );
    assert!(journal.spares.take(Purpose::Remove).is_some());
}

#[test]
fn copy_of_a_journal_that_grows_has_whole_groups() {
    let store = TempDir::new().unwrap();
    let mut journal = Journal::start(store.path(), 1).unwrap();
    append(&mut journal, b"before");
    std::thread::scope(|scope| {
        let appending = scope.spawn(|| {
            for _ in 0..200 {
                append(&mut journal, &[3; 30_000]);
            }
        });
        while !appending.is_finished() {
            let target = TempDir::new().unwrap();
            let _pin = Pin::acquire(store.path()).unwrap();
            copy(store.path(), target.path()).unwrap();
            let (groups, is_torn) = recovered(target.path(), 0).unwrap();
            assert!(!groups.is_empty() && !is_torn);
        }
    });
}
