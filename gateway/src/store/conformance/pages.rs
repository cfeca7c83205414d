//! Tables page by page.

use super::{Bench, story::*};
use crate::store::{Mark, Page, Range, Store};

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
            done(store, &room(), std::mem::take(&mut batch)).await;
        }
    }
    done(store, &room(), batch).await;
}

pub(crate) async fn pages_by_key_are_in_byte_order_and_say_whether_there_is_more<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.store();
    for name in ["b", "é", "Z", "a", "", "ab", "10", "9", "👍"] {
        done(
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

pub(crate) async fn a_page_by_key_may_start_at_a_key_that_is_gone<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.store();
    for name in ["a", "b", "c", "d"] {
        done(&*store, &room(), commit().putting(PEOPLE, name, "")).await;
    }
    done(
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

pub(crate) async fn pages_by_change_follow_the_last_seq<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.store();
    messages(&*store, 5).await;
    done(
        &*store,
        &room(),
        commit().marking(MESSAGES, "m2", "edited", Mark::Edited),
    )
    .await;
    done(
        &*store,
        &room(),
        commit().telling("another").touching(MESSAGES, "m4"),
    )
    .await;
    done(
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

pub(crate) async fn a_document_changed_twice_is_in_the_pages_once<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.store();
    messages(&*store, 3).await;
    for _ in 0..10 {
        done(&*store, &room(), commit().touching(MESSAGES, "m1")).await;
        done(&*store, &room(), commit().putting(MESSAGES, "m2", "x")).await;
    }
    let page = page(&*store, MESSAGES, Range::Changed(0), 10).await;
    assert_eq!((keys(&page), page.more), (vec!["m3", "m1", "m2"], false));
}

pub(crate) async fn pages_cross_thousands<B: Bench>() {
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
    done(
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

pub(crate) async fn paged_documents_come_whole<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.store();
    done(
        &*store,
        &room(),
        commit()
            .putting(MESSAGES, "m", vec![0, 255, 10])
            .putting(PEOPLE, "ann", vec![255, 0]),
    )
    .await;
    done(
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
