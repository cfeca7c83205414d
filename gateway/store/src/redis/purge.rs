//! The purge: one script checks the precondition and removes documents.

use super::{
    Redis, keys,
    plan::{DocumentKeys, ScriptPlan, update_hints},
    read::{self, MAX_ATTEMPTS, run, too_many_conflicting_writes},
    script::{self, Script},
    stored::StoredHead,
};
use crate::{Conflict, Document, Order, Partition, Purged, Range, Require, StoreError, Table};

pub(super) async fn purge_some(
    redis: &Redis,
    partition: &Partition,
    table: Table,
    require: Option<&Require>,
    limit: usize,
) -> Purged {
    match table.order {
        Order::Numbers => purge_numbers(redis, partition, table, require, limit).await,
        Order::None | Order::Keys => purge_keys(redis, partition, table, require, limit).await,
    }
}

/// Removes the lowest numbers first. The head has the number up to which the table is purged.
async fn purge_numbers(
    redis: &Redis,
    partition: &Partition,
    table: Table,
    require: Option<&Require>,
    limit: usize,
) -> Purged {
    let keys = redis.keys(partition);
    for _ in 0..MAX_ATTEMPTS {
        let (page, StoredHead { purged, .. }) =
            read::page_of(redis, partition, table, Range::After(0), limit).await?;
        let mut plan = purge_plan(redis, partition, require);
        let changes = plan.key(keys.changes(table));
        plan.pack
            .uint(purged)
            .index(changes)
            .uint(page.documents.len() as u64);
        for Document { key, stamps, .. } in &page.documents {
            let by_number = plan.key(keys.by_number(table, keys::bucket(stamps.number)));
            let by_key = plan.key(keys.by_key(table, key));
            plan.pack
                .uint(stamps.number)
                .index(by_number)
                .text(key)
                .index(by_key);
        }
        match run_purge(redis, &script::PURGE_NUMBERS, plan, partition, require).await? {
            Some(Ok(1)) => return Ok(Ok(!page.more)),
            Some(Err(conflict)) => return Ok(Err(conflict)),
            Some(Ok(_)) | None => {}
        }
    }
    Err(too_many_conflicting_writes())
}

async fn purge_keys(
    redis: &Redis,
    partition: &Partition,
    table: Table,
    require: Option<&Require>,
    limit: usize,
) -> Purged {
    let keys = redis.keys(partition);
    for _ in 0..MAX_ATTEMPTS {
        let mut plan = purge_plan(redis, partition, require);
        let hashes: Vec<_> = (0..keys::HASHES_PER_TABLE)
            .map(|index| plan.key(keys.table_hash(table, index)))
            .collect();
        let index = if table.order == Order::Keys {
            plan.key(keys.index(table))
        } else {
            0
        };
        plan.pack
            .uint(limit as u64)
            .index(index)
            .index(hashes.len());
        for hash in hashes {
            plan.pack.index(hash);
        }
        if let Some(result) =
            run_purge(redis, &script::PURGE_KEYS, plan, partition, require).await?
        {
            return Ok(result.map(|is_empty| is_empty == 1));
        }
    }
    Err(too_many_conflicting_writes())
}

/// Starts a plan as `scripts/purge.lua` reads it.
fn purge_plan(redis: &Redis, partition: &Partition, require: Option<&Require>) -> ScriptPlan {
    let keys = redis.keys(partition);
    let mut plan = ScriptPlan::new(keys);
    plan.pack.small(require.is_some().into());
    if let Some(Require { table, key, is }) = require {
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
        plan.pack.expected(*is);
    }
    plan
}

/// Runs a purge script and returns its result, or `None` if hints were wrong and the caller has
/// to try again.
async fn run_purge(
    redis: &Redis,
    script: &Script,
    plan: ScriptPlan,
    partition: &Partition,
    require: Option<&Require>,
) -> Result<Option<Result<u64, Conflict>>, StoreError> {
    let mut items = run(script, &redis.commands, plan).await?;
    match items.int()? {
        0 => Ok(Some(Ok(items.int()?))),
        1 => Ok(Some(Err(Conflict {
            require: vec![0],
            ..Conflict::default()
        }))),
        _ => {
            update_hints(
                &redis.hints,
                partition,
                items,
                require
                    .into_iter()
                    .map(|require| (require.table, &require.key)),
            )?;
            Ok(None)
        }
    }
}
