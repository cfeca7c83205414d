//! The reads: snapshots, pages, the log.

use fanout::Position;

use crate::store::{
    Continuity, Document, Key, Log, Order, Page, Partition, Range, Read, Snapshot, StoreError,
    Table,
};

use super::{
    Redis, keys,
    plan::{Plan, Wanted, learn},
    script::{self, Items, Script},
    stored::{self, StoredHead},
};

/// How often a read is tried with better hints. Each failure means that somebody's commit went ahead.
pub(super) const ATTEMPTS: usize = 16;

impl Redis {
    pub(super) async fn snapshot(&self, read: Read) -> Result<Snapshot, StoreError> {
        let Read {
            partition,
            documents,
            newest,
        } = &read;
        for _ in 0..ATTEMPTS {
            let mut plan = Plan::new(partition);
            let bucket = self.hints.number(partition).map(keys::bucket);
            let hash = match (newest, bucket) {
                (Some(table), Some(bucket)) => plan.key(keys::by_number(partition, *table, bucket)),
                _ => 0,
            };
            plan.pack
                .index(documents.len())
                .small(newest.is_some().into())
                .index(hash)
                .uint(bucket.unwrap_or(0));
            for (table, key) in documents {
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
            }
            let answer = script::READ
                .run(&self.commands, &plan.keys, &[plan.pack.0])
                .await?;
            let mut items = Items::of(answer.value)?;
            if items.int()? != 0 {
                learn(
                    &self.hints,
                    partition,
                    items,
                    documents.iter().map(|(table, key)| (*table, key)),
                )?;
                continue;
            }
            let StoredHead { head, counters, .. } = stored::head(items.some_bytes()?)?;
            if newest.is_some() {
                self.hints.saw_number(partition, head.number);
            }
            let mut found = Vec::with_capacity(documents.len());
            for (_, key) in documents {
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
        Err(overtaken())
    }

    pub(super) async fn page_of(
        &self,
        partition: &Partition,
        table: Table,
        range: Range,
        limit: usize,
    ) -> Result<(Page, StoredHead), StoreError> {
        match range {
            Range::Keys { after } => {
                self.page_by_key(partition, table, after.as_ref(), limit)
                    .await
            }
            Range::Before(bound) => {
                self.page_by_number(partition, table, (0, bound.unwrap_or(1 << 53)), limit)
                    .await
            }
            Range::After(bound) => {
                self.page_by_number(partition, table, (1, bound), limit)
                    .await
            }
            Range::Changed(bound) => {
                self.page_by_number(partition, table, (2, bound), limit)
                    .await
            }
        }
    }

    async fn page_by_key(
        &self,
        partition: &Partition,
        table: Table,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<(Page, StoredHead), StoreError> {
        let from = after.map_or("-".to_owned(), |key| format!("({key}"));
        let mut expected: Vec<String> = Vec::new();
        for _ in 0..ATTEMPTS {
            let mut plan = Plan::new(partition);
            plan.key(keys::index(partition, table));
            plan.pack
                .text(&from)
                .uint(limit as u64)
                .uint(expected.len() as u64);
            for key in &expected {
                let hash = plan.key(keys::by_key(partition, table, key));
                plan.pack.text(key).index(hash);
            }
            let mut items = answer(&script::PAGE_KEYS, self, plan).await?;
            if items.int()? != 0 {
                expected = items.texts()?;
                continue;
            }
            let head = stored::head(items.some_bytes()?)?;
            let more = items.int()? != 0;
            let mut documents = Vec::with_capacity(items.len() / 2);
            while items.len() > 0 {
                let key = Key::from(items.text()?);
                let raw = items.bytes()?.ok_or_else(|| {
                    StoreError::Corrupt(format!("the index names {key}, which is not there"))
                })?;
                documents.push(stored::document(raw, Some(&key))?);
            }
            return Ok((Page { documents, more }, head));
        }
        Err(overtaken())
    }

    async fn page_by_number(
        &self,
        partition: &Partition,
        table: Table,
        (kind, bound): (u8, u64),
        limit: usize,
    ) -> Result<(Page, StoredHead), StoreError> {
        let mut expected = self.expected_buckets(partition, kind, bound, limit);
        for _ in 0..ATTEMPTS {
            let mut plan = Plan::new(partition);
            if kind == 2 {
                plan.key(keys::changes(partition, table));
            }
            plan.pack
                .small(kind)
                .wide(bound)
                .uint(limit as u64)
                .index(expected.len());
            for bucket in &expected {
                let hash = plan.key(keys::by_number(partition, table, *bucket));
                plan.pack.uint(*bucket).index(hash);
            }
            let mut items = answer(&script::PAGE_NUMBERS, self, plan).await?;
            if items.int()? != 0 {
                self.hints.saw_number(partition, items.int()?);
                expected = items.ints()?;
                continue;
            }
            let head = stored::head(items.some_bytes()?)?;
            let more = items.int()? != 0;
            let documents = (0..items.len())
                .map(|_| stored::document(items.some_bytes()?, None))
                .collect::<Result<Vec<Document>, _>>()?;
            self.hints.saw_number(partition, head.head.number);
            return Ok((Page { documents, more }, head));
        }
        Err(overtaken())
    }

    /// The hashes of numbers that a page will lie in, as far as the last number seen tells.
    fn expected_buckets(
        &self,
        partition: &Partition,
        kind: u8,
        bound: u64,
        limit: usize,
    ) -> Vec<u64> {
        let limit = limit as u64;
        let Some(number) = self.hints.number(partition).filter(|number| *number > 0) else {
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
        &self,
        partition: &Partition,
        after: Position,
        limit: usize,
    ) -> Result<Log, StoreError> {
        let mut plan = Plan::new(partition);
        plan.key(keys::log(partition));
        plan.pack.wide(after.seq).wide(after.at).uint(limit as u64);
        let mut items = answer(&script::LOG, self, plan).await?;
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
}

pub(super) async fn answer(
    script: &Script,
    redis: &Redis,
    plan: Plan,
) -> Result<Items, StoreError> {
    Items::of(
        script
            .run(&redis.commands, &plan.keys, &[plan.pack.0])
            .await?
            .value,
    )
}

pub(super) fn overtaken() -> StoreError {
    StoreError::Unavailable("the partition changes faster than this node can follow".to_owned())
}
