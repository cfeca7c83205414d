//! A node whose store can be made to fail in the midst of an operation.
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

use crate::story::{Ground, World};

/// A store that takes so many more writes, and then none until it is mended.
#[derive(Debug)]
struct Failing {
    store: Arc<dyn Store>,
    writes_left: Arc<AtomicI64>,
    /// Cannot be written at all.
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
    pub async fn on(ground: Ground) -> Self {
        let mut world = World::with(ground, 1, &["--limit", "unauthenticated_per_ip=0"]).await;
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
                // Of the node before, a task may still be about to let the folder go.
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

    /// Lets so many more writes through, and then none.
    pub fn fails_after(&self, writes: i64) {
        self.writes_left.store(writes, Ordering::SeqCst);
    }

    /// Lets every write through again.
    pub fn is_mended(&self) {
        self.fails_after(i64::MAX);
    }

    /// Refuses every write of these partitions, and of no others.
    pub fn cannot_write(&self, partitions: impl IntoIterator<Item = Partition>) {
        *self.unreachable.lock().unwrap() = partitions.into_iter().collect();
    }
}
