//! Tests of the Redis store on a Cluster.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod migration;
mod probe;
mod replicas;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use chaos_redis::{Names, Replicas, slot};
use fanout::{
    Position,
    record::{Control, Record},
};
use redis_testing::{Cluster, channel, until};
use store::{
    Append, Commit, Counter, DocumentKey, EventBody, EventSlot, Expected, Increment, IncrementSlot,
    Keep, Mark, Partition, Range, Require, Store, StoreError, Table, Write, WriteSlot,
    redis::Redis,
};

const MESSAGES: Table = Table::numbered("messages");
const PEOPLE: Table = Table::listed("people");
const ALL: Keep = Keep {
    events: 0,
    bytes: 0,
};

fn room() -> Partition {
    Partition::new("channel:room")
}

/// A commit of a new message, a new person and a counter, which together use many keys.
fn message(id: &str) -> Commit {
    let put = |table, event| Write::Put {
        table,
        key: DocumentKey::from(id),
        value: Bytes::from("hi"),
        mark: Mark::None,
        event,
    };
    Commit {
        require: vec![Require {
            table: MESSAGES,
            key: DocumentKey::from(id),
            is: Expected::Absent,
        }],
        write: vec![put(MESSAGES, Some(EventSlot::nth(0))), put(PEOPLE, None)],
        increment: vec![Increment {
            counter: Counter::Partition("sent"),
            by: 1,
            max: None,
            max_names: None,
        }],
        append: vec![Append {
            kind: 1,
            reference: Bytes::copy_from_slice(id.as_bytes()),
            control: Control::None,
            body: EventBody::Written(WriteSlot::nth(0)),
        }],
        ..Commit::default()
    }
}

/// Returns the number of WAIT commands that the masters received.
async fn waits(cluster: &Cluster) -> u64 {
    let mut waits = 0;
    for master in &cluster.masters {
        let text: String =
            redis::from_redis_value(master.command(&["INFO", "commandstats"]).await.unwrap())
                .unwrap();
        let calls = text.lines().find_map(|line| {
            line.strip_prefix("cmdstat_wait:calls=")?
                .split(',')
                .next()?
                .parse::<u64>()
                .ok()
        });
        waits += calls.unwrap_or(0);
    }
    waits
}
