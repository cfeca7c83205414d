//! Leases of nodes and their members.

use std::time::Duration;

use super::{Bench, story::*};
use crate::Store;

const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(150);

fn sessions(of: &[(&str, u32)]) -> Vec<(String, u32)> {
    of.iter()
        .map(|(name, count)| ((*name).to_owned(), *count))
        .collect()
}

async fn counts(store: &dyn Store, names: &[&str]) -> Vec<u32> {
    let names: Vec<_> = names.iter().map(|n| (*n).to_owned()).collect();
    store.members(&names).await.unwrap()
}

pub(crate) async fn members_are_counted_over_all_nodes<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.store();
    assert_eq!(counts(&*store, &["ann", "bob"]).await, [0, 0]);
    assert_eq!(counts(&*store, &[]).await, [0; 0]);
    store
        .lease("n1", LONG, sessions(&[("ann", 2), ("bob", 1)]))
        .await
        .unwrap();
    store
        .lease("n2", LONG, sessions(&[("ann", 3), ("zoë", 1)]))
        .await
        .unwrap();
    assert_eq!(
        counts(&*store, &["bob", "none", "ann", "zoë", "ann"]).await,
        [1, 0, 5, 1, 5]
    );
    assert_eq!(store.sweep().await.unwrap(), [""; 0]);
}

pub(crate) async fn lease_sets_counts_and_zero_removes<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.store();
    store
        .lease("n1", LONG, sessions(&[("ann", 2), ("bob", 1)]))
        .await
        .unwrap();
    store
        .lease("n1", LONG, sessions(&[("ann", 1)]))
        .await
        .unwrap();
    assert_eq!(counts(&*store, &["ann", "bob"]).await, [1, 1]);
    store
        .lease("n1", LONG, sessions(&[("ann", 0), ("none", 0)]))
        .await
        .unwrap();
    assert_eq!(counts(&*store, &["ann", "bob", "none"]).await, [0, 1, 0]);
    store.lease("n1", LONG, vec![]).await.unwrap();
    assert_eq!(counts(&*store, &["bob"]).await, [1]);
}

pub(crate) async fn release_removes_the_members_of_the_node<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.store();
    store
        .lease("n1", LONG, sessions(&[("ann", 2)]))
        .await
        .unwrap();
    store
        .lease("n2", LONG, sessions(&[("ann", 1)]))
        .await
        .unwrap();
    store.release("n1").await.unwrap();
    store.release("never").await.unwrap();
    assert_eq!(counts(&*store, &["ann"]).await, [1]);
    assert_eq!(
        store.sweep().await.unwrap(),
        [""; 0],
        "a release does not leave members to sweep"
    );
    assert!(!store.lease("n1", LONG, vec![]).await.unwrap());
    assert_eq!(counts(&*store, &["ann"]).await, [1]);
}

pub(crate) async fn ended_lease_is_not_counted<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.store();
    store
        .lease("n1", SHORT, sessions(&[("ann", 2)]))
        .await
        .unwrap();
    store
        .lease("n2", LONG, sessions(&[("ann", 1)]))
        .await
        .unwrap();
    eventually("the lease ends", async || {
        counts(&*store, &["ann"]).await == [1]
    })
    .await;
}

pub(crate) async fn each_member_of_an_ended_lease_is_swept_once<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.store();
    let names: Vec<_> = (0..100).map(|i| format!("user {i}")).collect();
    store
        .lease("n1", SHORT, names.iter().map(|n| (n.clone(), 1)).collect())
        .await
        .unwrap();
    store
        .lease("n2", LONG, sessions(&[("user 0", 1)]))
        .await
        .unwrap();
    eventually("the lease ends", async || {
        counts(&*store, &["user 1"]).await == [0]
    })
    .await;
    let mut swept = Vec::new();
    eventually("all are swept", async || {
        let both = tokio::join!(store.sweep(), store.sweep(), store.sweep());
        for some in [both.0, both.1, both.2] {
            swept.extend(some.unwrap());
        }
        swept.len() >= names.len()
    })
    .await;
    swept.extend(store.sweep().await.unwrap());
    swept.sort();
    let mut names = names;
    names.sort();
    assert_eq!(swept, names);
    assert_eq!(
        counts(&*store, &["user 0"]).await,
        [1],
        "elsewhere it is still there"
    );
}

pub(crate) async fn renewal_reports_an_ended_lease<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.store();
    assert!(
        !store
            .lease("n1", LONG, sessions(&[("ann", 1)]))
            .await
            .unwrap(),
        "it never was"
    );
    assert!(store.lease("n1", SHORT, vec![]).await.unwrap());
    eventually("the lease ends", async || {
        counts(&*store, &["ann"]).await == [0]
    })
    .await;
    assert!(
        !store.lease("n1", LONG, vec![]).await.unwrap(),
        "it had ended"
    );
    assert!(
        store
            .lease("n1", LONG, sessions(&[("ann", 2)]))
            .await
            .unwrap()
    );
    store.sweep().await.unwrap();
    assert_eq!(counts(&*store, &["ann"]).await, [2]);
}
