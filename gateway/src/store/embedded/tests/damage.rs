//! A file that is not as it was written: cut off, zeroed, torn, with other bytes in it.

use std::{fs, ops::Range as Bytes};

use proptest::prelude::*;

use super::{
    folder::{message, quiet, room},
    whole::Plain,
    *,
};
use crate::store::{
    Partition,
    embedded::{
        OpenError, check, disk,
        onlooker::{self, Onlooker},
        pages,
    },
};

const PAGE: usize = 4_096;
/// Where the number of the commit stands on a meta page, behind that of the last page.
const COMMIT: usize = 144;

/// A store of some hundred pages: with long values, with trees of several levels, with free pages.
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

/// A copy of the file in which something is written.
fn with(data: &[u8], write: impl FnOnce(&mut Vec<u8>)) -> TempDir {
    let folder = TempDir::new().unwrap();
    let mut data = data.to_vec();
    write(&mut data);
    fs::write(pages::path(folder.path()), data).unwrap();
    folder
}

/// The file of a store as [`large`] makes it.
async fn data() -> Vec<u8> {
    let folder = TempDir::new().unwrap();
    large(folder.path()).await;
    let data = fs::read(pages::path(folder.path())).unwrap();
    assert!(data.len() > 100 * PAGE);
    data
}

/// Everything in a store, as LMDB reads it, if its pages are sound.
fn read(path: &Path) -> Option<Vec<(Vec<u8>, Vec<u8>)>> {
    let onlooker = Onlooker::open(path).ok()?;
    if !onlooker
        .damage()
        .ok()?
        .iter()
        .all(pages::Damage::is_harmless)
    {
        return None;
    }
    let mut all = Vec::new();
    for tree in onlooker.trees().ok()? {
        let entries = tree
            .iter(onlooker.txn())
            .unwrap()
            .map(|entry| entry.map(|(key, value)| (key.to_vec(), value.to_vec())));
        all.extend(entries.collect::<heed::Result<Vec<_>>>().unwrap());
    }
    Some(all)
}

#[tokio::test]
async fn a_file_that_was_cut_off_is_refused_wherever_it_was() {
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
            // Nothing but free pages was cut off.
            Ok(disk) => {
                drop(disk);
                assert_eq!(read(folder.path()).unwrap(), whole, "{length}");
            }
        }
    }
    let sentence = disk::look(with(&data, |data| data.truncate(data.len() / 2)).path())
        .unwrap_err()
        .to_string();
    assert!(
        sentence.contains("was cut off") && sentence.contains("chaos restore"),
        "{sentence}"
    );
}

#[tokio::test]
async fn a_meta_page_that_is_zeroed_or_of_another_commit_is_refused() {
    let data = data().await;
    let commit = |page: usize| page * PAGE + COMMIT;
    let zeroed: [Bytes<usize>; 7] = [
        0..PAGE,
        PAGE..2 * PAGE,
        0..2 * PAGE,
        // The number of the commit alone, and all that a commit writes there.
        commit(0)..commit(0) + 8,
        commit(1)..commit(1) + 8,
        32..commit(0) + 8,
        PAGE + 32..commit(1) + 8,
    ];
    for range in zeroed {
        let folder = with(&data, |data| data[range.clone()].fill(0));
        let error = disk::look(folder.path()).unwrap_err();
        assert!(
            matches!(error, OpenError::Damaged { .. }) && error.to_string().contains("meta page"),
            "{range:?}: {error}"
        );
    }
}

#[tokio::test]
async fn of_a_zeroed_page_nothing_is_read_but_what_lay_on_it() {
    let data = data().await;
    let whole = read(with(&data, |_| {}).path()).unwrap();
    let mut noticed = 0;
    for page in 2..data.len() / PAGE {
        let folder = with(&data, |data| data[page * PAGE..(page + 1) * PAGE].fill(0));
        let Some(read) = read(folder.path()) else {
            noticed += 1;
            continue;
        };
        // It was free, or the inside of a long value.
        assert_eq!(read.len(), whole.len());
        assert!(
            read.iter()
                .zip(&whole)
                .all(|(a, b)| a == b || a.0 == b.0 && a.1.len() == b.1.len() && a.1.len() > PAGE),
            "{page}"
        );
    }
    assert!(noticed > 50, "{noticed}");
    let tail = with(&data, |data| {
        let length = data.len();
        data[length / 2..].fill(0);
    });
    assert!(
        matches!(disk::look(tail.path()), Err(OpenError::Damaged { .. })),
        "a store of this size is seen as a whole before it is opened"
    );
}

#[tokio::test]
async fn a_look_that_is_bounded_begins_at_the_tops_of_the_trees() {
    let data = data().await;
    let found = |page: usize, most: usize| {
        let folder = with(&data, |data| data[page * PAGE..(page + 1) * PAGE].fill(0));
        let pages = pages::Pages::open(folder.path()).unwrap();
        let meta = pages::newest(&pages).unwrap();
        !pages::walk(&pages, &meta, pages::Extent::Pages(most))
            .unwrap()
            .is_empty()
    };
    let all = |most: usize| {
        (2..data.len() / PAGE)
            .filter(|page| found(*page, most))
            .count()
    };
    let (few, some, many) = (all(2), all(8), all(1_000));
    assert_eq!(few, 2, "of the free pages and of the trees");
    assert!(few < some && some <= 8 && many > 50, "{some}, {many}");
}

/// A page that a defect of LMDB forgot, say: it is in no tree, and in no list of free ones.
#[tokio::test]
async fn a_page_that_is_lost_is_told_and_in_the_way_of_nothing() {
    let data = data().await;
    let whole = read(with(&data, |_| {}).path()).unwrap();
    let word = |data: &[u8], at: usize| u64::from_ne_bytes(data[at..at + 8].try_into().unwrap());
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
    let looked = check::check(leaky.path(), &mut Plain, &mut |finding| {
        panic!("{finding:?}")
    })
    .unwrap();
    assert_eq!(looked.lost_pages, 1);
    let copy = TempDir::new().unwrap();
    onlooker::copy(leaky.path(), copy.path()).unwrap();
    assert_eq!(read(copy.path()).unwrap(), whole);
    disk::Disk::open(leaky.path(), 1 << 20).unwrap();
}

#[test]
fn whatever_is_written_into_the_file_a_check_ends_with_an_answer() {
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
    // Half of it where pages say what they are.
    let place = (0..pages, prop_oneof![0..32usize, 0..PAGE]);
    proptest!(ProptestConfig::with_cases(400), |(writes in prop::collection::vec((place, bytes), 1..4))| {
        let folder = with(&data, |data| {
            for ((page, offset), bytes) in &writes {
                let start = page * PAGE + offset;
                let end = (start + bytes.len()).min(data.len());
                data[start..end].copy_from_slice(&bytes[..end - start]);
            }
        });
        // An end of the process would be an end of this test.
        let _ = check::check(folder.path(), &mut Plain, &mut |_| {});
    });
}
