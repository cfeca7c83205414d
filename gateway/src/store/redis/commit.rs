//! A commit: the plan for the script, and what its answer means.

use std::{collections::HashMap, time::Duration};

use fanout::{
    record::{Control, Record, Stamps},
    redis::{Answer, Witness},
};

use crate::store::{
    Append, Body, Commit, Committed, Conflict, Counter, Expected, Increment, Keep, Key, Mark,
    Order, Outcome, Partition, Require, StoreError, Table, Write, Written,
};

use super::{
    Redis,
    hints::Hints,
    keys,
    plan::{Plan, Wanted, learn},
    script::{self, Items},
};

/// How often a commit is tried with better hints. Each failure means that somebody else's commit went ahead.
const ATTEMPTS: usize = 16;

/// How long an acknowledgement may be held up by publishing again.
const REPUBLISH: Duration = Duration::from_millis(500);

impl Redis {
    pub(super) async fn commit_one(&self, partition: &Partition, commit: &Commit) -> Committed {
        let channel = fanout::redis::channel(partition.name());
        let documents = Documents::of(commit);
        let mut expiring = Vec::new();
        for _ in 0..ATTEMPTS {
            let keep = commit.keep.unwrap_or(self.keep);
            let settings = Settings {
                channel: &channel,
                publish: self.publish_command(),
                keep,
                offset: self.clock_offset(),
            };
            let mut plan = plan(partition, commit, &documents, &self.hints, &settings);
            for key in &expiring {
                plan.key(String::clone(key));
            }
            let Answer {
                value,
                asked,
                witness,
            } = script::COMMIT
                .run(&self.commands, &plan.keys, &[plan.pack.0])
                .await?;
            let mut items = Items::of(value)?;
            match items.int()? {
                0 => {
                    let done = Done::read(items, commit)?;
                    done.remember(partition, commit, &self.hints);
                    if asked {
                        self.publish_again(&channel, commit, &done).await;
                    }
                    confirm(witness, partition).await?;
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
                    // What stands in the way may be what the caller sent before, and is about to be told as kept.
                    confirm(witness, partition).await?;
                    return Ok(Err(conflict));
                }
                3 => expiring = items.items()?.texts()?,
                _ => learn(
                    &self.hints,
                    partition,
                    items,
                    documents.list.iter().map(|d| (d.table, d.key)),
                )?,
            }
        }
        Err(StoreError::Unavailable(
            "the partition changes faster than this node can follow".to_owned(),
        ))
    }

    /// The commit happened at the node that a slot moves to, while the subscribers are still at the one that it leaves:
    /// what the script published reached nobody. The bus drops what comes twice.
    async fn publish_again(&self, channel: &str, commit: &Commit, done: &Done) {
        let publish = async {
            for record in done.records(commit) {
                let mut cmd = redis::Cmd::new();
                cmd.arg(self.publish_command())
                    .arg(channel)
                    .arg(&record[..]);
                self.commands.run(&cmd).await?;
            }
            Ok::<_, redis::RedisError>(())
        };
        // The commit is done, whatever becomes of this.
        if !matches!(tokio::time::timeout(REPUBLISH, publish).await, Ok(Ok(()))) {
            tracing::warn!(
                channel,
                "a record of a moving slot was not published again; its listeners will find it in the log"
            );
        }
    }
}

/// Waits until replicas have what the script found and did, if they are to be waited for.
pub(super) async fn confirm(
    witness: Option<Witness>,
    partition: &Partition,
) -> Result<(), StoreError> {
    match witness {
        Some(witness) => witness
            .confirm(keys::marker(partition))
            .await
            .map_err(|error| StoreError::Unavailable(error.to_string())),
        None => Ok(()),
    }
}

/// What a commit's plan says besides the commit.
struct Settings<'a> {
    channel: &'a str,
    publish: &'a str,
    keep: Keep,
    offset: i64,
}

/// The documents that a commit names, each once; those that it writes come first, in their order.
#[derive(Default)]
struct Documents<'a> {
    list: Vec<Named<'a>>,
    /// Their places in the list.
    places: HashMap<(Table, &'a Key), usize>,
}

struct Named<'a> {
    table: Table,
    key: &'a Key,
    /// Whether the commit makes it where it is absent, and requires nothing that an absent document lacks.
    maybe_new: bool,
    /// Whether an index of its table may change with it.
    indexed: bool,
}

impl<'a> Documents<'a> {
    fn of(commit: &'a Commit) -> Self {
        let mut documents = Self::default();
        for write in &commit.write {
            let (table, key, maybe_new, indexed) = match write {
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
            let named = documents.named(table, key);
            (named.maybe_new, named.indexed) = (maybe_new, indexed);
        }
        for Require { table, key, is } in &commit.require {
            let named = documents.named(*table, key);
            named.maybe_new &= matches!(is, Expected::Absent);
        }
        for increment in &commit.increment {
            if let Counter::Document { table, key, .. } = &increment.counter {
                documents.named(*table, key).maybe_new = false;
            }
        }
        documents
    }

    fn named(&mut self, table: Table, key: &'a Key) -> &mut Named<'a> {
        let place = *self.places.entry((table, key)).or_insert_with(|| {
            self.list.push(Named {
                table,
                key,
                maybe_new: false,
                indexed: false,
            });
            self.list.len() - 1
        });
        &mut self.list[place]
    }

    /// Its index in the plan, from 1.
    fn index(&self, table: Table, key: &Key) -> usize {
        self.places
            .get(&(table, key))
            .expect("every document of the commit was listed")
            + 1
    }
}

/// An index in the plan, from 1; 0 for none.
fn index(index: Option<usize>) -> usize {
    index.map_or(0, |index| index + 1)
}

/// Writes the plan as `scripts/commit.lua` reads it.
fn plan(
    partition: &Partition,
    commit: &Commit,
    documents: &Documents<'_>,
    hints: &Hints,
    settings: &Settings<'_>,
) -> Plan {
    let Commit {
        require,
        write,
        increment,
        append,
        expire,
        keep: _,
    } = commit;
    let mut plan = Plan::new(partition);
    if !append.is_empty() {
        plan.key(keys::log(partition));
    }
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
        .uint(expire);
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
    for Named {
        table,
        key,
        maybe_new,
        indexed,
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
        let wanted = Wanted {
            table: *table,
            key,
            bucket: number.map(keys::bucket),
            indexed: *indexed,
        };
        plan.document(partition, &wanted);
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
            } => (0, table, key, *event, *mark, value),
            Write::Touch { table, key, event } => (1, table, key, Some(*event), Mark::None, b""),
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
            Body::Bytes(body, counted) => (0, body, index(*counted)),
            Body::Written(write) => (index(Some(*write)), b"", 0),
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

/// What the script answered to a commit that happened.
struct Done {
    outcome: Outcome,
    /// The highest number of the partition.
    number: u64,
    /// The `at` of the event before the first one.
    before: u64,
    /// The counters in each record, as a MessagePack map; empty for none.
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

    fn remember(&self, partition: &Partition, commit: &Commit, hints: &Hints) {
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

    /// The records as the script published them.
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
                Body::Bytes(body, counted) => {
                    record.body = body.clone();
                    record.count = counted.map(|index| self.outcome.counts[index]);
                }
                Body::Written(index) => {
                    if let Write::Put { value, .. } = &commit.write[*index] {
                        record.body = value.clone();
                    }
                    record.stamps = self.outcome.written[*index].stamps;
                    record.counts = Some(counts.clone()).filter(|counts| !counts.is_empty());
                }
            }
            record.encode()
        };
        commit.append.iter().zip(&self.counts).map(record).collect()
    }
}
