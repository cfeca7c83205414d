//! A node whose store can be made to fail during an operation.
#![allow(unreachable_pub, reason = "tests have no outside")]

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use gateway::node::Node;
use store::{Commit, Committed, Partition, Purged, Require, Store, StoreError, StoreLayer, Table};

use crate::story::{StoreKind, World};

/// A store that accepts a number of writes, and then fails all until it is repaired.
#[derive(Debug)]
struct Failing {
    store: Arc<dyn Store>,
    writes_left: Arc<AtomicI64>,
    /// Partitions that cannot be written.
    unreachable: Arc<Mutex<Vec<Partition>>>,
}

impl Failing {
    fn write(&self, partition: &Partition) -> Result<(), StoreError> {
        let is_reachable = !self.unreachable.lock().unwrap().contains(partition);
        match is_reachable && self.writes_left.fetch_sub(1, Ordering::SeqCst) > 0 {
            true => Ok(()),
            false => Err(StoreError::Unavailable("the test says so".to_owned())),
        }
    }
}

#[async_trait]
impl StoreLayer for Failing {
    fn inner(&self) -> Result<&dyn Store, StoreError> {
        Ok(&*self.store)
    }

    async fn commit(&self, partition: &Partition, commit: Commit) -> Committed {
        self.write(partition)?;
        self.store.commit(partition, commit).await
    }
    async fn purge(
        &self,
        partition: &Partition,
        table: Table,
        require: Option<Require>,
        limit: usize,
    ) -> Purged {
        self.write(partition)?;
        self.store.purge(partition, table, require, limit).await
    }
}

/// A world whose store can be made to fail.
pub struct Fragile {
    pub world: World,
    writes_left: Arc<AtomicI64>,
    unreachable: Arc<Mutex<Vec<Partition>>>,
}

impl Fragile {
    pub async fn on(store_kind: StoreKind) -> Self {
        let mut world = World::with(store_kind, 1, &["--limit", "unauthenticated_per_ip=0"]).await;
        world.ends().await;
        let writes_left = Arc::new(AtomicI64::new(i64::MAX));
        let unreachable: Arc<Mutex<Vec<Partition>>> = Arc::default();
        let node = loop {
            let (writes_left, unreachable) = (writes_left.clone(), unreachable.clone());
            let over = |store| {
                Arc::new(Failing {
                    store,
                    writes_left,
                    unreachable,
                }) as Arc<dyn Store>
            };
            match Node::start_over(world.config(), over).await {
                Ok(node) => break node,
                // A task of the previous node may still hold the folder.
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        };
        world.nodes.push(node);
        Self {
            world,
            writes_left,
            unreachable,
        }
    }

    /// Accepts this number of writes, and then fails all.
    pub fn fails_after(&self, writes: i64) {
        self.writes_left.store(writes, Ordering::SeqCst);
    }

    /// Accepts all writes again.
    pub fn is_mended(&self) {
        self.fails_after(i64::MAX);
    }

    /// Fails all writes of these partitions only.
    pub fn cannot_write(&self, partitions: impl IntoIterator<Item = Partition>) {
        *self.unreachable.lock().unwrap() = partitions.into_iter().collect();
    }
}
