//! [`Transfer`] for Redis.
//!
//! A load writes the keys of its partition piece by piece, and the head with the last piece. Every
//! script reads the head first, and treats a partition without one as absent.

use async_trait::async_trait;
use chaos_redis::CommandReply;
use redis::{Cmd, Pipeline, Value};

use super::{
    Redis, commit,
    keys::{self, Keys},
    plan::{Pack, ScriptPlan},
    script::{self, Items},
    stored, with_timeout,
};
use crate::{
    Document, DocumentKey, LogEntry, Order, Partition, StoreError, Table,
    transfer::{Exists, Loaded, Outline, PartitionPiece, Transfer, TransferCursor},
};

/// Number of keys that one SCAN examines.
const KEYS_PER_SCAN: usize = 1_000;

/// The steps of `scripts/load.lua`.
#[derive(Clone, Copy)]
enum Step {
    SetField = 0,
    AddMember = 1,
    Append = 2,
}

/// A plan for `scripts/load.lua`.
struct Load<'a> {
    keys: Keys<'a>,
    plan: ScriptPlan,
    steps: Pack,
    count: u32,
}

impl Load<'_> {
    fn step(&mut self, what: Step, key: String, name: &str, value: &[u8]) {
        let key = self.plan.key(key);
        self.steps
            .small(what as u8)
            .index(key)
            .text(name)
            .bytes(value);
        self.count += 1;
    }

    fn document(&mut self, table: Table, document: &Document) {
        let keys = self.keys;
        let by_key = keys.by_key(table, &document.key);
        let stored = stored::put_document(table, document);
        match table.order {
            Order::None => self.step(Step::SetField, by_key, &document.key, &stored),
            Order::Keys => {
                self.step(Step::SetField, by_key, &document.key, &stored);
                self.step(
                    Step::AddMember,
                    keys.index(table),
                    "0",
                    document.key.as_bytes(),
                );
            }
            Order::Numbers => {
                let number = document.stamps.number.to_string();
                self.step(Step::SetField, by_key, &document.key, number.as_bytes());
                let bucket = keys::bucket(document.stamps.number);
                self.step(
                    Step::SetField,
                    keys.by_number(table, bucket),
                    &number,
                    &stored,
                );
                let seq = document.stamps.seq.to_string();
                self.step(
                    Step::AddMember,
                    keys.changes(table),
                    &seq,
                    number.as_bytes(),
                );
            }
        }
    }

    fn entry(&mut self, entry: &LogEntry) {
        self.step(Step::Append, self.keys.log(), "", &stored::put_entry(entry));
    }

    /// Returns the declared keys and the packed plan.
    fn finish(mut self, outline: Option<&Outline>) -> (Vec<String>, Vec<u8>) {
        let pack = &mut self.plan.pack;
        pack.0.extend_from_slice(&self.count.to_be_bytes());
        pack.0.append(&mut self.steps.0);
        let head = outline.map(|outline| stored::put_head(outline, &self.plan.keys[1..]));
        pack.bytes(&head.unwrap_or_default())
            .uint(outline.and_then(|outline| outline.expires).unwrap_or(0));
        (self.plan.keys, self.plan.pack.0)
    }
}

async fn load_piece(redis: &Redis, partition: &Partition, piece: PartitionPiece) -> Loaded {
    let keys = redis.keys(partition);
    let mut load = Load {
        keys,
        plan: ScriptPlan::new(keys),
        steps: Pack(Vec::new()),
        count: 0,
    };
    for (table, document) in &piece.documents {
        load.document(*table, document);
    }
    for entry in &piece.entries {
        load.entry(entry);
    }
    let (declared, plan) = load.finish(piece.outline.as_ref());
    let CommandReply {
        value, replica_ack, ..
    } = script::LOAD
        .run(&redis.commands, &declared, &[plan])
        .await?;
    match value {
        Value::Int(0) => {
            commit::wait_for_replicas(replica_ack, keys).await?;
            Ok(Ok(()))
        }
        Value::Int(1) => Ok(Err(Exists)),
        other => Err(StoreError::Corrupt(format!(
            "unexpected reply of a script: {other:?}"
        ))),
    }
}

async fn scan_table(
    redis: &Redis,
    partition: &Partition,
    table: Table,
    from: Option<TransferCursor>,
    limit: usize,
) -> Result<(Vec<Document>, Option<TransferCursor>), StoreError> {
    let keys = redis.keys(partition);
    let mut plan = ScriptPlan::new(keys);
    for index in 0..keys::HASHES_PER_TABLE {
        plan.key(keys.table_hash(table, index));
    }
    let TransferCursor(from) = from.unwrap_or_else(|| TransferCursor("0 0".to_owned()));
    let (hash, within) = from
        .split_once(' ')
        .and_then(|(hash, within)| Some((hash.parse().ok()?, within)))
        .ok_or_else(invalid_cursor)?;
    plan.pack.index(hash).text(within).uint(limit as u64);
    let mut items = Items::of(
        script::SCAN
            .run(&redis.commands, &plan.keys, &[plan.pack.0])
            .await?
            .value,
    )?;
    let (hash, within) = (items.int()?, items.text()?);
    let mut documents = Vec::with_capacity(items.len() / 2);
    while items.len() > 0 {
        let key = DocumentKey::from(items.text()?);
        documents.push(stored::document(items.some_bytes()?, Some(&key))?);
    }
    Ok((
        documents,
        (hash < keys::HASHES_PER_TABLE).then(|| TransferCursor(format!("{hash} {within}"))),
    ))
}

/// Runs one SCAN for a pattern, shard by shard. Returns the keys found and the next cursor.
async fn scan_keys(
    redis: &Redis,
    pattern: &str,
    from: Option<TransferCursor>,
) -> Result<(Vec<String>, Option<TransferCursor>), StoreError> {
    let shards = redis
        .commands
        .masters()
        .await
        .map_err(script::unavailable)?;
    let (shard, within) = match from {
        Some(TransferCursor(from)) => from
            .rsplit_once(' ')
            .map(|(shard, within)| (shard.to_owned(), within.to_owned()))
            .ok_or_else(invalid_cursor)?,
        None => (shards.first().cloned().unwrap_or_default(), "0".to_owned()),
    };
    let place = shards
        .iter()
        .position(|other| *other == shard)
        .ok_or_else(|| {
            StoreError::Unavailable(
                "the Cluster changed during the scan: start again when its masters are stable"
                    .to_owned(),
            )
        })?;
    let mut cmd = Cmd::new();
    cmd.arg("SCAN")
        .arg(&within)
        .arg("MATCH")
        .arg(pattern)
        .arg("COUNT")
        .arg(KEYS_PER_SCAN);
    let mut items = Items::of(
        redis
            .commands
            .on_master(&shard, &cmd)
            .await
            .map_err(script::unavailable)?,
    )?;
    let within = items.text()?;
    let found = items.items()?.texts()?;
    let next = if within != "0" {
        Some((&shard, within))
    } else {
        shards.get(place + 1).map(|shard| (shard, "0".to_owned()))
    };
    Ok((
        found,
        next.map(|(shard, within)| TransferCursor(format!("{shard} {within}"))),
    ))
}

async fn names(
    redis: &Redis,
    prefix: &str,
    from: Option<TransferCursor>,
) -> Result<(Vec<Partition>, Option<TransferCursor>), StoreError> {
    let pattern = format!("{}*}}:head", redis.names.keys_of(&escape_glob(prefix)));
    let (found, next) = scan_keys(redis, &pattern, from).await?;
    let name = |key: &String| Some(Partition::new(redis.names.partition(key, "head")?));
    Ok((found.iter().filter_map(name).collect(), next))
}

async fn unlink(
    redis: &Redis,
    prefix: &str,
    from: Option<TransferCursor>,
) -> Result<Option<TransferCursor>, StoreError> {
    let (found, next) = scan_keys(
        redis,
        &format!("{}*", redis.names.keys_of(&escape_glob(prefix))),
        from,
    )
    .await?;
    if !found.is_empty() {
        let mut unlink = Pipeline::with_capacity(found.len());
        for key in found {
            unlink.cmd("UNLINK").arg(key).ignore();
        }
        unlink
            .exec_async(&mut redis.commands.clone())
            .await
            .map_err(script::unavailable)?;
    }
    Ok(next)
}

/// Escapes a name for use in a glob pattern.
fn escape_glob(name: &str) -> String {
    name.chars()
        .flat_map(|c| {
            matches!(c, '*' | '?' | '[' | ']' | '\\')
                .then_some('\\')
                .into_iter()
                .chain([c])
        })
        .collect()
}

fn invalid_cursor() -> StoreError {
    StoreError::Corrupt("the cursor is not from this store".to_owned())
}

#[async_trait]
impl Transfer for Redis {
    async fn partitions(
        &self,
        prefix: &str,
        from: Option<TransferCursor>,
    ) -> Result<(Vec<Partition>, Option<TransferCursor>), StoreError> {
        with_timeout(names(self, prefix, from)).await
    }

    async fn outline(&self, partition: &Partition) -> Result<Option<Outline>, StoreError> {
        let mut cmd = Cmd::new();
        cmd.arg("GET").arg(self.keys(partition).head());
        let run = async { self.commands.run(&cmd).await.map_err(script::unavailable) };
        match with_timeout(run).await?.value {
            Value::Nil => Ok(None),
            Value::BulkString(bytes) => stored::outline(bytes.into()).map(Some),
            other => Err(StoreError::Corrupt(format!("a head is {other:?}"))),
        }
    }

    async fn scan(
        &self,
        partition: &Partition,
        table: Table,
        from: Option<TransferCursor>,
        limit: usize,
    ) -> Result<(Vec<Document>, Option<TransferCursor>), StoreError> {
        with_timeout(scan_table(self, partition, table, from, limit)).await
    }

    async fn load(&self, partition: &Partition, piece: PartitionPiece) -> Loaded {
        with_timeout(load_piece(self, partition, piece)).await
    }

    async fn remove_partitions(
        &self,
        prefix: &str,
        from: Option<TransferCursor>,
    ) -> Result<Option<TransferCursor>, StoreError> {
        with_timeout(unlink(self, prefix, from)).await
    }
}
