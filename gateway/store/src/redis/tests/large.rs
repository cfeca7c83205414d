//! Large reads beside everything else.

use std::sync::Arc;

use fanout::fair::Party;
use parking_lot::Mutex;
use redis_testing::{Proxy, Server};
use tokio::task::JoinHandle;

use crate::{
    Append, Commit, EventBody, EventSlot, Keep, Mark, Partition, Range, Read, Store, StoreError,
    Table, Write,
    cost::Meter,
    redis::{Redis, keys::Keys, large::MAX_LARGE_READS},
};

const MESSAGES: Table = Table::numbered("m");
const KEEP_ALL: Keep = Keep {
    events: 0,
    bytes: 0,
};

/// A commit that adds a message of 20 KB.
fn message(key: &str) -> Commit {
    let write = Write::Put {
        table: MESSAGES,
        key: key.into(),
        value: vec![1; 20_000].into(),
        mark: Mark::None,
        event: Some(EventSlot::nth(0)),
    };
    let body = EventBody::Bytes("x".into(), None);
    let append = Append {
        kind: 1,
        reference: "x".into(),
        control: fanout::record::Control::None,
        body,
    };
    Commit {
        write: vec![write],
        append: vec![append],
        ..Commit::default()
    }
}

fn one_message(partition: &Partition) -> Vec<Read> {
    vec![Read {
        partition: partition.clone(),
        documents: vec![(MESSAGES, "1".into())],
        newest: None,
    }]
}

#[tokio::test]
async fn commits_and_small_reads_do_not_wait_behind_a_large_reply() {
    let server = Server::start().await;
    let proxy = Proxy::before(server.port()).await;
    let (ours, theirs) = (Partition::new("ours"), Partition::new("theirs"));
    let filling = Redis::open(&server.deployment(), KEEP_ALL);
    for number in 0..10 {
        filling
            .commit(&ours, message(&number.to_string()))
            .await
            .unwrap()
            .unwrap();
    }
    let store = Arc::new(Redis::open(&proxy.url().parse().unwrap(), KEEP_ALL));
    proxy.shut();
    let page = tokio::spawn({
        let store = store.clone();
        async move { store.page(&ours, MESSAGES, Range::After(0), 50).await }
    });
    proxy.holds().await;
    store.commit(&theirs, message("1")).await.unwrap().unwrap();
    assert!(store.read(one_message(&theirs)).await.unwrap()[0].documents[0].is_some());
    proxy.open();
    assert_eq!(page.await.unwrap().unwrap().0.documents.len(), 10);
}

#[tokio::test]
async fn large_reads_take_turns_between_tenants_and_users_and_small_ones_do_not_wait() {
    let server = Server::start().await;
    let store = Arc::new(Redis::open(&server.deployment(), KEEP_ALL));
    let partition = Partition::new("p");
    store
        .commit(&partition, message("1"))
        .await
        .unwrap()
        .unwrap();
    // Afterwards the server knows the script, and a page is one command.
    store
        .page(&partition, MESSAGES, Range::After(0), 50)
        .await
        .unwrap();
    let permits = store
        .large_reads
        .permits_of(&Keys::of(&store.names, &partition).head());
    let mut held = Vec::new();
    for _ in 0..MAX_LARGE_READS {
        held.push(permits.acquire(Party::default()).await);
    }
    let order: Arc<Mutex<Vec<&str>>> = Arc::default();
    let mut reads: Vec<JoinHandle<()>> = Vec::new();
    let waiting = [
        ("a", "ann", "a1"),
        ("a", "ann", "a2"),
        ("a", "ann", "a3"),
        ("a", "bob", "b1"),
        ("z", "zoe", "z1"),
    ];
    for (tenant, user, name) in waiting {
        let (store, partition, order) = (store.clone(), partition.clone(), order.clone());
        reads.push(tokio::spawn(async move {
            let read = store.page(&partition, MESSAGES, Range::After(0), 50);
            Arc::new(Meter::of(&tenant, &user))
                .measure(read)
                .await
                .unwrap();
            order.lock().push(name);
        }));
        tokio::task::yield_now().await;
    }
    store
        .commit(&partition, message("2"))
        .await
        .unwrap()
        .unwrap();
    assert!(store.read(one_message(&partition)).await.unwrap()[0].documents[0].is_some());
    assert!(order.lock().is_empty(), "large reads wait");
    held.pop();
    for read in reads {
        read.await.unwrap();
    }
    assert_eq!(*order.lock(), ["a1", "z1", "b1", "a2", "a3"]);
    drop(held);
}

#[tokio::test]
async fn a_large_read_whose_turn_does_not_come_is_busy() {
    let server = Server::start().await;
    let store = Redis::open(&server.deployment(), KEEP_ALL);
    let partition = Partition::new("p");
    let commit = store.commit(&partition, message("1")).await;
    commit.unwrap().unwrap();
    let permits = store
        .large_reads
        .permits_of(&Keys::of(&store.names, &partition).head());
    let mut held = Vec::new();
    for _ in 0..MAX_LARGE_READS {
        held.push(permits.acquire(Party::default()).await);
    }
    tokio::time::pause();
    let page = store.page(&partition, MESSAGES, Range::After(0), 50).await;
    assert!(matches!(page, Err(StoreError::Busy)));
}
