//! The purge: a bite is one script, which checks what is required before it removes.

use crate::store::{
    Conflict, Document, Order, Partition, Purged, Range, Require, StoreError, Table,
};

use super::{
    Redis, keys,
    plan::{Plan, Wanted, learn},
    read::{ATTEMPTS, answer, overtaken},
    script::{self, Script},
    stored::StoredHead,
};

impl Redis {
    pub(super) async fn purge_some(
        &self,
        partition: &Partition,
        table: Table,
        require: Option<&Require>,
        limit: usize,
    ) -> Purged {
        match table.order {
            Order::Numbers => self.purge_numbers(partition, table, require, limit).await,
            Order::None | Order::Keys => self.purge_keys(partition, table, require, limit).await,
        }
    }

    /// Oldest first: what is left are the numbers above a bound, which the head keeps.
    async fn purge_numbers(
        &self,
        partition: &Partition,
        table: Table,
        require: Option<&Require>,
        limit: usize,
    ) -> Purged {
        for _ in 0..ATTEMPTS {
            let (page, StoredHead { purged, .. }) = self
                .page_of(partition, table, Range::After(0), limit)
                .await?;
            let mut plan = self.purging(partition, require);
            let changes = plan.key(keys::changes(partition, table));
            plan.pack
                .uint(purged)
                .index(changes)
                .uint(page.documents.len() as u64);
            for Document { key, stamps, .. } in &page.documents {
                let by_number = plan.key(keys::by_number(
                    partition,
                    table,
                    keys::bucket(stamps.number),
                ));
                let by_key = plan.key(keys::by_key(partition, table, key));
                plan.pack
                    .uint(stamps.number)
                    .index(by_number)
                    .text(key)
                    .index(by_key);
            }
            match self
                .bite(&script::PURGE_NUMBERS, plan, partition, require)
                .await?
            {
                Some(Ok(1)) => return Ok(Ok(!page.more)),
                Some(Err(conflict)) => return Ok(Err(conflict)),
                Some(Ok(_)) | None => {}
            }
        }
        Err(overtaken())
    }

    async fn purge_keys(
        &self,
        partition: &Partition,
        table: Table,
        require: Option<&Require>,
        limit: usize,
    ) -> Purged {
        for _ in 0..ATTEMPTS {
            let mut plan = self.purging(partition, require);
            let hashes: Vec<_> = (0..keys::SPREAD)
                .map(|place| plan.key(keys::spread(partition, table, place)))
                .collect();
            let index = if table.order == Order::Keys {
                plan.key(keys::index(partition, table))
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
            if let Some(bite) = self
                .bite(&script::PURGE_KEYS, plan, partition, require)
                .await?
            {
                return Ok(bite.map(|none_left| none_left == 1));
            }
        }
        Err(overtaken())
    }

    /// Begins a plan as `scripts/purge.lua` reads it.
    fn purging(&self, partition: &Partition, require: Option<&Require>) -> Plan {
        let mut plan = Plan::new(partition);
        plan.pack.small(require.is_some().into());
        if let Some(Require { table, key, is }) = require {
            let number = self
                .hints
                .document(partition, key)
                .filter(|number| *number > 0 && table.order == Order::Numbers);
            plan.document(
                partition,
                &Wanted {
                    table: *table,
                    key,
                    bucket: number.map(keys::bucket),
                    indexed: false,
                },
            );
            plan.pack.expected(*is);
        }
        plan
    }

    /// Runs a script; its own answer, or `None` if it is to be asked again with what was learned.
    async fn bite(
        &self,
        script: &Script,
        plan: Plan,
        partition: &Partition,
        require: Option<&Require>,
    ) -> Result<Option<Result<u64, Conflict>>, StoreError> {
        let mut items = answer(script, self, plan).await?;
        match items.int()? {
            0 => Ok(Some(Ok(items.int()?))),
            1 => Ok(Some(Err(Conflict {
                require: vec![0],
                ..Conflict::default()
            }))),
            _ => {
                learn(
                    &self.hints,
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
}
