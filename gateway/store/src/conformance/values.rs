//! Keys and values of all kinds.

use bytes::Bytes;

use super::{Bench, story::*};
use crate::{Expected, Partition};

pub(crate) async fn same_key_in_other_table_or_partition_is_another_document<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.store();
    let (other, longer) = (
        Partition::new("channel:roo"),
        Partition::new("channel:room:m"),
    );
    commits(
        &*store,
        &room(),
        commit()
            .putting(PEOPLE, "x", "person")
            .putting(FACTS, "x", "fact")
            .putting(MESSAGES, "x", "message"),
    )
    .await;
    commits(&*store, &other, commit().putting(PEOPLE, "x", "other")).await;
    commits(&*store, &longer, commit().putting(FACTS, "x", "longer")).await;
    let here = read(
        &*store,
        &room(),
        &[(PEOPLE, "x"), (FACTS, "x"), (MESSAGES, "x")],
    )
    .await;
    let values: Vec<_> = here
        .documents
        .into_iter()
        .map(|d| d.unwrap().value)
        .collect();
    assert_eq!(values, ["person", "fact", "message"]);
    let there = read(
        &*store,
        &other,
        &[(PEOPLE, "x"), (FACTS, "x"), (MESSAGES, "x")],
    )
    .await;
    assert_eq!(
        there
            .documents
            .into_iter()
            .map(|d| d.map(|d| d.value))
            .collect::<Vec<_>>(),
        [Some(Bytes::from("other")), None, None]
    );
    commits(&*store, &other, commit().deleting(PEOPLE, "x")).await;
    assert!(document(&*store, &room(), PEOPLE, "x").await.is_some());
    assert_eq!(
        document(&*store, &longer, FACTS, "x").await.unwrap().value,
        "longer"
    );
}

pub(crate) async fn values_of_any_bytes_are_preserved<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.store();
    let every: Vec<u8> = (0..=255).chain((0..=255).rev()).collect();
    for (name, value) in [
        ("every", Bytes::from(every)),
        ("empty", Bytes::new()),
        ("zero", Bytes::from_static(&[0])),
        ("text", Bytes::from("1.5e3")),
    ] {
        for table in [MESSAGES, PEOPLE, FACTS] {
            commits(
                &*store,
                &room(),
                commit().putting(table, name, value.clone()),
            )
            .await;
            assert_eq!(
                document(&*store, &room(), table, name).await.unwrap().value,
                value
            );
        }
    }
}

pub(crate) async fn values_of_64_kib_are_preserved<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.store();
    let value: Bytes = (0..64 * 1024)
        .map(|i: u32| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let mut batch = commit();
    for i in 0..8 {
        batch = batch
            .putting(MESSAGES, &format!("m{i}"), value.clone())
            .putting(PEOPLE, &format!("p{i}"), value.clone());
    }
    commits(&*store, &room(), batch).await;
    for i in 0..8 {
        assert_eq!(
            document(&*store, &room(), MESSAGES, &format!("m{i}"))
                .await
                .unwrap()
                .value,
            value
        );
        assert_eq!(
            document(&*store, &room(), PEOPLE, &format!("p{i}"))
                .await
                .unwrap()
                .value,
            value
        );
    }
}

pub(crate) async fn keys_can_be_any_unicode_up_to_256_bytes<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.store();
    let long = "ü".repeat(128);
    for name in [
        "Zoë",
        "名前",
        "👩‍👩‍👧",
        "with space",
        "a:b/c*?[x]%\\'\"",
        "0",
        "",
        &long,
    ] {
        for table in [MESSAGES, PEOPLE, FACTS] {
            commits(
                &*store,
                &room(),
                commit().requiring(table, name, Expected::Absent).putting(
                    table,
                    name,
                    name.to_owned(),
                ),
            )
            .await;
            let found = document(&*store, &room(), table, name).await.unwrap();
            assert_eq!((&*found.key, &found.value[..]), (name, name.as_bytes()));
        }
    }
    assert_eq!(head(&*store, &room()).await.number, 8);
}
