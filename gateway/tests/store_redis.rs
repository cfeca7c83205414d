//! The Redis store on a server that forgets, hangs, refuses, dies, or is not there yet.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use fanout::{
    Position,
    record::Control,
    redis::testing::{Sentinel, Server, until},
};
use gateway::store::{
    Append, Body, Commit, Committed, DEADLINE, Expected, Keep, Key, Mark, Partition, Range, Read,
    Require, Store, StoreError, Table, Write,
    redis::{Redis, Unfit},
};

const MESSAGES: Table = Table::numbered("messages");
const ALL: Keep = Keep {
    events: 0,
    bytes: 0,
};

fn room() -> Partition {
    Partition::new("channel:room")
}

/// New messages, each with its event; none of them may be there.
fn messages<'a>(ids: impl IntoIterator<Item = &'a str>) -> Commit {
    let mut commit = Commit::default();
    for id in ids {
        let (key, event, write) = (Key::from(id), commit.append.len(), commit.write.len());
        commit.require.push(Require {
            table: MESSAGES,
            key: key.clone(),
            is: Expected::Absent,
        });
        commit.write.push(Write::Put {
            table: MESSAGES,
            key,
            value: Bytes::from("hi"),
            mark: Mark::None,
            event: Some(event),
        });
        let reference = Bytes::copy_from_slice(id.as_bytes());
        commit.append.push(Append {
            kind: 1,
            reference,
            control: Control::None,
            body: Body::Written(write),
        });
    }
    commit
}

async fn send(store: &Redis, id: &str) -> Committed {
    store.commit(&room(), messages([id])).await
}

/// The ids in the log, in its order.
async fn told(store: &Redis) -> Vec<String> {
    let log = store
        .log(&room(), Position::default(), 1_000_000)
        .await
        .unwrap();
    log.entries
        .iter()
        .map(|entry| String::from_utf8(entry.reference.to_vec()).unwrap())
        .collect()
}

fn is_unavailable<T>(answer: &Result<T, StoreError>, word: &str) -> bool {
    matches!(answer, Err(StoreError::Unavailable(sentence)) if sentence.contains(word))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_forgot_the_scripts_is_told_them_again() {
    let server = Server::start().await;
    let store = Arc::new(Redis::open(&server.deployment(), ALL));
    for round in 0..3 {
        let sent: Vec<_> = (0..32)
            .map(|n| {
                let store = store.clone();
                tokio::spawn(async move {
                    send(&store, &format!("{round}.{n}"))
                        .await
                        .unwrap()
                        .unwrap()
                })
            })
            .collect();
        server.command(&["SCRIPT", "FLUSH"]).await.unwrap();
        for one in sent {
            one.await.unwrap();
        }
    }
    let told = told(&store).await;
    assert_eq!(
        (told.len(), told.iter().collect::<HashSet<_>>().len()),
        (96, 96)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_take_turns_number_without_a_hole() {
    let server = Server::start().await;
    let nodes = [(); 2].map(|()| Arc::new(Redis::open(&server.deployment(), ALL)));
    let sent: Vec<_> = (0..8)
        .map(|task| {
            let node = nodes[task % 2].clone();
            tokio::spawn(async move {
                for batch in 0..9 {
                    let ids: Vec<_> = (0..31).map(|n| format!("{task}.{batch}.{n}")).collect();
                    node.commit(&room(), messages(ids.iter().map(String::as_str)))
                        .await
                        .unwrap()
                        .unwrap();
                }
            })
        })
        .collect();
    for one in sent {
        one.await.unwrap();
    }
    let (page, head) = nodes[0]
        .page(&room(), MESSAGES, Range::After(0), 10_000)
        .await
        .unwrap();
    let numbers: Vec<_> = page.documents.iter().map(|d| d.stamps.number).collect();
    assert_eq!(numbers, (1..=8 * 9 * 31).collect::<Vec<_>>());
    assert_eq!(head.number, 8 * 9 * 31);
    // A node that has never heard of these documents finds them, the newest too.
    let stranger = Redis::open(&server.deployment(), ALL);
    let documents = vec![
        (MESSAGES, Key::from("0.0.0")),
        (MESSAGES, Key::from("7.8.30")),
        (MESSAGES, Key::from("none")),
    ];
    let found = stranger
        .read(vec![Read {
            partition: room(),
            documents,
            newest: Some(MESSAGES),
        }])
        .await
        .unwrap()
        .remove(0);
    assert_eq!(
        found
            .documents
            .iter()
            .map(Option::is_some)
            .collect::<Vec<_>>(),
        [true, true, false]
    );
    assert_eq!(found.newest.unwrap().stamps.number, 8 * 9 * 31);
    let (changed, _) = stranger
        .page(&room(), MESSAGES, Range::Changed(8 * 9 * 31 - 3), 10)
        .await
        .unwrap();
    assert_eq!(changed.documents.len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_hangs_is_unavailable_in_time_and_comes_back() {
    let server = Server::start().await;
    let store = Redis::open(&server.deployment(), ALL);
    send(&store, "before").await.unwrap().unwrap();
    server.stop();
    let start = Instant::now();
    let read = vec![Read {
        partition: room(),
        documents: vec![],
        newest: None,
    }];
    let (members, room) = (["ann".to_owned()], room());
    let answers = tokio::join!(
        send(&store, "while"),
        store.read(read),
        store.log(&room, Position::default(), 10),
        store.page(&room, MESSAGES, Range::Before(None), 10),
        store.now(),
        store.members(&members),
        store.purge(&room, MESSAGES, None, 10),
    );
    assert!(start.elapsed() <= DEADLINE, "{:?}", start.elapsed());
    assert!(
        is_unavailable(&answers.0, "")
            && is_unavailable(&answers.1, "")
            && is_unavailable(&answers.2, "")
    );
    assert!(
        is_unavailable(&answers.3, "")
            && is_unavailable(&answers.4, "")
            && is_unavailable(&answers.5, "")
    );
    assert!(is_unavailable(&answers.6, ""));
    server.cont();
    until("the store comes back", || async {
        store.now().await.is_ok()
    })
    .await;
    send(&store, "after").await.unwrap().unwrap();
    // What was under way when the server hung may have happened, or not; never twice.
    let told = told(&store).await;
    let expected: &[&str] = if told.len() == 3 {
        &["before", "while", "after"]
    } else {
        &["before", "after"]
    };
    // The purge may have come first, but it leaves the log.
    assert_eq!(told, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_outlives_a_killed_server() {
    let mut server = Server::start_with(&["--appendonly", "yes", "--appendfsync", "always"]).await;
    let store = Arc::new(Redis::open(&server.deployment(), ALL));
    let senders: Vec<_> = (0..16)
        .map(|task| {
            let store = store.clone();
            tokio::spawn(async move {
                let mut acknowledged = Vec::new();
                for n in 0.. {
                    let id = format!("{task}.{n}");
                    match send(&store, &id).await {
                        Ok(done) => acknowledged.push((id, done.unwrap().first_seq)),
                        Err(_) => return acknowledged,
                    }
                }
                acknowledged
            })
        })
        .collect();
    until("some are sent", || async {
        store
            .log(&room(), Position::default(), 1)
            .await
            .is_ok_and(|log| log.head.seq > 500)
    })
    .await;
    server.kill9();
    let mut acknowledged = Vec::new();
    for sender in senders {
        acknowledged.extend(sender.await.unwrap());
    }
    server.restart().await;
    until("the store comes back", || async {
        store.now().await.is_ok()
    })
    .await;
    let told = told(&store).await;
    assert_eq!(
        told.iter().collect::<HashSet<_>>().len(),
        told.len(),
        "nothing is there twice"
    );
    for (id, seq) in &acknowledged {
        assert_eq!(told.get(*seq as usize - 1), Some(id));
    }
    let (page, head) = store
        .page(&room(), MESSAGES, Range::After(0), 1_000_000)
        .await
        .unwrap();
    let kept: Vec<_> = page.documents.iter().map(|d| d.key.to_string()).collect();
    assert_eq!(
        (kept, head.number),
        (told, head.seq),
        "every event has its document"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_refuses_writes_is_unavailable_and_nothing_is_done() {
    let server = Server::start().await;
    let store = Redis::open(&server.deployment(), ALL);
    send(&store, "before").await.unwrap().unwrap();

    server
        .command(&["CONFIG", "SET", "maxmemory", "1"])
        .await
        .unwrap();
    let answer = send(&store, "full").await;
    assert!(is_unavailable(&answer, "OOM"), "{answer:?}");
    assert!(
        store.now().await.is_err(),
        "what cannot be written is not available"
    );
    assert_eq!(told(&store).await, ["before"], "reads go on");
    server
        .command(&["CONFIG", "SET", "maxmemory", "0"])
        .await
        .unwrap();
    send(&store, "full").await.unwrap().unwrap();

    server
        .command(&["CONFIG", "SET", "min-replicas-to-write", "1"])
        .await
        .unwrap();
    let answer = send(&store, "lonely").await;
    assert!(is_unavailable(&answer, "NOREPLICAS"), "{answer:?}");
    server
        .command(&["CONFIG", "SET", "min-replicas-to-write", "0"])
        .await
        .unwrap();

    server
        .command(&["REPLICAOF", "127.0.0.1", "1"])
        .await
        .unwrap();
    let start = Instant::now();
    let answer = send(&store, "replica").await;
    assert!(
        is_unavailable(&answer, "") && start.elapsed() <= DEADLINE,
        "{answer:?} {:?}",
        start.elapsed()
    );
    server.command(&["REPLICAOF", "NO", "ONE"]).await.unwrap();
    until("the store comes back", || async {
        store.now().await.is_ok()
    })
    .await;
    send(&store, "after").await.unwrap().unwrap();
    assert_eq!(told(&store).await, ["before", "full", "after"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_may_be_opened_before_its_server_is_there() {
    let mut server = Server::start().await;
    server.kill9();
    let store = Redis::open(&server.deployment(), ALL);
    let start = Instant::now();
    assert!(is_unavailable(&send(&store, "early").await, ""));
    assert!(start.elapsed() <= DEADLINE, "{:?}", start.elapsed());
    assert!(matches!(store.check().await, Err(Unfit::Store(_))));
    server.restart().await;
    until("the store is there", || async { store.now().await.is_ok() }).await;
    send(&store, "m").await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_is_checked_for_eviction_and_durability() {
    let server = Server::start_with(&["--appendonly", "yes"]).await;
    let store = Redis::open(&server.deployment(), ALL);
    assert_eq!(store.check().await.unwrap(), [""; 0]);
    server
        .command(&["CONFIG", "SET", "appendonly", "no"])
        .await
        .unwrap();
    let warnings = store.check().await.unwrap();
    assert!(
        warnings.len() == 1 && warnings[0].contains("appendonly"),
        "{warnings:?}"
    );
    server
        .command(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"])
        .await
        .unwrap();
    let Err(Unfit::Settings(sentence)) = store.check().await else {
        panic!("an evicting server is refused")
    };
    assert!(sentence.contains("noeviction"), "{sentence}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_of_sentinels_is_followed() {
    let mut sentinel = Sentinel::start().await;
    let store = Redis::open(&sentinel.deployment(), ALL);
    assert!(
        store
            .check()
            .await
            .unwrap()
            .iter()
            .all(|warning| warning.contains("append-only"))
    );
    send(&store, "before").await.unwrap().unwrap();
    let master = sentinel.master().await;
    sentinel.servers[master].kill9();
    sentinel.failed_over(master).await;
    until("the store follows", || async { store.now().await.is_ok() }).await;
    send(&store, "after").await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_of_a_lease_that_ended_and_came_back_are_swept_once() {
    let server = Server::start().await;
    let store = Redis::open(&server.deployment(), ALL);
    assert!(
        !store
            .lease(
                "n1",
                Duration::from_millis(50),
                vec![("ann".into(), 1), ("bob".into(), 2)]
            )
            .await
            .unwrap()
    );
    until("the lease ends", || async {
        store.members(&["ann".into()]).await.unwrap() == [0]
    })
    .await;
    assert!(
        !store
            .lease("n1", Duration::from_secs(60), vec![("ann".into(), 1)])
            .await
            .unwrap()
    );
    assert_eq!(
        store.members(&["ann".into(), "bob".into()]).await.unwrap(),
        [1, 0]
    );
    let mut swept = store.sweep().await.unwrap();
    swept.sort();
    assert_eq!(swept, ["ann", "bob"]);
    assert_eq!(store.sweep().await.unwrap(), [""; 0]);
    assert_eq!(store.members(&["ann".into()]).await.unwrap(), [1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_may_be_longer_than_lua_can_unpack() {
    let server = Server::start().await;
    let store = Redis::open(&server.deployment(), ALL);
    let ids: Vec<_> = (0..9_500).map(|n| format!("{n}")).collect();
    let people = Table::listed("people");
    let mut commit = messages([]);
    for id in &ids {
        let put = Write::Put {
            table: people,
            key: Key::from(id.as_str()),
            value: Bytes::new(),
            mark: Mark::None,
            event: None,
        };
        commit.write.push(put);
        let reference = Bytes::copy_from_slice(id.as_bytes());
        commit.append.push(Append {
            kind: 1,
            reference,
            control: Control::None,
            body: Body::Bytes(Bytes::new(), None),
        });
    }
    store.commit(&room(), commit).await.unwrap().unwrap();
    assert_eq!(told(&store).await, ids);
    let (page, _) = store
        .page(&room(), people, Range::Keys { after: None }, 9_400)
        .await
        .unwrap();
    assert_eq!((page.documents.len(), page.more), (9_400, true));
}
