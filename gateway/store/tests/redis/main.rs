//! Tests of the Redis store on a single server and with Sentinel.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod check;
mod eviction;
mod outage;
mod scripts;

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use fanout::{Position, record::Control};
use redis_testing::{Sentinel, Server, until};
use store::{
    Append, Commit, Committed, DEADLINE, DocumentKey, EventBody, Expected, Keep, Mark, Partition,
    Range, Read, Require, Store, StoreError, Table, Write,
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

/// A commit of new messages, each with an event. Conflicts if one exists.
fn messages<'a>(ids: impl IntoIterator<Item = &'a str>) -> Commit {
    let mut commit = Commit::default();
    for id in ids {
        let (key, event, write) = (
            DocumentKey::from(id),
            commit.next_event(),
            commit.next_write(),
        );
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
            body: EventBody::Written(write),
        });
    }
    commit
}

async fn send(store: &Redis, id: &str) -> Committed {
    store.commit(&room(), messages([id])).await
}

/// Returns the ids of the messages in the log, in order.
async fn logged(store: &Redis) -> Vec<String> {
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
