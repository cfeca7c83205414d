//! Partitions, out of Redis and into it.
//!
//! A load puts the keys of its partition where they belong, piece by piece, and its head in the last one. Every script begins
//! with the head and finds nothing where there is none, so until then the partition is not there.

use async_trait::async_trait;
use fanout::redis::Answer;
use redis::{Cmd, Pipeline, Value};

use crate::store::{
    Document, Entry, Key, Order, Partition, StoreError, Table,
    transfer::{Cursor, Exists, Loaded, Outline, Piece, Transfer},
};

use super::{
    Redis, commit, in_time, keys,
    plan::{Pack, Plan},
    script::{self, Items},
    stored,
};

/// How many keys one step of a walk looks at.
const STEP: usize = 1_000;

/// The steps of `scripts/load.lua`.
#[derive(Clone, Copy)]
enum Step {
    SetField = 0,
    AddMember = 1,
    Append = 2,
}

/// A plan for `scripts/load.lua`.
struct Load<'a> {
    partition: &'a Partition,
    plan: Plan,
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
        let partition = self.partition;
        let by_key = keys::by_key(partition, table, &document.key);
        let stored = stored::put_document(table, document);
        match table.order {
            Order::None => self.step(Step::SetField, by_key, &document.key, &stored),
            Order::Keys => {
                self.step(Step::SetField, by_key, &document.key, &stored);
                self.step(
                    Step::AddMember,
                    keys::index(partition, table),
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
                    keys::by_number(partition, table, bucket),
                    &number,
                    &stored,
                );
                let seq = document.stamps.seq.to_string();
                self.step(
                    Step::AddMember,
                    keys::changes(partition, table),
                    &seq,
                    number.as_bytes(),
                );
            }
        }
    }

    fn entry(&mut self, entry: &Entry) {
        self.step(
            Step::Append,
            keys::log(self.partition),
            "",
            &stored::put_entry(entry),
        );
    }

    /// The declared keys and the plan.
    fn ready(mut self, outline: Option<&Outline>) -> (Vec<String>, Vec<u8>) {
        let pack = &mut self.plan.pack;
        pack.0.extend_from_slice(&self.count.to_be_bytes());
        pack.0.append(&mut self.steps.0);
        let head = outline.map(|outline| stored::put_head(outline, &self.plan.keys[1..]));
        pack.bytes(&head.unwrap_or_default())
            .uint(outline.and_then(|outline| outline.expires).unwrap_or(0));
        (self.plan.keys, self.plan.pack.0)
    }
}

impl Redis {
    async fn load_piece(&self, partition: &Partition, piece: Piece) -> Loaded {
        let mut load = Load {
            partition,
            plan: Plan::new(partition),
            steps: Pack(Vec::new()),
            count: 0,
        };
        for (table, document) in &piece.documents {
            load.document(*table, document);
        }
        for entry in &piece.entries {
            load.entry(entry);
        }
        let (keys, plan) = load.ready(piece.outline.as_ref());
        let Answer { value, witness, .. } =
            script::LOAD.run(&self.commands, &keys, &[plan]).await?;
        match value {
            Value::Int(0) => {
                commit::confirm(witness, partition).await?;
                Ok(Ok(()))
            }
            Value::Int(1) => Ok(Err(Exists)),
            other => Err(StoreError::Corrupt(format!("a script answered {other:?}"))),
        }
    }

    async fn scan_table(
        &self,
        partition: &Partition,
        table: Table,
        from: Option<Cursor>,
        limit: usize,
    ) -> Result<(Vec<Document>, Option<Cursor>), StoreError> {
        let mut plan = Plan::new(partition);
        for place in 0..keys::SPREAD {
            plan.key(keys::spread(partition, table, place));
        }
        let Cursor(from) = from.unwrap_or_else(|| Cursor("0 0".to_owned()));
        let (place, within) = from
            .split_once(' ')
            .and_then(|(place, within)| Some((place.parse().ok()?, within)))
            .ok_or_else(foreign)?;
        plan.pack.index(place).text(within).uint(limit as u64);
        let mut items = Items::of(
            script::SCAN
                .run(&self.commands, &plan.keys, &[plan.pack.0])
                .await?
                .value,
        )?;
        let (place, within) = (items.int()?, items.text()?);
        let mut documents = Vec::with_capacity(items.len() / 2);
        while items.len() > 0 {
            let key = Key::from(items.text()?);
            documents.push(stored::document(items.some_bytes()?, Some(&key))?);
        }
        Ok((
            documents,
            (place < keys::SPREAD).then(|| Cursor(format!("{place} {within}"))),
        ))
    }

    /// One step of a walk over all keys of a pattern, shard by shard.
    async fn walk(
        &self,
        pattern: &str,
        from: Option<Cursor>,
    ) -> Result<(Vec<String>, Option<Cursor>), StoreError> {
        let shards = self.commands.masters().await.map_err(script::unavailable)?;
        let (shard, within) = match from {
            Some(Cursor(from)) => from
                .rsplit_once(' ')
                .map(|(shard, within)| (shard.to_owned(), within.to_owned()))
                .ok_or_else(foreign)?,
            None => (shards.first().cloned().unwrap_or_default(), "0".to_owned()),
        };
        let place = shards.iter().position(|other| *other == shard).ok_or_else(|| {
            StoreError::Unavailable("the Cluster changed while it was looked through: begin again when it is at rest".to_owned())
        })?;
        let mut cmd = Cmd::new();
        cmd.arg("SCAN")
            .arg(&within)
            .arg("MATCH")
            .arg(pattern)
            .arg("COUNT")
            .arg(STEP);
        let mut items = Items::of(
            self.commands
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
            next.map(|(shard, within)| Cursor(format!("{shard} {within}"))),
        ))
    }

    async fn names(
        &self,
        prefix: &str,
        from: Option<Cursor>,
    ) -> Result<(Vec<Partition>, Option<Cursor>), StoreError> {
        let pattern = format!("chaos:{{{}*}}:head", glob(prefix));
        let (found, next) = self.walk(&pattern, from).await?;
        let name = |key: &String| {
            Some(Partition::new(
                key.strip_prefix("chaos:{")?.strip_suffix("}:head")?,
            ))
        };
        Ok((found.iter().filter_map(name).collect(), next))
    }

    async fn unlink(
        &self,
        prefix: &str,
        from: Option<Cursor>,
    ) -> Result<Option<Cursor>, StoreError> {
        let (found, next) = self
            .walk(&format!("chaos:{{{}*", glob(prefix)), from)
            .await?;
        if !found.is_empty() {
            let mut unlink = Pipeline::with_capacity(found.len());
            for key in found {
                unlink.cmd("UNLINK").arg(key).ignore();
            }
            unlink
                .exec_async(&mut self.commands.clone())
                .await
                .map_err(script::unavailable)?;
        }
        Ok(next)
    }
}

/// A name as a pattern that matches nothing else.
fn glob(name: &str) -> String {
    name.chars()
        .flat_map(|c| {
            matches!(c, '*' | '?' | '[' | ']' | '\\')
                .then_some('\\')
                .into_iter()
                .chain([c])
        })
        .collect()
}

fn foreign() -> StoreError {
    StoreError::Corrupt("a walk goes on where no walk of this store was".to_owned())
}

#[async_trait]
impl Transfer for Redis {
    async fn partitions(
        &self,
        prefix: &str,
        from: Option<Cursor>,
    ) -> Result<(Vec<Partition>, Option<Cursor>), StoreError> {
        in_time(self.names(prefix, from)).await
    }

    async fn outline(&self, partition: &Partition) -> Result<Option<Outline>, StoreError> {
        let mut cmd = Cmd::new();
        cmd.arg("GET").arg(keys::head(partition));
        let run = async { self.commands.run(&cmd).await.map_err(script::unavailable) };
        match in_time(run).await?.value {
            Value::Nil => Ok(None),
            Value::BulkString(bytes) => stored::outline(bytes.into()).map(Some),
            other => Err(StoreError::Corrupt(format!("a head is {other:?}"))),
        }
    }

    async fn scan(
        &self,
        partition: &Partition,
        table: Table,
        from: Option<Cursor>,
        limit: usize,
    ) -> Result<(Vec<Document>, Option<Cursor>), StoreError> {
        in_time(self.scan_table(partition, table, from, limit)).await
    }

    async fn load(&self, partition: &Partition, piece: Piece) -> Loaded {
        in_time(self.load_piece(partition, piece)).await
    }

    async fn wipe(&self, prefix: &str, from: Option<Cursor>) -> Result<Option<Cursor>, StoreError> {
        in_time(self.unlink(prefix, from)).await
    }
}
