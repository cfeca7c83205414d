//! The check of a store: it finds nothing in an intact store, and every violation of the layout.

use heed::RwTxn;

use super::{
    folder::{MESSAGES, PEOPLE, message, quiet, room},
    *,
};
use crate::{
    Commit, Document, DocumentKey, Mark, Partition, Write,
    embedded::{
        check::{self, CheckSummary, Finding, ValueCheck},
        disk::Disk,
        fault::Fault,
        layout::{self, LayoutState},
        pages::{self, Extent, Meta, Pages},
        tree::Tree,
    },
};

/// Finds fault with values and partitions named "odd".
pub(super) struct OddCheck;

impl ValueCheck for OddCheck {
    fn document(&mut self, table: &str, document: &Document) -> Option<Finding> {
        let is_odd = document.value == "odd";
        is_odd.then(|| Finding {
            what: format!("is odd in {table}"),
            repair: "would make it even".to_owned(),
        })
    }

    fn partition(&mut self, name: &str, _: &[(String, u64)]) -> Option<Finding> {
        (name == "odd").then(|| Finding {
            what: "is odd as a whole".to_owned(),
            repair: "would make it even".to_owned(),
        })
    }
}

/// Returns the findings in a store that is open in this process.
pub(super) fn findings(disk: &Disk, path: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let is_done = |found: &mut Vec<String>| {
        disk.read(|trees| {
            let pages = Pages::open(path).unwrap();
            // Two later commits may have overwritten the meta page.
            let Some(meta) = Meta::of(&pages, trees.commit()).unwrap() else {
                return Ok(false);
            };
            found.extend(
                pages::walk(&pages, &meta, Extent::Whole)
                    .unwrap()
                    .iter()
                    .map(ToString::to_string),
            );
            check::records(
                trees,
                &mut OddCheck,
                &mut |finding| found.push(finding.what),
                CheckSummary::default(),
            )?;
            Ok::<_, Fault>(true)
        })
    };
    while !is_done(&mut found).unwrap() {}
    found
}

const SHORT: &str = "short:lived";

/// Creates a room with six messages, a seventh event that edits the third, and two people; and a
/// partition that expires.
async fn rooms(path: &Path) -> Embedded {
    let store = quiet(path);
    for i in 1..=6 {
        store
            .commit(&room(), message(&format!("m{i}"), "hi"))
            .await
            .unwrap()
            .unwrap();
    }
    let mut edit = message("m3", "edited");
    edit.require.clear();
    store.commit(&room(), edit).await.unwrap().unwrap();
    let put = |key: &str| Write::Put {
        table: PEOPLE,
        key: DocumentKey::from(key),
        value: "hi".into(),
        mark: Mark::None,
        event: None,
    };
    store
        .commit(
            &room(),
            Commit {
                write: vec![put("ada"), put("bob")],
                ..Commit::default()
            },
        )
        .await
        .unwrap()
        .unwrap();
    let expire = Some(std::time::Duration::from_secs(3_600));
    store
        .commit(
            &Partition::new(SHORT),
            Commit {
                expire,
                ..message("m", "hi")
            },
        )
        .await
        .unwrap()
        .unwrap();
    store
}

fn state(disk: &Disk, txn: &mut RwTxn, name: &str, change: impl FnOnce(&mut LayoutState)) {
    let stored = disk.stored(txn, Tree::Partitions, name.as_bytes()).unwrap();
    let mut state = LayoutState::decode(&stored).unwrap();
    change(&mut state);
    put(
        disk,
        txn,
        Tree::Partitions,
        name.as_bytes(),
        &state.encode(),
    );
}

fn document(disk: &Disk, txn: &mut RwTxn, key: &[u8], change: impl FnOnce(&mut Document)) {
    let stored = disk.stored(txn, Tree::Entries, key).unwrap();
    let mut document = layout::decode_document(&stored).unwrap();
    change(&mut document);
    entry(disk, txn, key, &layout::encode_document(&document));
}

fn put(disk: &Disk, txn: &mut RwTxn, tree: Tree, key: &[u8], value: &[u8]) {
    disk.put(txn, tree, key, Some(value)).unwrap();
}

fn entry(disk: &Disk, txn: &mut RwTxn, key: &[u8], value: &[u8]) {
    put(disk, txn, Tree::Entries, key, value);
}

fn delete(disk: &Disk, txn: &mut RwTxn, key: &[u8]) {
    assert!(disk.stored(txn, Tree::Entries, key).is_some());
    disk.put(txn, Tree::Entries, key, None).unwrap();
}

type Sabotage = fn(&Disk, &mut RwTxn);

/// Violations, and a part of the resulting finding.
const BROKEN: [(Sabotage, &str); 32] = [
    (
        |disk, txn| delete(disk, txn, &layout::by_seq(1, 3)),
        "the log of channel:room lacks the events 3",
    ),
    (
        |disk, txn| delete(disk, txn, &layout::by_seq(1, 7)),
        "the log of channel:room lacks the events 7",
    ),
    (
        |disk, txn| entry(disk, txn, &layout::by_seq(1, 3), &[0x80]),
        "event 3 of channel:room cannot be read",
    ),
    (
        |disk, txn| {
            entry(
                disk,
                txn,
                &layout::by_seq(1, 3),
                &layout::encode_event(1, 1, b"m3"),
            )
        },
        "before the one before it",
    ),
    (
        |disk, txn| {
            entry(
                disk,
                txn,
                &layout::by_seq(1, 8),
                &layout::encode_event(1, 1, b"m3"),
            )
        },
        "and its head is 7",
    ),
    (
        |disk, txn| state(disk, txn, "channel:room", |state| state.head.floor.seq = 2),
        "holds event 1, and begins above 2",
    ),
    (
        |disk, txn| {
            state(disk, txn, "channel:room", |state| {
                state.head.at += 1_000_000
            })
        },
        "says that its log goes from 0 to 7, at instants",
    ),
    (
        |disk, txn| state(disk, txn, "channel:room", |state| state.head.at -= 1),
        "and its newest event of",
    ),
    (
        |disk, txn| state(disk, txn, "channel:room", |state| state.head.seq += 1),
        "lacks the events 8",
    ),
    (
        |disk, txn| state(disk, txn, "channel:room", |state| state.log_bytes += 1),
        "has 126 bytes, and its state says 127",
    ),
    (
        |disk, txn| state(disk, txn, "channel:room", |state| state.head.number += 1),
        "channel:room lacks the numbers 7",
    ),
    (
        |disk, txn| delete(disk, txn, &layout::by_number(1, 1)),
        "channel:room lacks the numbers 1",
    ),
    (
        |disk, txn| delete(disk, txn, &layout::by_number(1, 3)),
        "channel:room lacks the numbers 3",
    ),
    (
        |disk, txn| entry(disk, txn, &layout::by_number(1, 3), &[0x80]),
        "number 3 of channel:room cannot be read",
    ),
    (
        |disk, txn| {
            document(disk, txn, &layout::by_number(1, 3), |document| {
                document.stamps.number = 4
            })
        },
        "number 3 of channel:room is another",
    ),
    (
        |disk, txn| {
            document(disk, txn, &layout::by_number(1, 3), |document| {
                document.stamps.edited_at = u64::MAX
            })
        },
        "is newer than",
    ),
    (
        |disk, txn| {
            document(disk, txn, &layout::by_number(1, 3), |document| {
                document.counts = vec![("+".into(), 0)]
            })
        },
        "counts what cannot be",
    ),
    (
        |disk, txn| delete(disk, txn, &layout::by_change(1, 7, 3)),
        "changed last at event 7, and the index by change",
    ),
    (
        |disk, txn| entry(disk, txn, &layout::by_change(1, 3, 3), &[]),
        "the index by change has number 3 at event 3",
    ),
    (
        |disk, txn| delete(disk, txn, &layout::by_key(1, MESSAGES, "m3")),
        "has the key \"m3\", and the index by key",
    ),
    (
        |disk, txn| {
            entry(
                disk,
                txn,
                &layout::by_key(1, MESSAGES, "m3"),
                &2u64.to_be_bytes(),
            )
        },
        "says that \"m3\" has number 2",
    ),
    (
        |disk, txn| {
            entry(
                disk,
                txn,
                &layout::by_key(1, Table::numbered("n"), "m3"),
                &3u64.to_be_bytes(),
            )
        },
        "second numbered table",
    ),
    (
        |disk, txn| {
            document(disk, txn, &layout::by_key(1, PEOPLE, "ada"), |document| {
                document.key = "eve".into()
            })
        },
        "\"ada\" in table people",
    ),
    (
        |disk, txn| entry(disk, txn, &layout::by_key(1, PEOPLE, "ada"), &[0x80]),
        "a document of channel:room cannot be read",
    ),
    (
        |disk, txn| {
            document(disk, txn, &layout::by_key(1, PEOPLE, "ada"), |document| {
                document.value = "odd".into()
            })
        },
        "is odd in people",
    ),
    (
        |disk, txn| entry(disk, txn, b"\0\0\0\0\0\0\0\x01z", b""),
        "holds an entry of an unknown kind",
    ),
    (
        |disk, txn| entry(disk, txn, &layout::by_seq(99, 1), b""),
        "1 entries belong to the partition numbered 99",
    ),
    (
        |disk, txn| {
            state(disk, txn, "channel:room", |state| {
                state.counters = vec![("people".into(), 0)]
            })
        },
        "counters that are zero",
    ),
    (
        |disk, txn| state(disk, txn, SHORT, |state| state.expires += 1),
        "the partition short:lived expires, and that is noted nowhere",
    ),
    (
        |disk, txn| put(disk, txn, Tree::Dropped, &1u64.to_be_bytes(), b""),
        "the partition channel:room is there, and noted as dropped",
    ),
    (
        |disk, txn| put(disk, txn, Tree::Meta, b"next", &2u64.to_be_bytes()),
        "the next partition would get the number 2",
    ),
    (
        |disk, txn| {
            put(
                disk,
                txn,
                Tree::Partitions,
                b"odd",
                &LayoutState {
                    id: 1,
                    ..LayoutState::default()
                }
                .encode(),
            )
        },
        "have the same number, 1",
    ),
];

#[tokio::test]
async fn every_violation_of_the_layout_is_found() {
    let folder = TempDir::new().unwrap();
    rooms(folder.path()).await.close().await;
    let disk = Disk::open(folder.path(), 1 << 20).unwrap();
    assert_eq!(findings(&disk, folder.path()), Vec::<String>::new());
    drop(disk);
    for (sabotage, words) in BROKEN {
        let broken = TempDir::new().unwrap();
        std::fs::copy(pages::path(folder.path()), pages::path(broken.path())).unwrap();
        let disk = Disk::open(broken.path(), 1 << 20).unwrap();
        let mut txn = disk.write().unwrap();
        sabotage(&disk, &mut txn);
        txn.commit().unwrap();
        let found = findings(&disk, broken.path());
        assert!(
            found.iter().any(|what| what.contains(words)),
            "{words:?} is not among {found:#?}"
        );
    }
}

#[tokio::test]
async fn purged_numbers_are_not_reported() {
    let folder = TempDir::new().unwrap();
    let store = rooms(folder.path()).await;
    assert!(
        !store
            .purge(&room(), MESSAGES, None, 4)
            .await
            .unwrap()
            .unwrap(),
        "some are left"
    );
    assert_eq!(findings(&store.disk, folder.path()), Vec::<String>::new());
    assert!(
        store
            .purge(&room(), MESSAGES, None, 4)
            .await
            .unwrap()
            .unwrap()
    );
    assert_eq!(findings(&store.disk, folder.path()), Vec::<String>::new());
    store
        .commit(&room(), message("anew", "hi"))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(findings(&store.disk, folder.path()), Vec::<String>::new());
    store.close().await;
}

#[tokio::test]
async fn damaged_journal_is_a_finding_and_the_trees_are_checked() {
    let folder = TempDir::new().unwrap();
    quiet_with_a_message(folder.path()).await;
    let journal = folder.path().join(crate::embedded::JOURNAL);
    for file in std::fs::read_dir(journal).unwrap() {
        let path = file.unwrap().path();
        if path
            .extension()
            .is_some_and(|extension| extension == "segment")
        {
            let file = std::fs::File::options().write(true).open(path).unwrap();
            file.set_len(1_000).unwrap();
        }
    }
    let mut found = Vec::new();
    let summary = check::check(folder.path(), &mut OddCheck, &mut |finding| {
        found.push(finding.what);
    })
    .unwrap();
    assert!(
        found.len() == 1 && found[0].contains("is not complete"),
        "{found:?}"
    );
    assert_eq!((summary.partitions, summary.documents), (1, 1));
}

async fn quiet_with_a_message(path: &Path) {
    let store = quiet(path);
    let committed = store.commit(&room(), message("m", "hi")).await;
    committed.unwrap().unwrap();
    store.close().await;
}
