//! Partitions go out of a store and into one, whole.

use std::{collections::BTreeMap, time::Duration};

use super::{Bench, story::*};
use crate::store::{
    Commit, Document, Entry, Expected, Keep, Mark, Partition, Position, Range, Store, Table,
    transfer::{Exists, Outline, Piece, Transfer},
};

/// How many documents and entries go in one piece.
const PIECE: usize = 400;
/// How many documents come in one: so few that what an engine keeps together has to come in several.
const STEP: usize = 20;

/// All of a partition.
#[derive(Debug, PartialEq)]
struct Whole {
    outline: Outline,
    documents: Vec<(Table, Document)>,
    entries: Vec<Entry>,
}

impl Whole {
    /// Takes it out.
    async fn of(store: &dyn Transfer, partition: &Partition) -> Self {
        let outline = store
            .outline(partition)
            .await
            .unwrap()
            .expect("it is there");
        let mut documents = Vec::new();
        for table in [PEOPLE, FACTS] {
            let mut found = BTreeMap::new();
            let mut from = None;
            loop {
                let (some, next) = store.scan(partition, table, from, STEP).await.unwrap();
                assert!(some.len() <= 2 * STEP, "{} come at once", some.len());
                found.extend(
                    some.into_iter()
                        .map(|document| (document.key.clone(), document)),
                );
                from = next;
                if from.is_none() {
                    break;
                }
            }
            documents.extend(found.into_values().map(|document| (table, document)));
        }
        let (page, _) = store
            .page(partition, MESSAGES, Range::After(0), 100_000)
            .await
            .unwrap();
        documents.extend(
            page.documents
                .into_iter()
                .map(|document| (MESSAGES, document)),
        );
        let entries = store
            .log(partition, outline.head.floor, 100_000)
            .await
            .unwrap()
            .entries;
        Self {
            outline,
            documents,
            entries,
        }
    }

    /// In pieces; all but the last, which is answered.
    fn pieces(&self) -> (Vec<Piece>, Piece) {
        let documents = self.documents.chunks(PIECE).map(|some| Piece {
            documents: some.to_vec(),
            ..Piece::default()
        });
        let entries = self.entries.chunks(PIECE).map(|some| Piece {
            entries: some.to_vec(),
            ..Piece::default()
        });
        (
            documents.chain(entries).collect(),
            Piece {
                outline: Some(self.outline.clone()),
                ..Piece::default()
            },
        )
    }

    async fn goes_into(&self, store: &dyn Transfer, partition: &Partition) {
        let (pieces, last) = self.pieces();
        for piece in pieces.into_iter().chain([last]) {
            store.load(partition, piece).await.unwrap().unwrap();
        }
    }

    /// In one.
    fn at_once(&self) -> Piece {
        Piece {
            documents: self.documents.clone(),
            entries: self.entries.clone(),
            outline: Some(self.outline.clone()),
        }
    }
}

fn copy() -> Partition {
    Partition::new("channel:copy")
}

/// A partition in which everything happened that can.
async fn live(store: &dyn Store, partition: &Partition) {
    let mut first = commit()
        .counting("size", 3)
        .counting("gone", 1)
        .putting(FACTS, "", "of nothing")
        .putting(FACTS, "f", vec![0, 255]);
    for name in ["a", "b", "c", "d"] {
        first =
            first
                .putting(MESSAGES, name, name.to_owned())
                .putting(PEOPLE, name, name.to_owned());
    }
    done(store, partition, first).await;
    done(
        store,
        partition,
        commit()
            .marking(MESSAGES, "b", "edited", Mark::Edited)
            .counting("gone", -1),
    )
    .await;
    done(
        store,
        partition,
        commit()
            .reacting("a", "👍", 2)
            .reacting("a", "+1", 70_000)
            .touching(MESSAGES, "a"),
    )
    .await;
    done(
        store,
        partition,
        commit()
            .marking(MESSAGES, "c", "", Mark::Deleted)
            .deleting(PEOPLE, "c"),
    )
    .await;
    for n in 0..3 {
        done(
            store,
            partition,
            commit().putting(PEOPLE, "d", format!("{n}")),
        )
        .await;
    }
    done(
        store,
        partition,
        commit()
            .deleting(PEOPLE, "d")
            .deleting(FACTS, "f")
            .telling("last"),
    )
    .await;
    done(
        store,
        partition,
        commit().putting(FACTS, "read", "after the last event"),
    )
    .await;
}

/// That two partitions answer the same to everything.
async fn are_equal(store: &dyn Store, one: &Partition, other: &Partition) {
    let documents = [
        (MESSAGES, "a"),
        (MESSAGES, "b"),
        (MESSAGES, "c"),
        (PEOPLE, "a"),
        (PEOPLE, "c"),
        (FACTS, ""),
        (FACTS, "read"),
    ];
    let snapshot = async |partition| {
        let snapshot = read(store, partition, &documents).await;
        (snapshot.head, snapshot.counters, snapshot.documents)
    };
    assert_eq!(snapshot(one).await, snapshot(other).await);
    let keys = || Range::Keys { after: None };
    for (table, range) in [
        (MESSAGES, Range::Before(None)),
        (MESSAGES, Range::Before(Some(3))),
        (MESSAGES, Range::After(0)),
        (MESSAGES, Range::After(1)),
        (MESSAGES, Range::Changed(0)),
        (MESSAGES, Range::Changed(5)),
        (PEOPLE, keys()),
    ] {
        for limit in [1, 2, 1_000] {
            let page = async |partition| {
                let (page, head) = store
                    .page(partition, table, range.clone(), limit)
                    .await
                    .unwrap();
                (page.documents, page.more, head)
            };
            assert_eq!(
                page(one).await,
                page(other).await,
                "{limit} of {table:?} {range:?}"
            );
        }
    }
    let head = head(store, one).await;
    for position in [
        Position::default(),
        head.floor,
        head.position(),
        Position {
            seq: head.seq,
            at: 1,
        },
        Position {
            seq: 1 << 40,
            at: 1,
        },
    ] {
        let log = async |partition| {
            let log = store.log(partition, position, 1_000).await.unwrap();
            (log.entries, log.head, log.continuity)
        };
        assert_eq!(log(one).await, log(other).await, "{position:?}");
    }
}

pub(crate) async fn a_partition_goes_out_and_in_as_it_is<B: Bench>() {
    for keep in [
        ALL,
        Keep {
            events: 3,
            bytes: 0,
        },
    ] {
        let bench = B::start(keep).await;
        let store = bench.transfer();
        live(&*store, &room()).await;
        let whole = Whole::of(&*store, &room()).await;
        assert_eq!(
            (
                whole.documents.len(),
                whole.outline.purged,
                whole.outline.expires
            ),
            (8, 0, None)
        );
        whole.goes_into(&*store, &copy()).await;
        assert_eq!(Whole::of(&*store, &copy()).await, whole);
        are_equal(&*store, &room(), &copy()).await;
    }
}

pub(crate) async fn what_went_in_goes_on_like_its_original<B: Bench>() {
    let bench = B::start(Keep {
        events: 12,
        bytes: 400,
    })
    .await;
    let store = bench.transfer();
    live(&*store, &room()).await;
    // What goes on is not earlier than what was, also where the other store's clock is behind.
    bench.step_clock(-100_000);
    Whole::of(&*store, &room())
        .await
        .goes_into(&*store, &copy())
        .await;
    let twice = async |commit: Commit| {
        let (one, other) = (
            done(&*store, &room(), commit.clone()).await,
            done(&*store, &copy(), commit).await,
        );
        assert_eq!(one, other);
    };
    twice(
        commit()
            .requiring(MESSAGES, "new", Expected::Absent)
            .putting(MESSAGES, "new", "5"),
    )
    .await;
    twice(
        commit()
            .putting(PEOPLE, "c", "again")
            .putting(PEOPLE, "new", "1")
            .putting(FACTS, "f", "again"),
    )
    .await;
    twice(
        commit()
            .marking(MESSAGES, "a", "edited", Mark::Edited)
            .counting("size", 1),
    )
    .await;
    twice(
        commit()
            .reacting("a", "👍", 1)
            .reacting("b", "👍", 1)
            .touching(MESSAGES, "b"),
    )
    .await;
    for n in 0..20 {
        twice(commit().telling(format!("event {n}"))).await;
    }
    assert_eq!(
        Whole::of(&*store, &copy()).await,
        Whole::of(&*store, &room()).await
    );
    are_equal(&*store, &room(), &copy()).await;
}

pub(crate) async fn a_large_partition_goes_in_pieces<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.transfer();
    for hundred in 0..25 {
        let mut batch = commit();
        for n in 100 * hundred..100 * (hundred + 1) {
            batch = batch.putting(MESSAGES, &format!("m{n}"), "hi").putting(
                PEOPLE,
                &format!("p{n}"),
                vec![7; 100],
            );
            batch = batch.putting(
                FACTS,
                &format!("f{n}"),
                "long enough that it does not lie in one lump with its neighbours".repeat(2),
            );
        }
        done(&*store, &room(), batch).await;
    }
    let whole = Whole::of(&*store, &room()).await;
    assert_eq!((whole.documents.len(), whole.entries.len()), (7_500, 2_500));
    whole.goes_into(&*store, &copy()).await;
    assert!(
        Whole::of(&*store, &copy()).await == whole,
        "not all came as it was"
    );
}

pub(crate) async fn a_purged_partition_goes_in_as_it_is<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.transfer();
    live(&*store, &room()).await;
    assert!(!purged(&*store, &room(), MESSAGES, 2).await);
    let half = Whole::of(&*store, &room()).await;
    assert_eq!(half.outline.purged, 2);
    half.goes_into(&*store, &copy()).await;
    are_equal(&*store, &room(), &copy()).await;

    while !purged(&*store, &room(), MESSAGES, 10).await {}
    let (none, other) = (
        Whole::of(&*store, &room()).await,
        Partition::new("channel:other"),
    );
    assert_eq!(none.outline.purged, none.outline.head.number);
    none.goes_into(&*store, &other).await;
    are_equal(&*store, &room(), &other).await;
    bench.step_clock(-100_000);
    let again = done(&*store, &other, commit().putting(MESSAGES, "a", "again"))
        .await
        .written[0];
    assert_eq!(
        again,
        done(&*store, &room(), commit().putting(MESSAGES, "a", "again"))
            .await
            .written[0]
    );
    assert_eq!(again.stamps.number, 5, "numbers go on");
    are_equal(&*store, &room(), &other).await;
}

pub(crate) async fn what_is_half_loaded_is_not_there<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.transfer();
    live(&*store, &room()).await;
    let whole = Whole::of(&*store, &room()).await;
    let (pieces, last) = whole.pieces();
    for piece in pieces {
        store.load(&copy(), piece).await.unwrap().unwrap();
        assert_eq!(store.outline(&copy()).await.unwrap(), None);
        assert_eq!(names(&*store, "channel:").await, ["channel:room"]);
        are_equal(&*store, &copy(), &Partition::new("channel:none")).await;
        for table in [PEOPLE, FACTS] {
            assert_eq!(
                store.scan(&copy(), table, None, PIECE).await.unwrap(),
                (vec![], None)
            );
        }
    }
    store.load(&copy(), last).await.unwrap().unwrap();
    are_equal(&*store, &room(), &copy()).await;
}

pub(crate) async fn a_partition_that_is_there_is_not_loaded_over<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.transfer();
    live(&*store, &room()).await;
    done(&*store, &copy(), commit().putting(PEOPLE, "own", "1")).await;
    let before = Whole::of(&*store, &copy()).await;
    let whole = Whole::of(&*store, &room()).await;
    let (pieces, last) = whole.pieces();
    for piece in pieces.into_iter().chain([last, whole.at_once()]) {
        assert_eq!(store.load(&copy(), piece).await.unwrap(), Err(Exists));
    }
    assert_eq!(Whole::of(&*store, &copy()).await, before);
}

pub(crate) async fn what_expires_does_so_where_it_went<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.transfer();
    let brief = commit()
        .putting(PEOPLE, "ann", "1")
        .putting(FACTS, "f", "1")
        .putting(MESSAGES, "m", "1");
    done(
        &*store,
        &room(),
        Commit {
            expire: Some(Duration::from_millis(1_500)),
            ..brief
        },
    )
    .await;
    let whole = Whole::of(&*store, &room()).await;
    assert!(whole.outline.expires.unwrap() > store.now().await.unwrap());
    let (left, moved) = (
        Partition::new("channel:left"),
        Partition::new("channel:moved"),
    );
    for copy in [&left, &moved] {
        store.load(copy, whole.at_once()).await.unwrap().unwrap();
        assert_eq!(Whole::of(&*store, copy).await, whole);
    }
    let later = commit().putting(PEOPLE, "bob", "1");
    done(
        &*store,
        &moved,
        Commit {
            expire: Some(Duration::from_secs(3_600)),
            ..later
        },
    )
    .await;
    eventually("what was loaded expires", async || {
        store.outline(&left).await.unwrap().is_none()
    })
    .await;
    are_equal(&*store, &left, &Partition::new("channel:none")).await;
    done(&*store, &left, commit().putting(PEOPLE, "cem", "1")).await;
    let anew = read(
        &*store,
        &left,
        &[
            (PEOPLE, "ann"),
            (FACTS, "f"),
            (MESSAGES, "m"),
            (PEOPLE, "cem"),
        ],
    )
    .await;
    assert_eq!(
        anew.documents
            .iter()
            .map(Option::is_some)
            .collect::<Vec<_>>(),
        [false, false, false, true],
        "nothing comes back"
    );
    let found = read(
        &*store,
        &moved,
        &[
            (PEOPLE, "ann"),
            (PEOPLE, "bob"),
            (FACTS, "f"),
            (MESSAGES, "m"),
        ],
    )
    .await;
    assert!(
        found.documents.iter().all(Option::is_some),
        "the time that was moved is far"
    );
}

async fn names(store: &dyn Transfer, prefix: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut from = None;
    loop {
        let (some, next) = store.partitions(prefix, from).await.unwrap();
        names.extend(some.iter().map(|partition| partition.name().to_owned()));
        from = next;
        if from.is_none() {
            break;
        }
    }
    names.sort();
    names.dedup();
    names
}

pub(crate) async fn partitions_are_found_by_how_their_names_begin<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.transfer();
    let mut expected = Vec::new();
    for n in 0..1_200 {
        let name = format!("u:app:live:{n:04}");
        let facts = commit().putting(FACTS, "f", "1");
        done(&*store, &Partition::new(name.as_str()), facts).await;
        expected.push(name);
    }
    for other in [
        "u:app:test:0001",
        "u:app2:live:0001",
        "c:app:live:0001",
        "u:*:live:1",
        "u",
    ] {
        done(
            &*store,
            &Partition::new(other),
            commit().putting(MESSAGES, "m", "1"),
        )
        .await;
    }
    assert_eq!(names(&*store, "u:app:live:").await, expected);
    assert_eq!(
        names(&*store, "u:*:").await,
        ["u:*:live:1"],
        "a name is no pattern"
    );
    assert_eq!(names(&*store, "u:app:live:12").await, Vec::<String>::new());
    assert_eq!(names(&*store, "u:app:live:1199").await, ["u:app:live:1199"]);
    assert_eq!(names(&*store, "u").await.len(), expected.len() + 4);
}

pub(crate) async fn a_wipe_takes_what_is_whole_and_what_is_half_loaded_and_no_more<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.transfer();
    let [whole, half, expiring] =
        ["c:app:whole", "c:app:half", "c:app:expiring"].map(Partition::new);
    for partition in [&room(), &whole] {
        live(&*store, partition).await;
    }
    let brief = commit().putting(PEOPLE, "ann", "1");
    done(
        &*store,
        &expiring,
        Commit {
            expire: Some(Duration::from_secs(3_600)),
            ..brief
        },
    )
    .await;
    let before = Whole::of(&*store, &room()).await;
    for piece in before.pieces().0 {
        store.load(&half, piece).await.unwrap().unwrap();
    }
    let mut from = None;
    loop {
        from = store.wipe("c:app:", from).await.unwrap();
        if from.is_none() {
            break;
        }
    }
    assert!(names(&*store, "c:").await.is_empty());
    assert_eq!(Whole::of(&*store, &room()).await, before);
    // What comes in afterwards is alone.
    let mut one = before;
    one.documents.retain(|(_, document)| &*document.key == "a");
    one.outline.head.number = 1;
    for partition in [&whole, &half, &expiring] {
        one.goes_into(&*store, partition).await;
        let loaded = Whole::of(&*store, partition).await;
        assert_eq!(
            (loaded.documents, loaded.entries),
            (one.documents.clone(), one.entries.clone())
        );
    }
}

pub(crate) async fn every_commit_moves_what_touched_it<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.transfer();
    live(&*store, &room()).await;
    assert!(
        store
            .outline(&Partition::new("channel:none"))
            .await
            .unwrap()
            .is_none()
    );
    for change in [
        commit().putting(FACTS, "f", "1"),
        commit().counting("size", 1),
        commit().telling("x"),
        commit().deleting(PEOPLE, "a"),
    ] {
        let before = store.outline(&room()).await.unwrap().unwrap();
        bench.step_clock(10);
        let at = done(&*store, &room(), change).await.at;
        let after = store.outline(&room()).await.unwrap().unwrap();
        assert!(
            after.touched == at && at > before.touched,
            "{before:?} {after:?}"
        );
    }
}
