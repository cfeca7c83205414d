//! Damaged files: truncated, zeroed, torn, overwritten.

use std::{fs, ops::Range as Bytes};

use proptest::prelude::*;

use super::{
    check::OddCheck,
    folder::{message, quiet, room},
    *,
};
use crate::{
    Partition,
    embedded::{
        OpenError, check, disk,
        journal::{self, Journal},
        pages,
        read_only::{self, ReadOnlyStore},
        tree::Tree,
    },
};

pub(super) const PAGE: usize = 4_096;
/// Offset of the commit number in a meta page; the number of the last page is before it.
pub(super) const COMMIT: usize = 144;

/// Returns a number in LMDB's file.
pub(super) fn word(data: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(data[at..at + 8].try_into().unwrap())
}

/// Creates a store of some hundred pages with long values, trees of several levels and free pages.
async fn large(path: &Path) {
    let store = quiet(path);
    for i in 0..300 {
        let length = if i % 20 == 0 { 20_000 } else { 100 };
        store
            .commit(&room(), message(&format!("m{i}"), vec![b'm'; length]))
            .await
            .unwrap()
            .unwrap();
        store
            .commit(&Partition::new(format!("channel:{i}")), message("m", "hi"))
            .await
            .unwrap()
            .unwrap();
    }
    store.close().await;
}

/// The data file of a closed store, and the number of its last group.
pub(super) struct Data {
    bytes: Vec<u8>,
    last_group: u64,
}

impl std::ops::Deref for Data {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Writes a modified copy of the file into a new folder, with an empty journal.
pub(super) fn with(data: &Data, write: impl FnOnce(&mut Vec<u8>)) -> TempDir {
    let folder = TempDir::new().unwrap();
    let journal = TempDir::new().unwrap();
    drop(Journal::start(journal.path(), data.last_group + 1).unwrap());
    // Copied, so that it is short: zeros take long to read.
    journal::copy(journal.path(), folder.path()).unwrap();
    let mut bytes = data.bytes.clone();
    write(&mut bytes);
    fs::write(pages::path(folder.path()), bytes).unwrap();
    folder
}

/// Returns the file of a store created by [`large`].
async fn data() -> Data {
    let folder = TempDir::new().unwrap();
    large(folder.path()).await;
    let data = data_of(folder.path());
    assert!(data.len() > 100 * PAGE);
    data
}

/// Returns the file of a closed store.
pub(super) fn data_of(folder: &Path) -> Data {
    let disk = disk::Disk::open(folder, 1 << 20).unwrap();
    Data {
        bytes: fs::read(pages::path(folder)).unwrap(),
        last_group: disk.journal_position().unwrap().unwrap(),
    }
}

/// Reads all entries of a store through LMDB, unless its pages are damaged.
pub(super) fn read(path: &Path) -> Option<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut store = ReadOnlyStore::open(path).ok()?;
    if !store.damage().ok()?.iter().all(pages::Damage::is_harmless) {
        return None;
    }
    store.check_format().ok()?;
    store.read_journal().ok()?;
    let mut all = Vec::new();
    for tree in Tree::ALL {
        for entry in store.trees().iter(tree).unwrap() {
            // A damaged value is detected.
            let (key, value) = entry.ok()?;
            all.push((key.to_vec(), value.to_vec()));
        }
    }
    Some(all)
}

#[tokio::test]
async fn truncated_file_is_refused_at_any_length() {
    let data = data().await;
    let whole = read(with(&data, |_| {}).path()).unwrap();
    for length in (0..data.len())
        .step_by(PAGE)
        .chain([1, 100, PAGE + 1, data.len() - 1])
    {
        let folder = with(&data, |data| data.truncate(length));
        match disk::Disk::open(folder.path(), 1 << 20) {
            Err(OpenError::Damaged { .. }) => {}
            Err(other) => panic!("{length}: {other}"),
            // Only free pages were cut off.
            Ok(disk) => {
                drop(disk);
                assert_eq!(read(folder.path()).unwrap(), whole, "{length}");
            }
        }
    }
    let sentence = disk::check_pages(with(&data, |data| data.truncate(data.len() / 2)).path())
        .unwrap_err()
        .to_string();
    assert!(
        sentence.contains("was cut off") && sentence.contains("chaos restore"),
        "{sentence}"
    );
}

#[tokio::test]
async fn zeroed_or_outdated_meta_page_is_refused() {
    let data = data().await;
    let commit = |page: usize| page * PAGE + COMMIT;
    let zeroed: [Bytes<usize>; 7] = [
        0..PAGE,
        PAGE..2 * PAGE,
        0..2 * PAGE,
        // Only the commit number, and everything that a commit writes in a meta page.
        commit(0)..commit(0) + 8,
        commit(1)..commit(1) + 8,
        32..commit(0) + 8,
        PAGE + 32..commit(1) + 8,
    ];
    for range in zeroed {
        let folder = with(&data, |data| data[range.clone()].fill(0));
        let error = disk::check_pages(folder.path()).unwrap_err();
        assert!(
            matches!(error, OpenError::Damaged { .. }) && error.to_string().contains("meta page"),
            "{range:?}: {error}"
        );
    }
}

#[tokio::test]
async fn zeroed_page_is_detected_or_changes_only_its_own_values() {
    let data = data().await;
    let whole = read(with(&data, |_| {}).path()).unwrap();
    let mut detected = 0;
    for page in 2..data.len() / PAGE {
        let folder = with(&data, |data| data[page * PAGE..(page + 1) * PAGE].fill(0));
        let Some(read) = read(folder.path()) else {
            detected += 1;
            continue;
        };
        // The page was free, or inside a long value.
        assert_eq!(read.len(), whole.len());
        assert!(
            read.iter()
                .zip(&whole)
                .all(|(a, b)| a == b || a.0 == b.0 && a.1.len() == b.1.len() && a.1.len() > PAGE),
            "{page}"
        );
    }
    assert!(detected > 50, "{detected}");
    let tail = with(&data, |data| {
        let length = data.len();
        data[length / 2..].fill(0);
    });
    assert!(
        matches!(
            disk::check_pages(tail.path()),
            Err(OpenError::Damaged { .. })
        ),
        "a store of this size is checked completely before it is opened"
    );
}

#[tokio::test]
async fn limited_check_starts_at_the_roots_of_the_trees() {
    let data = data().await;
    let is_found = |page: usize, limit: usize| {
        let folder = with(&data, |data| data[page * PAGE..(page + 1) * PAGE].fill(0));
        let pages = pages::Pages::open(folder.path()).unwrap();
        let meta = pages::newest(&pages).unwrap();
        !pages::walk(&pages, &meta, pages::Extent::Pages(limit))
            .unwrap()
            .is_empty()
    };
    let count = |limit: usize| {
        (2..data.len() / PAGE)
            .filter(|page| is_found(*page, limit))
            .count()
    };
    let (few, some, many) = (count(2), count(8), count(1_000));
    assert_eq!(few, 2, "the roots of the free pages and of the trees");
    assert!(few < some && some <= 8 && many > 50, "{some}, {many}");
}

/// A lost page is in no tree and in no list of free pages, for example through a defect of LMDB.
#[tokio::test]
async fn lost_page_is_reported_and_harmless() {
    let data = data().await;
    let whole = read(with(&data, |_| {}).path()).unwrap();
    let leaky = with(&data, |data| {
        let newer = if word(data, PAGE + COMMIT) > word(data, COMMIT) {
            PAGE
        } else {
            0
        };
        let last = word(data, newer + COMMIT - 8) + 1;
        data[newer + COMMIT - 8..][..8].copy_from_slice(&last.to_ne_bytes());
        data.resize((last as usize + 1) * PAGE, 0);
    });
    let summary = check::check(leaky.path(), &mut OddCheck, &mut |finding| {
        panic!("{finding:?}")
    })
    .unwrap();
    assert_eq!(summary.lost_pages, 1);
    let copy = TempDir::new().unwrap();
    read_only::copy(leaky.path(), copy.path()).unwrap();
    assert_eq!(read(copy.path()).unwrap(), whole);
    disk::Disk::open(leaky.path(), 1 << 20).unwrap();
}

#[test]
fn check_of_an_arbitrarily_overwritten_file_does_not_crash() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let data = runtime.block_on(data());
    let pages = data.len() / PAGE;
    let bytes = prop_oneof![
        prop::collection::vec(any::<u8>(), 1..64),
        (1usize..64).prop_map(|length| vec![0; length]),
        Just(vec![0xff; 8])
    ];
    // Half of the writes hit page headers.
    let place = (0..pages, prop_oneof![0..32usize, 0..PAGE]);
    proptest!(ProptestConfig::with_cases(400), |(writes in prop::collection::vec((place, bytes), 1..4))| {
        let folder = with(&data, |data| {
            for ((page, offset), bytes) in &writes {
                let start = page * PAGE + offset;
                let end = (start + bytes.len()).min(data.len());
                data[start..end].copy_from_slice(&bytes[..end - start]);
            }
        });
        // A crash would end this test's process.
        let _ = check::check(folder.path(), &mut OddCheck, &mut |_| {});
    });
}
