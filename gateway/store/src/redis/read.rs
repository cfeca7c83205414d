//! Reads: snapshots, pages, the log.

use fanout::Position;

use super::{
    Redis, keys,
    large::Size,
    plan::{DocumentKeys, ScriptPlan, update_hints},
    script::{self, Items, Runner, Script},
    stored::{self, StoredHead},
};
use crate::{
    Continuity, Document, DocumentKey, Log, Order, PAGE_BYTES, Page, Partition, Range, Read,
    Snapshot, StoreError, Table,
};

/// A limit in bytes that no reply reaches.
const UNBOUNDED: usize = 1 << 40;

/// Maximum number of attempts with updated hints. Each failed attempt means that a commit succeeded
/// meanwhile.
pub(super) const MAX_ATTEMPTS: usize = 16;

fn runner(redis: &Redis, size: Size) -> Runner<'_> {
    match size {
        Size::Small => Runner::Direct(&redis.commands),
        Size::Large => Runner::LargeReads(&redis.large_reads),
    }
}

pub(super) async fn snapshot(
    redis: &Redis,
    read: Read,
    size: Size,
) -> Result<Snapshot, StoreError> {
    snapshot_within(redis, read, UNBOUNDED, size).await
}

/// Reads a snapshot. Its documents end where the next one would exceed `bytes` in total, but
/// there is at least one.
pub(super) async fn snapshot_within(
    redis: &Redis,
    read: Read,
    bytes: usize,
    size: Size,
) -> Result<Snapshot, StoreError> {
    let Read {
        partition,
        documents,
        newest,
    } = &read;
    let keys = redis.keys(partition);
    for _ in 0..MAX_ATTEMPTS {
        let mut plan = ScriptPlan::new(keys);
        let bucket = redis.hints.number(partition).map(keys::bucket);
        let hash = match (newest, bucket) {
            (Some(table), Some(bucket)) => plan.key(keys.by_number(*table, bucket)),
            _ => 0,
        };
        plan.pack
            .index(documents.len())
            .small(newest.is_some().into())
            .index(hash)
            .uint(bucket.unwrap_or(0))
            .uint(bytes.min(UNBOUNDED) as u64);
        for (table, key) in documents {
            let number = redis
                .hints
                .document(partition, key)
                .filter(|number| *number > 0 && table.order == Order::Numbers);
            plan.document(
                keys,
                &DocumentKeys {
                    table: *table,
                    key,
                    bucket: number.map(keys::bucket),
                    index_changes: false,
                },
            );
        }
        let answer = script::READ
            .run(runner(redis, size), &plan.keys, &[plan.pack.0])
            .await?;
        let mut items = Items::of(answer.value)?;
        if items.int()? != 0 {
            update_hints(
                &redis.hints,
                partition,
                items,
                documents.iter().map(|(table, key)| (*table, key)),
            )?;
            continue;
        }
        let StoredHead { head, counters, .. } = stored::head(items.some_bytes()?)?;
        if newest.is_some() {
            redis.hints.saw_number(partition, head.number);
        }
        let mut found = Vec::with_capacity(documents.len());
        for (_, key) in documents.iter().take(if bytes == UNBOUNDED {
            documents.len()
        } else {
            items.len()
        }) {
            found.push(
                items
                    .bytes()?
                    .map(|raw| stored::document(raw, Some(key)))
                    .transpose()?,
            );
        }
        let newest = if items.len() > 0 {
            items.bytes()?
        } else {
            None
        };
        let newest = newest.map(|raw| stored::document(raw, None)).transpose()?;
        return Ok(Snapshot {
            head,
            counters,
            documents: found,
            newest,
        });
    }
    Err(too_many_conflicting_writes())
}

/// Reads the position of a partition's head.
pub(super) async fn head_position(
    redis: &Redis,
    partition: &Partition,
) -> Result<Position, StoreError> {
    let mut cmd = redis::Cmd::new();
    cmd.arg("GET").arg(redis.keys(partition).head());
    let answer = redis
        .commands
        .run(&cmd)
        .await
        .map_err(script::unavailable)?;
    match answer.value {
        redis::Value::Nil => Ok(Position::default()),
        redis::Value::BulkString(bytes) => Ok(stored::head(bytes.into())?.head.position()),
        redis::Value::ServerError(error) => Err(script::refused(&error)),
        _ => Err(StoreError::Corrupt("a head is not a string".to_owned())),
    }
}

pub(super) async fn page_of(
    redis: &Redis,
    partition: &Partition,
    table: Table,
    range: Range,
    limit: usize,
) -> Result<(Page, StoredHead), StoreError> {
    match range {
        Range::Keys { after } => page_by_key(redis, partition, table, after.as_ref(), limit).await,
        Range::Before(bound) => {
            page_by_number(
                redis,
                partition,
                table,
                (0, bound.unwrap_or(1 << 53)),
                limit,
            )
            .await
        }
        Range::After(bound) => page_by_number(redis, partition, table, (1, bound), limit).await,
        Range::Changed(bound) => page_by_number(redis, partition, table, (2, bound), limit).await,
    }
}

async fn page_by_key(
    redis: &Redis,
    partition: &Partition,
    table: Table,
    after: Option<&DocumentKey>,
    limit: usize,
) -> Result<(Page, StoredHead), StoreError> {
    let keys = redis.keys(partition);
    let runner = runner(redis, Size::of_rows(table, limit));
    let from = after.map_or("-".to_owned(), |key| format!("({key}"));
    let mut expected: Vec<String> = Vec::new();
    for _ in 0..MAX_ATTEMPTS {
        let mut plan = ScriptPlan::new(keys);
        plan.key(keys.index(table));
        plan.pack
            .text(&from)
            .uint(limit as u64)
            .uint(PAGE_BYTES as u64)
            .uint(expected.len() as u64);
        for key in &expected {
            let hash = plan.key(keys.by_key(table, key));
            plan.pack.text(key).index(hash);
        }
        let mut items = run(&script::PAGE_KEYS, runner, plan).await?;
        if items.int()? != 0 {
            expected = items.texts()?;
            continue;
        }
        let head = stored::head(items.some_bytes()?)?;
        let more = items.int()? != 0;
        let mut documents = Vec::with_capacity(items.len() / 2);
        while items.len() > 0 {
            let key = DocumentKey::from(items.text()?);
            let raw = items.bytes()?.ok_or_else(|| {
                StoreError::Corrupt(format!("the index has {key}, which does not exist"))
            })?;
            documents.push(stored::document(raw, Some(&key))?);
        }
        return Ok((Page { documents, more }, head));
    }
    Err(too_many_conflicting_writes())
}

async fn page_by_number(
    redis: &Redis,
    partition: &Partition,
    table: Table,
    (kind, bound): (u8, u64),
    limit: usize,
) -> Result<(Page, StoredHead), StoreError> {
    let keys = redis.keys(partition);
    let runner = runner(redis, Size::of_rows(table, limit));
    let mut expected = expected_buckets(redis, partition, kind, bound, limit);
    for _ in 0..MAX_ATTEMPTS {
        let mut plan = ScriptPlan::new(keys);
        if kind == 2 {
            plan.key(keys.changes(table));
        }
        plan.pack
            .small(kind)
            .wide(bound)
            .uint(limit as u64)
            .uint(PAGE_BYTES as u64)
            .index(expected.len());
        for bucket in &expected {
            let hash = plan.key(keys.by_number(table, *bucket));
            plan.pack.uint(*bucket).index(hash);
        }
        let mut items = run(&script::PAGE_NUMBERS, runner, plan).await?;
        if items.int()? != 0 {
            redis.hints.saw_number(partition, items.int()?);
            expected = items.ints()?;
            continue;
        }
        let head = stored::head(items.some_bytes()?)?;
        let more = items.int()? != 0;
        let documents = (0..items.len())
            .map(|_| stored::document(items.some_bytes()?, None))
            .collect::<Result<Vec<Document>, _>>()?;
        redis.hints.saw_number(partition, head.head.number);
        return Ok((Page { documents, more }, head));
    }
    Err(too_many_conflicting_writes())
}

/// Returns the buckets that a page presumably covers, by the last number seen.
fn expected_buckets(
    redis: &Redis,
    partition: &Partition,
    kind: u8,
    bound: u64,
    limit: usize,
) -> Vec<u64> {
    let limit = limit as u64;
    let Some(number) = redis.hints.number(partition).filter(|number| *number > 0) else {
        return Vec::new();
    };
    let (first, last) = match kind {
        0 => {
            let last = number.min(bound.saturating_sub(1));
            (last.saturating_sub(limit.saturating_sub(1)).max(1), last)
        }
        1 => (
            bound.saturating_add(1),
            bound.saturating_add(limit).min(number),
        ),
        _ => return Vec::new(),
    };
    if first > last {
        Vec::new()
    } else {
        (keys::bucket(first)..=keys::bucket(last)).collect()
    }
}

pub(super) async fn log_after(
    redis: &Redis,
    partition: &Partition,
    after: Position,
    limit: usize,
) -> Result<Log, StoreError> {
    let keys = redis.keys(partition);
    let mut plan = ScriptPlan::new(keys);
    plan.key(keys.log());
    plan.pack.wide(after.seq).wide(after.at).uint(limit as u64);
    let mut items = run(&script::LOG, runner(redis, Size::of_entries(limit)), plan).await?;
    let StoredHead { head, .. } = stored::head(items.some_bytes()?)?;
    let continuity = match items.int()? {
        0 => Continuity::Continuous,
        1 => Continuity::Trimmed,
        _ => Continuity::Diverged,
    };
    let entries = (1..=items.len() as u64)
        .map(|i| stored::entry(items.some_bytes()?, after.seq + i))
        .collect::<Result<_, _>>()?;
    Ok(Log {
        entries,
        head,
        continuity,
    })
}

pub(super) async fn run(
    script: &Script,
    runner: impl Into<Runner<'_>>,
    plan: ScriptPlan,
) -> Result<Items, StoreError> {
    Items::of(script.run(runner, &plan.keys, &[plan.pack.0]).await?.value)
}

pub(super) fn too_many_conflicting_writes() -> StoreError {
    StoreError::Unavailable("too many concurrent writes to the partition".to_owned())
}
