//! A server whose user loses the permission for single commands.

use redis_testing::Server;

use crate::{
    Append, Commit, EventBody, EventSlot, Expected, Keep, Mark, Partition, Store, StoreError,
    Table, Write, WriteSlot, redis::Redis,
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
            body: EventBody::Written(WriteSlot::nth(0)),
        }],
        ..Commit::default()
    }
    .require(MESSAGES, key, Expected::Absent)
}

#[tokio::test]
async fn commit_without_every_permission_writes_nothing() {
    let server = Server::start().await;
    for forbidden in ["hset", "zadd", "rpush", "set", "publish"] {
        let partition = Partition::new(format!("room-{forbidden}"));
        let store = Redis::open(&server.deployment(), KEEP_ALL);
        let before = server.command(&["KEYS", "*"]).await.unwrap();
        let denied = ["ACL", "SETUSER", "default", &format!("-{forbidden}")];
        server.command(&denied).await.unwrap();
        let refused = store.commit(&partition, message("refused")).await;
        assert!(
            matches!(refused, Err(StoreError::Unavailable(_))),
            "{forbidden}: {refused:?}"
        );
        let granted = ["ACL", "SETUSER", "default", &format!("+{forbidden}")];
        server.command(&granted).await.unwrap();
        let after = server.command(&["KEYS", "*"]).await.unwrap();
        assert_eq!(before, after, "{forbidden}");
        for (key, number) in [("another", 1), ("refused", 2)] {
            let outcome = store.commit(&partition, message(key)).await.unwrap();
            let outcome = outcome.unwrap_or_else(|_| panic!("{forbidden}: {key} is stored"));
            assert_eq!(outcome.first_seq, number, "{forbidden}: {key}");
        }
        server.command(&["FLUSHALL"]).await.unwrap();
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
