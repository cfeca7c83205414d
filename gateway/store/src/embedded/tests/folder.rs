//! The data folder across restarts, and the writer's groups.

use std::time::Duration;

use super::*;
use crate::{
    Append, Commit, Document, DocumentKey, EventBody, EventSlot, Expected, Mark, Partition,
    PartitionHead, Position, Range, Read, Require, Snapshot, StoreError, Table, Write, WriteSlot,
    embedded::{
        OpenError, disk,
        fault::Fault,
        layout::{self, FORMAT, Space},
        tree::Tree,
    },
};

pub(super) const MESSAGES: Table = Table::numbered("messages");
pub(super) const PEOPLE: Table = Table::listed("people");

pub(super) fn room() -> Partition {
    Partition::new("channel:room")
}

/// Opens a store without listeners.
pub(super) fn quiet(path: &Path) -> Embedded {
    open(
        path,
        Keep {
            events: 0,
            bytes: 0,
        },
        Local::new(Arc::new(())),
        Arc::default(),
    )
}

/// A commit of a new message with its event.
pub(super) fn message(name: &str, value: impl Into<Bytes>) -> Commit {
    let key = DocumentKey::from(name);
    Commit {
        require: vec![Require {
            table: MESSAGES,
            key: key.clone(),
            is: Expected::Absent,
        }],
        write: vec![Write::Put {
            table: MESSAGES,
            key,
            value: value.into(),
            mark: Mark::None,
            event: Some(EventSlot::nth(0)),
        }],
        append: vec![Append {
            kind: 1,
            reference: Bytes::copy_from_slice(name.as_bytes()),
            control: Default::default(),
            body: EventBody::Written(WriteSlot::nth(0)),
        }],
        ..Commit::default()
    }
}

async fn snapshot(store: &Embedded, partition: &Partition) -> Snapshot {
    let read = Read {
        partition: partition.clone(),
        documents: vec![],
        newest: Some(MESSAGES),
    };
    store.read(vec![read]).await.unwrap().pop().unwrap()
}

/// Reads all documents of a room page by page.
async fn pages(
    store: &Embedded,
    first: Range,
    next: fn(&Document) -> Range,
) -> (Vec<Document>, PartitionHead) {
    let (mut documents, mut range) = (Vec::new(), first);
    loop {
        let (page, head) = store
            .page(&room(), MESSAGES, range, usize::MAX)
            .await
            .unwrap();
        documents.extend(page.documents);
        match documents.last() {
            Some(last) if page.more => range = next(last),
            _ => return (documents, head),
        }
    }
}

/// Asserts that a room is consistent: numbers and seqs start at 1 without holes, and each message
/// matches its event. Returns the keys by number.
pub(super) async fn checked_keys(store: &Embedded) -> Vec<DocumentKey> {
    let (documents, head) = pages(store, Range::After(0), |last| {
        Range::After(last.stamps.number)
    })
    .await;
    let log = store
        .log(&room(), Position::default(), usize::MAX)
        .await
        .unwrap();
    assert!(
        documents
            .iter()
            .map(|document| document.stamps.number)
            .eq(1..=head.number)
    );
    assert!(
        log.entries
            .iter()
            .map(|entry| entry.position.seq)
            .eq(1..=head.seq)
    );
    assert_eq!(documents.len(), log.entries.len());
    for (document, entry) in documents.iter().zip(&log.entries) {
        assert_eq!(document.stamps.seq, entry.position.seq);
        assert_eq!(document.key.as_bytes(), entry.reference);
    }
    let (changed, _) = pages(store, Range::Changed(0), |last| {
        Range::Changed(last.stamps.seq)
    })
    .await;
    assert_eq!(changed, documents);
    documents.into_iter().map(|document| document.key).collect()
}

#[tokio::test]
async fn reopened_store_has_all_data() {
    let folder = TempDir::new().unwrap();
    let store = quiet(folder.path());
    for i in 0..10 {
        store
            .commit(&room(), message(&format!("m{i}"), "hi"))
            .await
            .unwrap()
            .unwrap();
    }
    let before = (
        snapshot(&store, &room()).await.head,
        checked_keys(&store).await,
    );
    store.close().await;
    drop(store);
    let store = quiet(folder.path());
    assert_eq!(
        (
            snapshot(&store, &room()).await.head,
            checked_keys(&store).await
        ),
        before
    );
    let next = store
        .commit(&room(), message("m10", "hi"))
        .await
        .unwrap()
        .unwrap();
    assert_eq!((next.first_seq, next.written[0].stamps.number), (11, 11));
    let other = store
        .commit(&Partition::new("channel:other"), message("m", "hi"))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(other.first_seq, 1);
    store.close().await;
}

#[tokio::test]
async fn folder_in_use_is_refused() {
    let folder = TempDir::new().unwrap();
    let store = quiet(folder.path());
    let keep = Keep {
        events: 0,
        bytes: 0,
    };
    let error = Embedded::open(folder.path(), keep, Local::new(Arc::new(()))).unwrap_err();
    assert!(matches!(error, OpenError::InUse { .. }), "{error}");
    assert!(
        error.to_string().contains("in use by another process"),
        "{error}"
    );
    store.close().await;
    drop(store);
    Embedded::open(folder.path(), keep, Local::new(Arc::new(())))
        .unwrap()
        .close()
        .await;
}

#[tokio::test]
async fn newer_format_is_refused() {
    let folder = TempDir::new().unwrap();
    let disk = disk::Disk::open(folder.path(), 1 << 20).unwrap();
    let mut txn = disk.write().unwrap();
    disk.put(
        &mut txn,
        Tree::Meta,
        b"format",
        Some(&(FORMAT + 1).to_be_bytes()),
    )
    .unwrap();
    txn.commit().unwrap();
    drop(disk);
    let error = disk::Disk::open(folder.path(), 1 << 20).unwrap_err();
    assert!(
        matches!(error, OpenError::OtherFormat { found, .. } if found == FORMAT + 1),
        "{error}"
    );
    assert!(
        error
            .to_string()
            .contains("start the version that wrote it"),
        "{error}"
    );
}

#[tokio::test]
async fn path_that_is_no_folder_or_no_store_is_refused() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "no folder").unwrap();
    let error = disk::Disk::open(&file, 1 << 20).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("name one that this user may write to"),
        "{error}"
    );
    std::fs::write(folder.path().join("data.mdb"), [7; 100_000]).unwrap();
    let error = disk::Disk::open(folder.path(), 1 << 20).unwrap_err();
    assert!(error.to_string().contains("bring back a copy"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn map_grows_during_reads_and_writes() {
    let folder = TempDir::new().unwrap();
    let store = Arc::new(quiet(folder.path()));
    let reader = tokio::spawn({
        let store = store.clone();
        async move {
            while snapshot(&store, &room()).await.head.seq < 64 {
                tokio::task::yield_now().await;
            }
        }
    });
    let writers = (0..8).map(|task| {
        let store = store.clone();
        tokio::spawn(async move {
            for i in 0..8 {
                store
                    .commit(&room(), message(&format!("{task}.{i}"), vec![task; 50_000]))
                    .await
                    .unwrap()
                    .unwrap();
            }
        })
    });
    for task in writers.chain([reader]).collect::<Vec<_>>() {
        task.await.unwrap();
    }
    assert_eq!(checked_keys(&store).await.len(), 64);
    store.close().await;
}

#[tokio::test]
async fn close_serves_queued_requests_and_refuses_later_ones() {
    let folder = TempDir::new().unwrap();
    let receivers = Arc::new(Receivers::default());
    let bus = Local::new(receivers.clone());
    let (sender, mut published) = unbounded_channel();
    receivers
        .0
        .lock()
        .insert(room().name().to_owned(), vec![sender]);
    bus.join(&[room().topic()]).await.unwrap();
    let store = open(
        folder.path(),
        Keep {
            events: 0,
            bytes: 0,
        },
        bus,
        Arc::default(),
    );
    let (first, second) = (room(), room());
    let asked = async {
        tokio::join!(
            store.commit(&first, message("a", "hi")),
            store.commit(&second, message("b", "hi"))
        )
    };
    let ((a, b), ()) = tokio::join!(biased; asked, store.close());
    assert_eq!(
        (a.unwrap().unwrap().first_seq, b.unwrap().unwrap().first_seq),
        (1, 2)
    );
    assert!(
        published.try_recv().is_ok() && published.try_recv().is_ok(),
        "published before the close returns"
    );
    assert!(matches!(
        store.commit(&room(), message("c", "hi")).await,
        Err(StoreError::Unavailable(_))
    ));
    assert!(matches!(store.now().await, Err(StoreError::Unavailable(_))));
    assert_eq!(checked_keys(&store).await.len(), 2, "reads go on");
    store.close().await;
}

#[tokio::test]
async fn conflicts_and_malformed_commits_fail_alone_in_their_group() {
    let folder = TempDir::new().unwrap();
    let store = quiet(folder.path());
    // All requests are sent in this order before the first answer is read.
    let room = room();
    let long = "k".repeat(257);
    let mut twice = message("twice", "once");
    twice.write.push(Write::Touch {
        table: MESSAGES,
        key: DocumentKey::from("twice"),
        event: EventSlot::nth(0),
    });
    let answers = tokio::join!(
        store.commit(&room, message("a", "first")),
        store.commit(&room, message("a", "again")),
        store.commit(&room, message(&long, "too long")),
        store.commit(
            &room,
            Commit {
                append: vec![],
                ..message("c", "no event")
            }
        ),
        store.page(&room, PEOPLE, Range::After(0), 1),
        store.commit(&room, twice),
        store.commit(&room, message("b", "second")),
    );
    assert_eq!(answers.0.unwrap().unwrap().first_seq, 1);
    assert_eq!(answers.1.unwrap().unwrap_err().require, [0]);
    assert!(answers.2.is_err() && answers.3.is_err() && answers.4.is_err() && answers.5.is_err());
    assert_eq!(answers.6.unwrap().unwrap().first_seq, 2);
    assert_eq!(checked_keys(&store).await.len(), 2);
    store.close().await;
}

#[tokio::test]
async fn expired_partitions_leave_nothing_on_the_disk() {
    let folder = TempDir::new().unwrap();
    let store = quiet(folder.path());
    let short = Some(Duration::from_millis(1));
    store
        .commit(&room(), message("stays", "hi"))
        .await
        .unwrap()
        .unwrap();
    for i in 0..20 {
        store
            .commit(
                &Partition::new(format!("short:{i}")),
                Commit {
                    expire: short,
                    ..message("m", "hi")
                },
            )
            .await
            .unwrap()
            .unwrap();
    }
    // A sweep after a restart finds them, too.
    store.close().await;
    drop(store);
    let store = quiet(folder.path());
    let left = |store: &Embedded| {
        let disk = &store.disk;
        disk.read(|trees| {
            Ok::<_, Fault>((
                trees.iter(Tree::Partitions)?.count(),
                trees.iter(Tree::Entries)?.count(),
                trees.iter(Tree::Expiries)?.count(),
                trees.iter(Tree::Dropped)?.count(),
            ))
        })
        .unwrap()
    };
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    // The remaining partition has four entries: number by key, document, last change, event.
    while left(&store) != (1, 4, 0, 0) {
        assert!(std::time::Instant::now() < deadline, "{:?}", left(&store));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(checked_keys(&store).await.len(), 1);
    store.close().await;
}

#[tokio::test]
async fn bodies_are_stored_once() {
    let folder = TempDir::new().unwrap();
    let store = quiet(folder.path());
    let body = "a body that is easily found";
    store
        .commit(&room(), message("m", body))
        .await
        .unwrap()
        .unwrap();
    let found = store.disk.read(|trees| {
        let entries = trees
            .iter(Tree::Entries)?
            .collect::<Result<Vec<_>, Fault>>()?;
        let holders = entries.into_iter().filter(|(_, bytes)| {
            bytes
                .windows(body.len())
                .any(|window| window == body.as_bytes())
        });
        Ok::<_, Fault>(holders.map(|(key, _)| key.to_vec()).collect::<Vec<_>>())
    });
    let mut expected = layout::space(1, Space::Numbered);
    expected.extend(1u64.to_be_bytes());
    assert_eq!(found.unwrap(), [expected]);
    store.close().await;
}

#[derive(Debug)]
struct Panicking;

impl Listener for Panicking {
    fn record(&self, _: &str, _: Bytes) {
        panic!("a listener with a defect");
    }

    fn missed(&self, _: Option<&[Topic]>) {}
}

#[tokio::test]
async fn commits_are_refused_after_the_publisher_ended() {
    let folder = TempDir::new().unwrap();
    let bus = Local::new(Arc::new(Panicking));
    bus.join(&[room().topic()]).await.unwrap();
    let store = open(
        folder.path(),
        Keep {
            events: 0,
            bytes: 0,
        },
        bus,
        Arc::default(),
    );
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    let mut done = 0;
    while store
        .commit(&room(), message(&format!("m{done}"), "hi"))
        .await
        .is_ok()
    {
        done += 1;
        assert!(std::time::Instant::now() < deadline, "the writer notices");
    }
    assert!(store.now().await.is_err(), "and the node is not ready");
    assert_eq!(checked_keys(&store).await.len(), done);
    store.close().await;
}

/// The first commits are in the journal only, for minutes.
#[tokio::test]
async fn new_store_without_its_journal_is_refused() {
    let folder = TempDir::new().unwrap();
    quiet(folder.path()).close().await;
    std::fs::remove_dir_all(folder.path().join("journal")).unwrap();
    let opened = Embedded::open(
        folder.path(),
        Keep {
            events: 0,
            bytes: 0,
        },
        Local::new(Arc::new(())),
    );
    let sentence = opened.unwrap_err().to_string();
    assert!(
        sentence.contains("lacks the groups from 1 on"),
        "{sentence}"
    );
}
