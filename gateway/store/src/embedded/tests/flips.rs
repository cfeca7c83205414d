//! Single damaged bytes of the data file.

use std::collections::BTreeMap;

use super::{
    check::OddCheck,
    damage::{COMMIT, Data, PAGE, data_of, read, with, word},
    folder::{message, quiet, room},
    *,
};
use crate::{
    Partition,
    embedded::{check, disk::Disk, fault::Fault, tree::Tree},
};

type Entries = Vec<(Tree, Vec<u8>, Vec<u8>)>;

/// Creates a store with pages of each kind.
async fn small() -> Data {
    let folder = TempDir::new().unwrap();
    let store = quiet(folder.path());
    for i in 0..40 {
        let value = vec![b'm'; if i % 20 == 1 { 5_000 } else { 200 }];
        let commit = message(&format!("m{i}"), value);
        store.commit(&room(), commit).await.unwrap().unwrap();
    }
    for i in 0..12 {
        let partition = Partition::new(format!("channel:{i}"));
        let commit = message("m", "hi");
        store.commit(&partition, commit).await.unwrap().unwrap();
    }
    store.close().await;
    drop(store);
    data_of(folder.path())
}

/// Reads all entries as a node does: in order, and each by its key. Returns them, and how many were
/// not found by their keys.
fn served(path: &Path, whole: Option<&Entries>) -> Result<(Entries, usize), String> {
    let disk = Disk::open(path, 1 << 20).map_err(|error| error.to_string())?;
    let read = disk.read(|trees| {
        let (mut all, mut absent) = (Vec::new(), 0);
        for (tree, key, value) in whole.into_iter().flatten() {
            match trees.get(*tree, key)? {
                Some(found) => assert_eq!(found, value),
                None => absent += 1,
            }
        }
        for tree in Tree::ALL {
            for entry in trees.iter(tree)? {
                let (key, value) = entry?;
                all.push((tree, key.to_vec(), value.to_vec()));
            }
        }
        Ok::<_, Fault>((all, absent))
    });
    read.map_err(|fault| fault.to_string())
}

/// Returns whether a check says that something is wrong.
fn is_named(path: &Path) -> bool {
    let mut findings = 0;
    let summary = check::check(path, &mut OddCheck, &mut |_| findings += 1);
    findings > 0 || summary.is_err() || summary.is_ok_and(|summary| summary.lost_pages > 0)
}

/// What a page holds, by its flags.
fn kind(data: &[u8], page: usize) -> &'static str {
    match data[page * PAGE + 10] & 0x0f {
        0x01 => "branch",
        0x02 => "leaf",
        0x04 => "start of a long value",
        0x08 => "meta",
        _ => "free, or within a long value",
    }
}

/// Returns the page with the names of the trees, and the one page of the smallest tree.
fn root_pages(data: &[u8]) -> [usize; 2] {
    const ROOT_IN_DESCRIPTION: usize = 40;
    let commit = |page: usize| word(data, page * PAGE + COMMIT);
    let newest = usize::from(commit(1) > commit(0));
    let main = word(data, newest * PAGE + COMMIT - 16) as usize;
    let page = &data[main * PAGE..(main + 1) * PAGE];
    let name = page.windows(4).position(|key| key == b"meta").unwrap();
    let meta = word(page, name + 4 + ROOT_IN_DESCRIPTION) as usize;
    [main, meta]
}

/// Flips a bit of some bytes of each page. Returns how often that was harmless, by kind of page.
fn flip(
    data: &Data,
    is_chosen: impl Fn(usize, usize) -> bool,
) -> BTreeMap<&'static str, [usize; 2]> {
    let (whole, absent) = served(with(data, |_| {}).path(), None).unwrap();
    assert_eq!(absent, 0);
    let plain = read(with(data, |_| {}).path()).unwrap();
    let folder = with(data, |_| {});
    let mut counts = BTreeMap::<_, [usize; 2]>::new();
    for at in 0..data.len() {
        let (page, offset) = (at / PAGE, at % PAGE);
        if !is_chosen(page, offset) {
            continue;
        }
        let mut bytes = data.to_vec();
        bytes[at] ^= 1 << (at % 8);
        std::fs::write(folder.path().join("data.mdb"), &bytes).unwrap();
        let place = format!("byte {offset} of page {page} ({})", kind(data, page));
        let is_named = is_named(folder.path());
        let copied = read(folder.path());
        if let Some(copied) = &copied {
            assert_eq!(copied, &plain, "{place}");
        }
        let is_whole = match served(folder.path(), Some(&whole)) {
            Ok((found, absent)) => {
                assert!(found == whole, "{place}");
                absent == 0
            }
            Err(_) => false,
        };
        assert!(is_named || is_whole && copied.is_some(), "{place}");
        counts.entry(kind(data, page)).or_default()[usize::from(is_named)] += 1;
    }
    counts
}

#[tokio::test]
async fn flipped_byte_is_never_read_as_data_and_named_by_a_check() {
    let data = small().await;
    let roots = root_pages(&data);
    let counts = flip(&data, |page, offset| {
        let bounds = &data[page * PAGE + 12..page * PAGE + 16];
        let bound = |at: usize| usize::from(u16::from_ne_bytes([bounds[at], bounds[at + 1]]));
        let is_used = offset < bound(0) || offset >= bound(2);
        [0, 10, 12, 14].contains(&offset)
            || (page * PAGE + offset).is_multiple_of(2003)
            || is_used && offset % 3 == 0 && roots.contains(&page)
            || page < 2 && (16..COMMIT + 8).contains(&offset) && offset % 3 == 0
    });
    println!("{} pages: {counts:?}", data.len() / PAGE);
    for kind in ["branch", "leaf", "start of a long value", "meta"] {
        assert!(counts[kind][1] > 0, "{kind}");
    }
}

#[tokio::test]
#[ignore = "takes minutes"]
async fn every_flipped_byte_is_never_read_as_data_and_named_by_a_check() {
    let data = small().await;
    let counts = flip(&data, |_, _| true);
    println!("{} pages: {counts:?}", data.len() / PAGE);
}

/// A partition that is not found would be created anew, without its content.
#[tokio::test]
async fn partition_whose_name_is_damaged_is_not_absent() {
    let data = small().await;
    let folder = with(&data, |data| {
        let name = b"channel:room";
        let places: Vec<_> = data
            .windows(name.len())
            .enumerate()
            .filter_map(|(at, found)| (found == name).then_some(at))
            .collect();
        for at in places {
            // The order of the names stays.
            data[at + name.len() - 1] = b'n';
        }
    });
    let disk = Disk::open(folder.path(), 1 << 20).unwrap();
    let found = disk.read(|trees| trees.get(Tree::Partitions, b"channel:room").map(drop));
    assert!(matches!(found, Err(Fault::Damaged { .. })), "{found:?}");
    assert!(is_named(folder.path()));
}
