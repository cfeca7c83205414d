//! The commit: the plan for the script, and its reply.

use std::{collections::HashMap, time::Duration};

use chaos_redis::{CommandReply, ReplicaAck};
use fanout::record::{Control, Record, Stamps};

use super::{
    Redis,
    hints::Hints,
    keys::{self, Keys},
    plan::{DocumentKeys, ScriptPlan, update_hints},
    read::too_many_conflicting_writes,
    script::{self, Items},
};
use crate::{
    Append, Commit, Committed, Conflict, Counter, DocumentKey, EventBody, EventSlot, Expected,
    Increment, IncrementSlot, Keep, Mark, Order, Outcome, Partition, Require, StoreError, Table,
    Write, Written,
};

/// Maximum number of attempts with updated hints. Each failed attempt means that another commit
/// succeeded meanwhile.
const MAX_ATTEMPTS: usize = 16;

/// Maximum time by which publishing again delays an acknowledgement.
const REPUBLISH_TIMEOUT: Duration = Duration::from_millis(500);

pub(super) async fn commit_one(redis: &Redis, partition: &Partition, commit: &Commit) -> Committed {
    let (keys, channel) = (redis.keys(partition), redis.names.channel(partition.name()));
    let documents = Documents::of(commit);
    let mut expiring = Vec::new();
    for _ in 0..MAX_ATTEMPTS {
        let keep = commit.keep.unwrap_or(if commit.append.is_empty() {
            Keep {
                events: 0,
                bytes: 0,
            }
        } else {
            redis.keep
        });
        let settings = Settings {
            channel: &channel,
            publish: redis.publish_command(),
            keep,
            offset: redis.clock_offset(),
        };
        let mut plan = plan(keys, partition, commit, &documents, &redis.hints, &settings);
        for key in &expiring {
            plan.key(String::clone(key));
        }
        let CommandReply {
            value,
            is_from_importing_node,
            replica_ack,
        } = script::COMMIT
            .run(&redis.commands, &plan.keys, &[plan.pack.0])
            .await?;
        let mut items = Items::of(value)?;
        match items.int()? {
            0 => {
                let done = Done::read(items, commit)?;
                done.update_hints(partition, commit, &redis.hints);
                if is_from_importing_node {
                    publish_again(redis, &channel, commit, &done).await;
                }
                wait_for_replicas(replica_ack, keys).await?;
                return Ok(Ok(done.outcome));
            }
            1 => {
                let index = |n: u64| usize::try_from(n).map_err(script::unavailable);
                let mut list = || {
                    items
                        .items()?
                        .ints()?
                        .into_iter()
                        .map(index)
                        .collect::<Result<Vec<_>, _>>()
                };
                let conflict = Conflict {
                    require: list()?,
                    increment: list()?,
                };
                // The conflict may be with an earlier attempt of the caller, which then counts
                // as acknowledged.
                wait_for_replicas(replica_ack, keys).await?;
                return Ok(Err(conflict));
            }
            3 => expiring = items.items()?.texts()?,
            _ => update_hints(
                &redis.hints,
                partition,
                items,
                documents.list.iter().map(|d| (d.table, d.key)),
            )?,
        }
    }
    Err(too_many_conflicting_writes())
}

/// Publishes a commit's records again. Needed if the commit ran at the importing node of a
/// migrating slot: its messages do not reach the subscribers, which are still at the exporting
/// node. The bus drops duplicates.
async fn publish_again(redis: &Redis, channel: &str, commit: &Commit, done: &Done) {
    let publish = async {
        for record in done.records(commit) {
            let mut cmd = redis::Cmd::new();
            cmd.arg(redis.publish_command())
                .arg(channel)
                .arg(&record[..]);
            redis.commands.run(&cmd).await?;
        }
        Ok::<_, redis::RedisError>(())
    };
    // The commit is done even if this fails.
    if !matches!(
        tokio::time::timeout(REPUBLISH_TIMEOUT, publish).await,
        Ok(Ok(()))
    ) {
        tracing::warn!(
            channel,
            "cannot publish a record of a migrating slot again, subscribers will recover it from the log"
        );
    }
}

/// Waits until the replicas have the state that the script read and wrote, if configured.
pub(super) async fn wait_for_replicas(
    replica_ack: Option<ReplicaAck>,
    keys: Keys<'_>,
) -> Result<(), StoreError> {
    match replica_ack {
        Some(replica_ack) => replica_ack
            .confirm(keys.marker())
            .await
            .map_err(|error| StoreError::Unavailable(error.to_string())),
        None => Ok(()),
    }
}

/// Parameters of a plan besides the commit.
struct Settings<'a> {
    channel: &'a str,
    publish: &'a str,
    keep: Keep,
    offset: i64,
}

/// The documents of a commit without duplicates; those that it writes come first, in order.
#[derive(Default)]
struct Documents<'a> {
    list: Vec<CommitDocument<'a>>,
    /// Indexes into the list.
    indexes: HashMap<(Table, &'a DocumentKey), usize>,
}

struct CommitDocument<'a> {
    table: Table,
    key: &'a DocumentKey,
    /// Whether the commit may create the document.
    maybe_new: bool,
    /// Whether the commit may change an index of the table.
    index_changes: bool,
}

impl<'a> Documents<'a> {
    fn of(commit: &'a Commit) -> Self {
        let mut documents = Self::default();
        for write in &commit.write {
            let (table, key, maybe_new, index_changes) = match write {
                Write::Put {
                    table, key, event, ..
                } => (
                    *table,
                    key,
                    true,
                    table.order == Order::Keys || event.is_some(),
                ),
                Write::Touch { table, key, .. } | Write::Delete { table, key } => {
                    (*table, key, false, true)
                }
            };
            let document = documents.entry(table, key);
            (document.maybe_new, document.index_changes) = (maybe_new, index_changes);
        }
        for Require { table, key, is } in &commit.require {
            documents.entry(*table, key).maybe_new &= matches!(is, Expected::Absent);
        }
        for increment in &commit.increment {
            if let Counter::Document { table, key, .. } = &increment.counter {
                documents.entry(*table, key).maybe_new = false;
            }
        }
        documents
    }

    fn entry(&mut self, table: Table, key: &'a DocumentKey) -> &mut CommitDocument<'a> {
        let index = *self.indexes.entry((table, key)).or_insert_with(|| {
            self.list.push(CommitDocument {
                table,
                key,
                maybe_new: false,
                index_changes: false,
            });
            self.list.len() - 1
        });
        &mut self.list[index]
    }

    /// Returns the index of a document in the plan, from 1.
    fn index(&self, table: Table, key: &DocumentKey) -> usize {
        self.indexes
            .get(&(table, key))
            .expect("the list has every document of the commit")
            + 1
    }
}

/// Converts an index to one in the plan, from 1; 0 for none.
fn index(index: Option<usize>) -> usize {
    index.map_or(0, |index| index + 1)
}

/// Packs the plan as `scripts/commit.lua` reads it.
fn plan(
    keys: Keys<'_>,
    partition: &Partition,
    commit: &Commit,
    documents: &Documents<'_>,
    hints: &Hints,
    settings: &Settings<'_>,
) -> ScriptPlan {
    let Commit {
        require,
        write,
        increment,
        append,
        expire,
        keep,
        frees,
    } = commit;
    let mut plan = ScriptPlan::new(keys);
    if !append.is_empty() || expire.is_some() || keep.is_some() {
        plan.key(keys.log());
    }
    let room = if *frees { plan.key(keys.room()) } else { 0 };
    let expire = expire.map_or(0, |after| {
        u64::try_from(after.as_millis()).unwrap_or(u64::MAX).max(1)
    });
    let Settings {
        channel,
        publish,
        keep,
        offset,
    } = settings;
    plan.pack
        .text(channel)
        .text(publish)
        .uint(keep.events)
        .uint(keep.bytes)
        .int(*offset)
        .uint(expire)
        .index(room);
    for count in [
        documents.list.len(),
        require.len(),
        increment.len(),
        write.len(),
        append.len(),
    ] {
        plan.pack.index(count);
    }

    let mut next = hints.number(partition).unwrap_or(0);
    for CommitDocument {
        table,
        key,
        maybe_new,
        index_changes,
    } in &documents.list
    {
        let number = match (table.order, hints.document(partition, key)) {
            (Order::Numbers, Some(number)) if number > 0 => Some(number),
            (Order::Numbers, _) if *maybe_new => {
                next += 1;
                Some(next)
            }
            _ => None,
        };
        let document = DocumentKeys {
            table: *table,
            key,
            bucket: number.map(keys::bucket),
            index_changes: *index_changes,
        };
        plan.document(keys, &document);
    }

    let pack = &mut plan.pack;
    for Require { table, key, is } in require {
        pack.index(documents.index(*table, key)).expected(*is);
    }
    for Increment {
        counter,
        by,
        max,
        max_names,
    } in increment
    {
        let (document, name) = match counter {
            Counter::Partition(name) => (0, *name),
            Counter::Document { table, key, name } => (documents.index(*table, key), &**name),
        };
        pack.index(document)
            .text(name)
            .int(*by)
            .bound(*max)
            .bound(*max_names);
    }
    for write in write {
        let (what, table, key, event, mark, value): (_, _, _, _, _, &[u8]) = match write {
            Write::Put {
                table,
                key,
                value,
                mark,
                event,
            } => (0, table, key, event.map(EventSlot::index), *mark, value),
            Write::Touch { table, key, event } => {
                (1, table, key, Some(event.index()), Mark::None, b"")
            }
            Write::Delete { table, key } => (2, table, key, None, Mark::None, b""),
        };
        let mark = match mark {
            Mark::None => 0,
            Mark::Edited => 1,
            Mark::Deleted => 2,
        };
        pack.small(what)
            .index(documents.index(*table, key))
            .index(index(event))
            .small(mark)
            .bytes(value);
    }
    for Append {
        kind,
        reference,
        control,
        body,
    } in append
    {
        let (control, subject): (_, &[u8]) = match control {
            Control::None => (0, b""),
            Control::Evict(subject) => (1, subject),
            Control::Close => (2, b""),
            Control::Except(subject) => (3, subject),
        };
        let (written, body, counted): (_, &[u8], _) = match body {
            EventBody::Bytes(body, counted) => (0, body, index(counted.map(IncrementSlot::index))),
            EventBody::Written(write) => (index(Some(write.index())), b"", 0),
        };
        pack.small(*kind)
            .bytes(reference)
            .small(control)
            .short(subject)
            .index(written)
            .bytes(body)
            .index(counted);
    }
    plan
}

/// The script's reply to a successful commit.
struct Done {
    outcome: Outcome,
    /// The highest number of the partition.
    number: u64,
    /// Timestamp of the event before the first one.
    before: u64,
    /// The counters of each record as a MessagePack map, or empty.
    counts: Vec<bytes::Bytes>,
}

impl Done {
    fn read(mut items: Items, commit: &Commit) -> Result<Self, StoreError> {
        let [at, before, first_seq, number] =
            [items.int()?, items.int()?, items.int()?, items.int()?];
        let mut written = Vec::with_capacity(commit.write.len());
        for _ in &commit.write {
            let [version, number, seq] = [items.int()?, items.int()?, items.int()?];
            let [created_at, edited_at, deleted_at] = [items.int()?, items.int()?, items.int()?];
            written.push(Written {
                version,
                stamps: Stamps {
                    number,
                    seq,
                    created_at,
                    edited_at,
                    deleted_at,
                },
            });
        }
        let counts = commit
            .increment
            .iter()
            .map(|_| items.int())
            .collect::<Result<_, _>>()?;
        let outcome = Outcome {
            at,
            first_seq,
            written,
            counts,
        };
        let counts = commit
            .append
            .iter()
            .map(|_| items.some_bytes())
            .collect::<Result<_, _>>()?;
        Ok(Self {
            outcome,
            number,
            before,
            counts,
        })
    }

    fn update_hints(&self, partition: &Partition, commit: &Commit, hints: &Hints) {
        if self.number > 0 {
            hints.saw_number(partition, self.number);
        }
        for (write, Written { stamps, .. }) in commit.write.iter().zip(&self.outcome.written) {
            match write {
                Write::Put { key, .. } | Write::Touch { key, .. } if stamps.number > 0 => {
                    hints.saw_document(partition, key, stamps.number)
                }
                _ => {}
            }
        }
    }

    /// Returns the records that the script published.
    fn records(&self, commit: &Commit) -> Vec<bytes::Bytes> {
        let mut before = self.before;
        let mut seq = self.outcome.first_seq;
        let record = |(append, counts): (&Append, &bytes::Bytes)| {
            let position = fanout::Position {
                seq,
                at: self.outcome.at,
            };
            let mut record = Record {
                kind: append.kind,
                control: append.control.clone(),
                position,
                before,
                ..Record::default()
            };
            (seq, before) = (seq + 1, self.outcome.at);
            match &append.body {
                EventBody::Bytes(body, counted) => {
                    record.body = body.clone();
                    record.count = counted.map(|counted| self.outcome.count(counted));
                }
                EventBody::Written(write) => {
                    if let Write::Put { value, .. } = &commit.write[write.index()] {
                        record.body = value.clone();
                    }
                    record.stamps = self.outcome.stamps(*write);
                    record.counts = Some(counts.clone()).filter(|counts| !counts.is_empty());
                }
            }
            record.encode()
        };
        commit.append.iter().zip(&self.counts).map(record).collect()
    }
}
