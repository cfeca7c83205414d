//! Tests of the threads that reads run on.

use bytes::Bytes;
use fanout::{Position, fair::Party};
use futures_util::{FutureExt, future::poll_immediate};

use super::*;
use crate::{Commit, Partition, Range, Read, StoreError};

const PEOPLE: Table = Table::listed("people");

/// One poll is one turn of a worker. A read that is not ready after it frees the worker for others.
#[tokio::test]
async fn large_read_leaves_the_worker_and_small_one_is_done_at_once() {
    let bench = EmbeddedBench::start(Keep {
        events: 0,
        bytes: 0,
    })
    .await;
    let (store, partition) = (&bench.store, Partition::new("room"));
    let commit = (0..400).fold(Commit::default(), |commit, n| {
        commit.put(PEOPLE, format!("{n:04}"), Bytes::from("somebody"))
    });
    store.commit(&partition, commit).await.unwrap().unwrap();

    let read = |count: usize| {
        let read = Read {
            partition: partition.clone(),
            documents: vec![(PEOPLE, "0001".into())],
            newest: None,
        };
        store.read(vec![read; count])
    };
    let page = |limit| store.page(&partition, PEOPLE, Range::Keys { after: None }, limit);
    assert!(poll_immediate(read(5)).await.is_some());
    assert!(poll_immediate(page(20)).await.is_some());
    assert!(
        poll_immediate(store.log(&partition, Position::default(), 10))
            .await
            .is_some()
    );
    // The permits are held, so that a large read cannot end before the poll returns.
    let mut permits = Vec::new();
    for _ in 0..store.reads.at_once {
        permits.push(store.reads.large.acquire(Party::default()).await);
    }
    assert!(poll_immediate(read(200)).await.is_none());
    assert!(poll_immediate(page(200)).await.is_none());
    assert!(
        poll_immediate(store.log(&partition, Position::default(), 1_000))
            .await
            .is_none()
    );
    // While many large ones wait, a small one is done at once.
    let mut flood: Vec<_> = (0..64).map(|_| read(200).boxed()).collect();
    for large in &mut flood {
        assert!(poll_immediate(large).await.is_none());
    }
    assert!(poll_immediate(read(1)).await.is_some());
    drop(permits);
    for large in flood {
        assert_eq!(large.await.unwrap().len(), 200);
    }
    assert_eq!(page(400).await.unwrap().0.documents.len(), 400);
}

#[tokio::test]
async fn commits_and_small_reads_go_on_while_large_reads_of_another_tenant_hold_all_permits() {
    let bench = EmbeddedBench::start(Keep {
        events: 0,
        bytes: 0,
    })
    .await;
    let (store, partition) = (&bench.store, Partition::new("room"));
    let mut held = Vec::new();
    for _ in 0..store.reads.at_once {
        held.push(store.reads.large.acquire(Party::default()).await);
    }
    let read = |count: usize| {
        let read = Read {
            partition: partition.clone(),
            documents: vec![(PEOPLE, "0001".into())],
            newest: None,
        };
        store.read(vec![read; count])
    };
    let mut flood: Vec<_> = (0..64).map(|_| read(200).boxed()).collect();
    for large in &mut flood {
        assert!(poll_immediate(large).await.is_none());
    }
    store
        .commit(
            &partition,
            Commit::default().put(PEOPLE, "0001", Bytes::from("somebody")),
        )
        .await
        .unwrap()
        .unwrap();
    assert!(
        poll_immediate(read(1))
            .await
            .is_some_and(|read| read.unwrap()[0].documents[0].is_some())
    );
    for large in &mut flood {
        assert!(poll_immediate(large).await.is_none());
    }
    drop(held);
    for large in flood {
        assert_eq!(large.await.unwrap().len(), 200);
    }
}

#[tokio::test]
async fn a_large_read_whose_turn_does_not_come_is_busy() {
    let bench = EmbeddedBench::start(Keep {
        events: 0,
        bytes: 0,
    })
    .await;
    let (store, partition) = (&bench.store, Partition::new("room"));
    let mut held = Vec::new();
    for _ in 0..store.reads.at_once {
        held.push(store.reads.large.acquire(Party::default()).await);
    }
    tokio::time::pause();
    let range = Range::Keys { after: None };
    let page = store.page(&partition, PEOPLE, range, 200);
    assert!(matches!(page.await, Err(StoreError::Busy)));
}
