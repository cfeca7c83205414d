//! The rules of chat, shared by both transports and independent of the store.
//!
//! A function takes the actor and the request, checks the permission and makes one commit.
//! Subscribers receive the event from the bus. Nothing here depends on sockets or HTTP.

pub mod apps;
pub mod channel_order;
pub mod channel_orders;
pub mod channel_state;
mod channel_walk;
pub mod channels;
pub mod check;
pub mod clearing;
pub mod clock;
mod commit;
pub mod credential;
pub mod cursor;
pub mod document;
mod emoji;
pub mod ended;
pub mod ensure;
pub mod entries;
pub mod entry_list;
pub mod error;
pub mod idempotency;
pub mod index;
pub mod jobs;
pub mod keys;
mod listing;
pub mod memberships;
pub mod messages;
pub mod nearest;
pub mod online;
pub mod organizations;
pub mod participants;
pub mod perform;
pub mod permission;
mod purge;
pub mod random;
pub mod reactions;
pub mod reads;
pub mod redacted;
mod retry;
pub mod schema;
pub mod secret_check;
pub mod sessions;
pub mod settling;
pub mod strict;
mod tenants;
pub mod together;
pub mod token_keys;
pub mod tokens;
pub mod turns;
pub mod typing;
pub mod typists;
pub mod users;

use std::sync::Arc;

use prometheus_client::metrics::counter::Counter;
use protocol::Limits;
use store::{
    Commit, Conflict, Document, DocumentKey, Expected, Outcome, Partition, Range, Read, Snapshot,
    Store, Table,
};
use tokio::sync::Notify;

use crate::{
    channel_orders::ChannelOrders,
    clock::Clock,
    credential::SecretKey,
    error::{Error, Result},
    turns::Turns,
    typists::Typists,
};

/// All services over one store.
#[derive(Debug, Clone)]
pub struct Services {
    /// The store of all partitions.
    pub store: Arc<dyn Store>,
    /// The configured limits.
    pub limits: Arc<Limits>,
    /// The key that seals stored secrets and derives ids.
    pub secret: Arc<SecretKey>,
    /// The store's clock as this node estimates it.
    pub clock: Arc<Clock>,
    /// This node's name, unique among the running nodes.
    pub node: Arc<str>,
    /// Cached orders of the channels of users in many channels.
    pub orders: Arc<ChannelOrders>,
    /// Wakes this node's [`ended::Follower`] when it ended sessions itself.
    pub ended: Arc<Notify>,
    /// Counts the messages that this node stored.
    pub stored_messages: Counter,
    /// Limits how often typing of a user is published.
    pub typists: Arc<Typists>,
    /// Wakes this node's runner of [`jobs`] when a request has left work to it.
    pub jobs: Arc<Notify>,
    /// Turns of the requests of this node whose changes of a channel's participants conflict.
    pub members: Arc<Turns<Partition>>,
    /// Changes of membership that this node has not completed.
    pub incomplete: Arc<memberships::Incomplete>,
}

impl Services {
    /// Creates the services of a node, with the machine's clock.
    pub fn new(
        store: Arc<dyn Store>,
        limits: Limits,
        secret: SecretKey,
        node: impl Into<Arc<str>>,
    ) -> Self {
        let (limits, secret, clock) = (
            Arc::new(limits),
            Arc::new(secret),
            Arc::new(Clock::system()),
        );
        Self {
            store,
            limits,
            secret,
            clock,
            node: node.into(),
            orders: Arc::default(),
            ended: Arc::default(),
            jobs: Arc::default(),
            members: Arc::default(),
            incomplete: Arc::default(),
            stored_messages: Counter::default(),
            typists: Arc::default(),
        }
    }

    /// Reads documents of one partition with its head and counters.
    pub async fn snapshot(
        &self,
        partition: Partition,
        documents: Vec<(Table, DocumentKey)>,
    ) -> Result<Snapshot> {
        let mut snapshots = self
            .store
            .read(vec![Read {
                partition,
                documents,
                newest: None,
            }])
            .await?;
        snapshots
            .pop()
            .ok_or_else(|| Error::internal("a read answered nothing"))
    }

    /// Reads documents of one partition.
    async fn documents<const N: usize>(
        &self,
        partition: Partition,
        keys: [(Table, DocumentKey); N],
    ) -> Result<[Option<Document>; N]> {
        let snapshot = self.snapshot(partition, keys.into()).await?;
        snapshot
            .documents
            .try_into()
            .map_err(|_| Error::internal("a read answered another number of documents"))
    }

    /// Reads one document.
    async fn document(
        &self,
        partition: Partition,
        table: Table,
        key: impl Into<DocumentKey>,
    ) -> Result<Option<Document>> {
        let [document] = self.documents(partition, [(table, key.into())]).await?;
        Ok(document)
    }

    /// Reads the entity of a partition.
    async fn entity(&self, partition: Partition) -> Result<Option<Document>> {
        self.document(partition, schema::ENTITY, schema::ONLY).await
    }

    /// Reads the entities of several partitions, in their order.
    async fn entities(
        &self,
        partitions: impl IntoIterator<Item = Partition>,
    ) -> Result<Vec<Option<Document>>> {
        let reads: Vec<Read> = partitions
            .into_iter()
            .map(|partition| Read {
                partition,
                documents: vec![(schema::ENTITY, schema::ONLY.into())],
                newest: None,
            })
            .collect();
        if reads.is_empty() {
            return Ok(Vec::new());
        }
        let snapshots = self.store.read(reads).await?;
        Ok(snapshots
            .into_iter()
            .map(|mut snapshot| snapshot.documents.pop().flatten())
            .collect())
    }

    /// Makes a commit, and returns the conflict if a precondition or limit failed.
    async fn commit(
        &self,
        partition: &Partition,
        commit: Commit,
    ) -> Result<std::result::Result<Outcome, Conflict>> {
        Ok(self.store.commit(partition, commit).await?)
    }

    /// Makes a commit that nothing should conflict with.
    ///
    /// # Errors
    /// [`busy`](Error::busy) if something does.
    async fn commit_or_busy(&self, partition: &Partition, commit: Commit) -> Result<Outcome> {
        self.commit(partition, commit)
            .await?
            .map_err(|_| Error::busy())
    }

    /// Reads every key of a listed table.
    async fn all_keys(&self, partition: &Partition, table: Table) -> Result<Vec<DocumentKey>> {
        Ok(self
            .all_documents(partition, table)
            .await?
            .into_iter()
            .map(|document| document.key)
            .collect())
    }

    /// Reads every document of a listed table.
    async fn all_documents(&self, partition: &Partition, table: Table) -> Result<Vec<Document>> {
        let mut documents: Vec<Document> = Vec::new();
        loop {
            let after = documents.last().map(|document| document.key.clone());
            let (page, _) = self
                .store
                .page(partition, table, Range::Keys { after }, 1000)
                .await?;
            documents.extend(page.documents);
            if !page.more {
                return Ok(documents);
            }
        }
    }

    /// Waits until the state that was read is as durable as an acknowledged commit. For retries
    /// that find their work already done: the commit of the earlier attempt may not have been
    /// acknowledged, and could be lost with the server that holds it.
    async fn confirm(&self, partition: &Partition) -> Result<()> {
        // Only the wait for the answer matters, not whether the requirement still holds.
        let _is_there = self
            .store
            .commit(
                partition,
                Commit::default().require(schema::ENTITY, schema::ONLY, Expected::Present),
            )
            .await?;
        Ok(())
    }
}
