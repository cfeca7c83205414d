//! A server whose user loses the permission for single commands.

use redis_testing::Server;

use crate::{
    Append, Body, Commit, EventSlot, Expected, Keep, Mark, Partition, Position, Range, Read, Store,
    StoreError, Table, Write, WriteSlot, redis::Redis,
};

const MESSAGES: Table = Table::numbered("m");
const KEEP_ALL: Keep = Keep {
    events: 0,
    bytes: 0,
};

/// A commit that adds a message once, with its event.
fn message(key: &str) -> Commit {
    Commit {
        write: vec![Write::Put {
            table: MESSAGES,
            key: key.into(),
            value: key.to_owned().into(),
            mark: Mark::None,
            event: Some(EventSlot::nth(0)),
        }],
        append: vec![Append {
            kind: 1,
            reference: key.to_owned().into(),
            control: fanout::record::Control::None,
            body: Body::Written(WriteSlot::nth(0)),
        }],
        ..Commit::default()
    }
    .require(MESSAGES, key, Expected::Absent)
}

#[tokio::test]
async fn commit_that_the_server_stops_half_way_loses_and_repeats_nothing_later() {
    let server = Server::start().await;
    // One command of each step: the documents, the log, the head.
    for forbidden in ["hset", "zadd", "rpush", "set"] {
        let partition = Partition::new(format!("room-{forbidden}"));
        let store = Redis::open(&server.deployment(), KEEP_ALL);
        store
            .commit(&partition, message("first"))
            .await
            .unwrap()
            .unwrap();
        let denied = ["ACL", "SETUSER", "default", &format!("-{forbidden}")];
        server.command(&denied).await.unwrap();
        for _ in 0..2 {
            store
                .commit(&partition, message("stopped"))
                .await
                .unwrap_err();
        }
        let granted = ["ACL", "SETUSER", "default", &format!("+{forbidden}")];
        server.command(&granted).await.unwrap();

        // The number that the stopped commit wanted goes to another message.
        for (key, number) in [("second", 2), ("stopped", 3), ("last", 4)] {
            let outcome = store.commit(&partition, message(key)).await.unwrap();
            let outcome =
                outcome.unwrap_or_else(|_| panic!("{forbidden}: {key} is not stored yet"));
            assert_eq!(
                (outcome.written[0].stamps.number, outcome.first_seq),
                (number, number),
                "{forbidden}: {key}"
            );
        }
        let repeated = store.commit(&partition, message("stopped")).await.unwrap();
        assert!(repeated.is_err(), "{forbidden}: it is stored now");
        let (page, _) = store
            .page(&partition, MESSAGES, Range::After(0), 10)
            .await
            .unwrap();
        let listed: Vec<&str> = page.documents.iter().map(|found| &*found.key).collect();
        assert_eq!(
            listed,
            ["first", "second", "stopped", "last"],
            "{forbidden}"
        );
        let log = store
            .log(&partition, Position { seq: 0, at: 0 }, 10)
            .await
            .unwrap();
        let logged: Vec<&[u8]> = log
            .entries
            .iter()
            .map(|entry| &entry.reference[..])
            .collect();
        assert_eq!(
            logged,
            [&b"first"[..], b"second", b"stopped", b"last"],
            "{forbidden}"
        );
    }
}

#[tokio::test]
async fn stopped_commit_is_not_read() {
    let server = Server::start().await;
    let partition = Partition::new("room");
    let store = Redis::open(&server.deployment(), KEEP_ALL);
    let committed = store.commit(&partition, message("first")).await.unwrap();
    let outcome = committed.unwrap();
    let denied = ["ACL", "SETUSER", "default", "-set"];
    server.command(&denied).await.unwrap();
    let stopped = store.commit(&partition, message("stopped")).await;
    stopped.unwrap_err();
    let read = Read {
        partition: partition.clone(),
        documents: vec![(MESSAGES, "first".into()), (MESSAGES, "stopped".into())],
        newest: Some(MESSAGES),
    };
    for node in [&store, &Redis::open(&server.deployment(), KEEP_ALL)] {
        let found = node.read(vec![read.clone()]).await.unwrap().remove(0);
        assert!(found.documents[0].is_some() && found.documents[1].is_none());
        assert_eq!(&*found.newest.unwrap().key, "first");
        let after = Position {
            seq: 1,
            at: outcome.at,
        };
        let log = node.log(&partition, after, 10).await.unwrap();
        assert!(log.entries.is_empty());
    }
}

#[tokio::test]
async fn nothing_is_committed_while_a_command_is_forbidden() {
    let server = Server::start().await;
    let partition = Partition::new("room");
    let store = Redis::open(&server.deployment(), KEEP_ALL);
    server
        .command(&["ACL", "SETUSER", "default", "-rpush", "-hdel"])
        .await
        .unwrap();
    let StoreError::Unavailable(sentence) = store.now().await.unwrap_err() else {
        panic!("it is not told as unavailable");
    };
    assert!(sentence.contains("run HDEL, RPUSH"), "{sentence}");
    let refused = store.commit(&partition, message("refused")).await;
    assert!(matches!(refused, Err(StoreError::Unavailable(told)) if told == sentence));
    assert_eq!(
        server.command(&["KEYS", "*room*"]).await.unwrap(),
        redis::Value::Array(vec![]),
        "nothing was written"
    );
    server
        .command(&["ACL", "SETUSER", "default", "+rpush", "+hdel"])
        .await
        .unwrap();
    redis_testing::until("the permission is noticed", || async {
        store.now().await.is_ok()
    })
    .await;
    store
        .commit(&partition, message("stored"))
        .await
        .unwrap()
        .unwrap();
}
