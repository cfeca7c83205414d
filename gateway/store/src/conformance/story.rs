//! Helpers of the conformance tests: a builder of commits, and shorthands for store calls.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use fanout::record::{Control, Record};
use tokio::sync::mpsc::UnboundedReceiver;

use crate::{
    Append, Commit, Conflict, Counter, Document, DocumentKey, EventBody, Expected, Increment, Keep,
    Mark, Outcome, Page, Partition, PartitionHead, Position, Range, Read, Require, Snapshot, Store,
    Table, Write,
};

pub(super) const MESSAGES: Table = Table::numbered("messages");
pub(super) const PEOPLE: Table = Table::listed("people");
pub(super) const FACTS: Table = Table::plain("facts");

/// Deadline for records and conditions.
pub(super) const TIMEOUT: Duration = Duration::from_secs(10);

pub(super) const ALL: Keep = Keep {
    events: 0,
    bytes: 0,
};

pub(super) fn room() -> Partition {
    Partition::new("channel:room")
}

pub(super) fn key(name: &str) -> DocumentKey {
    Arc::from(name)
}

/// Builder methods for commits.
pub(super) trait CommitBuilder: Sized {
    fn requiring(self, table: Table, name: &str, is: Expected) -> Self;
    /// Puts a document. In [`MESSAGES`] also appends an event that publishes it.
    fn putting(self, table: Table, name: &str, value: impl Into<Bytes>) -> Self;
    fn marking(self, table: Table, name: &str, value: impl Into<Bytes>, mark: Mark) -> Self;
    fn touching(self, table: Table, name: &str) -> Self;
    fn deleting(self, table: Table, name: &str) -> Self;
    fn counting(self, name: &'static str, by: i64) -> Self;
    fn reacting(self, name: &str, emoji: &str, by: i64) -> Self;
    fn appending(self, reference: impl Into<Bytes>) -> Self;
}

impl CommitBuilder for Commit {
    fn requiring(mut self, table: Table, name: &str, is: Expected) -> Self {
        self.require.push(Require {
            table,
            key: key(name),
            is,
        });
        self
    }

    fn putting(self, table: Table, name: &str, value: impl Into<Bytes>) -> Self {
        self.marking(table, name, value, Mark::None)
    }

    fn marking(mut self, table: Table, name: &str, value: impl Into<Bytes>, mark: Mark) -> Self {
        let mut event = None;
        if table == MESSAGES {
            event = Some(self.next_event());
            self.append.push(Append {
                kind: 7,
                reference: Bytes::copy_from_slice(name.as_bytes()),
                control: Control::None,
                body: EventBody::Written(self.next_write()),
            });
        }
        self.write.push(Write::Put {
            table,
            key: key(name),
            value: value.into(),
            mark,
            event,
        });
        self
    }

    fn touching(mut self, table: Table, name: &str) -> Self {
        self.write.push(Write::Touch {
            table,
            key: key(name),
            event: self.next_event(),
        });
        self.appending(name.to_owned())
    }

    fn deleting(mut self, table: Table, name: &str) -> Self {
        self.write.push(Write::Delete {
            table,
            key: key(name),
        });
        self
    }

    fn counting(mut self, name: &'static str, by: i64) -> Self {
        self.increment.push(Increment {
            counter: Counter::Partition(name),
            by,
            max: None,
            max_names: None,
        });
        self
    }

    fn reacting(mut self, name: &str, emoji: &str, by: i64) -> Self {
        let counter = Counter::Document {
            table: MESSAGES,
            key: key(name),
            name: Arc::from(emoji),
        };
        self.increment.push(Increment {
            counter,
            by,
            max: None,
            max_names: None,
        });
        self
    }

    fn appending(mut self, reference: impl Into<Bytes>) -> Self {
        self.append.push(event(reference));
        self
    }
}

pub(super) fn commit() -> Commit {
    Commit::default()
}

/// An event that refers to no document.
pub(super) fn event(reference: impl Into<Bytes>) -> Append {
    Append {
        kind: 9,
        reference: reference.into(),
        control: Control::None,
        body: EventBody::Bytes(Bytes::from_static(b"told"), None),
    }
}

/// Commits and expects success.
pub(super) async fn commits(store: &dyn Store, partition: &Partition, commit: Commit) -> Outcome {
    store
        .commit(partition, commit)
        .await
        .expect("the store answers")
        .expect("nothing conflicts")
}

/// Purges once, without a precondition. Returns whether the table is empty now.
pub(super) async fn purge_step(
    store: &dyn Store,
    partition: &Partition,
    table: Table,
    limit: usize,
) -> bool {
    store
        .purge(partition, table, None, limit)
        .await
        .expect("the store answers")
        .expect("nothing is required")
}

/// Commits and expects a conflict.
pub(super) async fn conflicts(
    store: &dyn Store,
    partition: &Partition,
    commit: Commit,
) -> Conflict {
    store
        .commit(partition, commit)
        .await
        .expect("the store answers")
        .expect_err("a conflict")
}

pub(super) async fn read(
    store: &dyn Store,
    partition: &Partition,
    documents: &[(Table, &str)],
) -> Snapshot {
    let documents = documents
        .iter()
        .map(|(table, name)| (*table, key(name)))
        .collect();
    let read = Read {
        partition: partition.clone(),
        documents,
        newest: None,
    };
    store
        .read(vec![read])
        .await
        .expect("the store answers")
        .pop()
        .expect("a snapshot for each read")
}

pub(super) async fn document(
    store: &dyn Store,
    partition: &Partition,
    table: Table,
    name: &str,
) -> Option<Document> {
    read(store, partition, &[(table, name)])
        .await
        .documents
        .pop()
        .expect("an answer for each document")
}

pub(super) async fn head(store: &dyn Store, partition: &Partition) -> PartitionHead {
    read(store, partition, &[]).await.head
}

pub(super) async fn page(store: &dyn Store, table: Table, range: Range, limit: usize) -> Page {
    store
        .page(&room(), table, range, limit)
        .await
        .expect("the store answers")
        .0
}

/// Returns the positions of all events of the log.
pub(super) async fn positions(store: &dyn Store, partition: &Partition) -> Vec<Position> {
    let after = head(store, partition).await.floor;
    let log = store
        .log(partition, after, 100_000)
        .await
        .expect("the store answers");
    log.entries.iter().map(|entry| entry.position).collect()
}

/// Receives and decodes the next record, and checks that it encodes to the same bytes.
pub(super) async fn next_record(listener: &mut UnboundedReceiver<Bytes>) -> Record {
    let bytes = tokio::time::timeout(TIMEOUT, listener.recv())
        .await
        .expect("a record in time")
        .expect("the listener is open");
    let record = Record::decode(bytes.clone()).expect("a record");
    assert_eq!(
        record.encode(),
        bytes,
        "the layout is that of `Record::encode`"
    );
    record
}

/// Commits a last event and returns all records before it, including unexpected ones.
pub(super) async fn records_until_end(
    store: &dyn Store,
    partition: &Partition,
    listener: &mut UnboundedReceiver<Bytes>,
) -> Vec<Record> {
    let last = commits(store, partition, commit().appending("last"))
        .await
        .first_seq;
    let mut records = Vec::new();
    loop {
        let record = next_record(listener).await;
        if record.position.seq == last {
            return records;
        }
        records.push(record);
    }
}

/// Waits for a condition of the store.
pub(super) async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + TIMEOUT;
    while !holds().await {
        assert!(tokio::time::Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
