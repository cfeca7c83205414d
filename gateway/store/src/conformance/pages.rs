//! Pages of tables.

use super::{Bench, story::*};
use crate::{Document, Mark, PAGE_BYTES, Page, Range, Store};

fn keys(page: &Page) -> Vec<&str> {
    page.documents.iter().map(|d| &*d.key).collect()
}

fn numbers(page: &Page) -> Vec<u64> {
    page.documents.iter().map(|d| d.stamps.number).collect()
}

async fn messages(store: &dyn Store, count: u64) {
    let mut batch = commit();
    for i in 1..=count {
        batch = batch.putting(MESSAGES, &format!("m{i}"), i.to_string());
        if i.is_multiple_of(100) {
            commits(store, &room(), std::mem::take(&mut batch)).await;
        }
    }
    commits(store, &room(), batch).await;
}

pub(crate) async fn pages_by_key_are_in_byte_order_and_report_more<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.store();
    for name in ["b", "é", "Z", "a", "", "ab", "10", "9", "👍"] {
        commits(
            &*store,
            &room(),
            commit()
                .putting(PEOPLE, name, name.to_owned())
                .putting(FACTS, name, "other"),
        )
        .await;
    }
    let all = ["", "10", "9", "Z", "a", "ab", "b", "é", "👍"];
    let from = |after: Option<&str>| Range::Keys {
        after: after.map(key),
    };
    for size in 1..=10 {
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let page = page(&*store, PEOPLE, from(after.as_deref()), size).await;
            assert!(page.documents.len() <= size);
            seen.extend(keys(&page).into_iter().map(str::to_owned));
            after = seen.last().cloned();
            assert_eq!(
                page.more,
                seen.len() < all.len(),
                "pages of {size}, {} seen",
                seen.len()
            );
            if !page.more {
                break;
            }
        }
        assert_eq!(seen, all);
    }
    assert_eq!(
        keys(&page(&*store, PEOPLE, from(Some("👍")), 5).await),
        [""; 0]
    );
    let none = page(&*store, PEOPLE, from(None), 0).await;
    assert_eq!((none.documents, none.more), (vec![], true));
}

pub(crate) async fn page_by_key_can_start_after_a_deleted_key<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.store();
    for name in ["a", "b", "c", "d"] {
        commits(&*store, &room(), commit().putting(PEOPLE, name, "")).await;
    }
    commits(
        &*store,
        &room(),
        commit().deleting(PEOPLE, "b").deleting(PEOPLE, "d"),
    )
    .await;
    let rest = page(
        &*store,
        PEOPLE,
        Range::Keys {
            after: Some(key("b")),
        },
        1,
    )
    .await;
    assert_eq!((keys(&rest), rest.more), (vec!["c"], false));
    assert_eq!(
        keys(
            &page(
                &*store,
                PEOPLE,
                Range::Keys {
                    after: Some(key("aa"))
                },
                9
            )
            .await
        ),
        ["c"]
    );
    assert_eq!(
        keys(&page(&*store, PEOPLE, Range::Keys { after: None }, 9).await),
        ["a", "c"]
    );
}

pub(crate) async fn pages_before_a_number<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.store();
    messages(&*store, 10).await;
    for (before, limit, expected, more) in [
        (None, 3, vec![8, 9, 10], true),
        (None, 10, (1..=10).collect(), false),
        (None, 11, (1..=10).collect(), false),
        (Some(11), 2, vec![9, 10], true),
        (Some(1_000_000), 1, vec![10], true),
        (Some(10), 2, vec![8, 9], true),
        (Some(3), 2, vec![1, 2], false),
        (Some(3), 1, vec![2], true),
        (Some(2), 5, vec![1], false),
        (Some(1), 5, vec![], false),
        (Some(0), 5, vec![], false),
        (Some(5), 0, vec![], true),
    ] {
        let page = page(&*store, MESSAGES, Range::Before(before), limit).await;
        assert_eq!(
            (numbers(&page), page.more),
            (expected, more),
            "{limit} before {before:?}"
        );
    }
}

pub(crate) async fn pages_after_a_number<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.store();
    messages(&*store, 10).await;
    for (after, limit, expected, more) in [
        (0, 3, vec![1, 2, 3], true),
        (0, 10, (1..=10).collect(), false),
        (7, 3, vec![8, 9, 10], false),
        (7, 2, vec![8, 9], true),
        (9, 5, vec![10], false),
        (10, 5, vec![], false),
        (1_000_000, 5, vec![], false),
        (3, 0, vec![], true),
    ] {
        let page = page(&*store, MESSAGES, Range::After(after), limit).await;
        assert_eq!(
            (numbers(&page), page.more),
            (expected, more),
            "{limit} after {after}"
        );
    }
}

pub(crate) async fn pages_by_change_are_ordered_by_last_seq<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.store();
    messages(&*store, 5).await;
    commits(
        &*store,
        &room(),
        commit().marking(MESSAGES, "m2", "edited", Mark::Edited),
    )
    .await;
    commits(
        &*store,
        &room(),
        commit().appending("another").touching(MESSAGES, "m4"),
    )
    .await;
    commits(
        &*store,
        &room(),
        commit().marking(MESSAGES, "m1", "", Mark::Deleted),
    )
    .await;
    for (after, limit, expected, more) in [
        (0, 10, vec!["m3", "m5", "m2", "m4", "m1"], false),
        (0, 2, vec!["m3", "m5"], true),
        (3, 10, vec!["m5", "m2", "m4", "m1"], false),
        (5, 2, vec!["m2", "m4"], true),
        (6, 2, vec!["m4", "m1"], false),
        (7, 1, vec!["m4"], true),
        (8, 5, vec!["m1"], false),
        (9, 5, vec![], false),
        (99, 5, vec![], false),
    ] {
        let page = page(&*store, MESSAGES, Range::Changed(after), limit).await;
        assert_eq!(
            (keys(&page), page.more),
            (expected, more),
            "{limit} changed after {after}"
        );
    }
}

pub(crate) async fn document_changed_twice_is_listed_once<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.store();
    messages(&*store, 3).await;
    for _ in 0..10 {
        commits(&*store, &room(), commit().touching(MESSAGES, "m1")).await;
        commits(&*store, &room(), commit().putting(MESSAGES, "m2", "x")).await;
    }
    let page = page(&*store, MESSAGES, Range::Changed(0), 10).await;
    assert_eq!((keys(&page), page.more), (vec!["m3", "m1", "m2"], false));
}

pub(crate) async fn pages_cross_hash_boundaries<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.store();
    messages(&*store, 2_050).await;
    for before in [1_000, 1_001, 1_002, 2_000, 2_001, 2_051] {
        let page = page(&*store, MESSAGES, Range::Before(Some(before)), 30).await;
        assert_eq!(
            (numbers(&page), page.more),
            ((before - 30..before).collect(), true)
        );
    }
    for after in [970, 985, 999, 1_000, 1_999, 2_000] {
        let page = page(&*store, MESSAGES, Range::After(after), 30).await;
        assert_eq!(
            (numbers(&page), page.more),
            ((after + 1..=after + 30).collect(), true)
        );
    }
    commits(
        &*store,
        &room(),
        commit()
            .putting(MESSAGES, "m1000", "edited")
            .touching(MESSAGES, "m2000"),
    )
    .await;
    let changed = page(&*store, MESSAGES, Range::Changed(2_048), 30).await;
    assert_eq!(
        (keys(&changed), changed.more),
        (vec!["m2049", "m2050", "m1000", "m2000"], false)
    );
    let all = page(&*store, MESSAGES, Range::After(0), 5_000).await;
    assert_eq!((numbers(&all), all.more), ((1..=2_050).collect(), false));
}

pub(crate) async fn paged_documents_are_complete<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.store();
    commits(
        &*store,
        &room(),
        commit()
            .putting(MESSAGES, "m", vec![0, 255, 10])
            .putting(PEOPLE, "ann", vec![255, 0]),
    )
    .await;
    commits(
        &*store,
        &room(),
        commit()
            .reacting("m", "é", 2)
            .reacting("m", "a", 1)
            .touching(MESSAGES, "m"),
    )
    .await;
    let message = document(&*store, &room(), MESSAGES, "m").await.unwrap();
    assert_eq!(message.counts, [("a".to_owned(), 1), ("é".to_owned(), 2)]);
    for range in [Range::Before(None), Range::After(0), Range::Changed(0)] {
        assert_eq!(
            page(&*store, MESSAGES, range, 1).await.documents,
            vec![message.clone()]
        );
    }
    let person = document(&*store, &room(), PEOPLE, "ann").await.unwrap();
    assert_eq!(
        page(&*store, PEOPLE, Range::Keys { after: None }, 1)
            .await
            .documents,
        [person]
    );
}

pub(crate) async fn page_stops_at_the_byte_limit_but_has_one_document<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.store();
    let large = "x".repeat(PAGE_BYTES / 4 - 100);
    for i in 1..=10 {
        let value = if i == 7 {
            "y".repeat(PAGE_BYTES + 1)
        } else {
            large.clone()
        };
        let name = format!("m{i:02}");
        commits(
            &*store,
            &room(),
            commit()
                .putting(MESSAGES, &name, value.clone())
                .putting(PEOPLE, &name, value),
        )
        .await;
    }
    let walk = async |from: &dyn Fn(Option<&Document>) -> Range, table| {
        let (mut pages, mut last) = (Vec::new(), None::<Document>);
        loop {
            let page = page(&*store, table, from(last.as_ref()), 100).await;
            last = page.documents.last().cloned();
            pages.push(
                page.documents
                    .iter()
                    .map(|document| document.key.to_string())
                    .collect::<Vec<_>>(),
            );
            if !page.more {
                return pages
                    .into_iter()
                    .map(|page| page.join(" "))
                    .collect::<Vec<_>>();
            }
        }
    };
    let expected = ["m01 m02 m03 m04", "m05 m06", "m07", "m08 m09 m10"];
    assert_eq!(
        walk(
            &|last| Range::Keys {
                after: last.map(|last| last.key.clone())
            },
            PEOPLE
        )
        .await,
        expected
    );
    assert_eq!(
        walk(
            &|last| Range::After(last.map_or(0, |last| last.stamps.number)),
            MESSAGES
        )
        .await,
        expected
    );
    assert_eq!(
        walk(
            &|last| Range::Changed(last.map_or(0, |last| last.stamps.seq)),
            MESSAGES
        )
        .await,
        expected
    );
    let (mut pages, mut before) = (Vec::new(), None);
    loop {
        let page = page(&*store, MESSAGES, Range::Before(before), 100).await;
        before = page
            .documents
            .first()
            .map(|document| document.stamps.number);
        pages.push(keys(&page).join(" "));
        if !page.more {
            break;
        }
    }
    assert_eq!(pages, ["m08 m09 m10", "m07", "m03 m04 m05 m06", "m01 m02"]);
}
