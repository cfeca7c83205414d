//! Stores over another store: the methods that they do not change delegate to it.

use std::{future::Future, pin::Pin, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use fanout::{Position, Topic};

use crate::{
    Availability, Commit, Committed, Document, DocumentKey, Log, Page, Partition, PartitionHead,
    Purged, Range, Read, Require, Snapshot, Store, StoreError, Table,
};

/// A store over another store. Methods that are not overridden delegate to [`inner`](Self::inner).
#[async_trait]
pub trait StoreLayer: Send + Sync + std::fmt::Debug {
    /// Returns the store below, or the error with which all delegated calls fail.
    fn inner(&self) -> Result<&dyn Store, StoreError>;

    /// See [`Store::commit`].
    async fn commit(&self, partition: &Partition, commit: Commit) -> Committed {
        self.inner()?.commit(partition, commit).await
    }

    /// See [`Store::read`].
    async fn read(&self, reads: Vec<Read>) -> Result<Vec<Snapshot>, StoreError> {
        self.inner()?.read(reads).await
    }

    /// See [`Store::heads`].
    async fn heads(&self, partitions: &[Partition]) -> Vec<Result<Position, StoreError>> {
        match self.inner() {
            Ok(inner) => inner.heads(partitions).await,
            Err(error) => vec![Err(error); partitions.len()],
        }
    }

    /// See [`Store::documents`].
    async fn documents(
        &self,
        partition: &Partition,
        keys: Vec<(Table, DocumentKey)>,
        bytes: usize,
    ) -> Result<Vec<Option<Document>>, StoreError> {
        self.inner()?.documents(partition, keys, bytes).await
    }

    /// See [`Store::page`].
    async fn page(
        &self,
        partition: &Partition,
        table: Table,
        range: Range,
        limit: usize,
    ) -> Result<(Page, PartitionHead), StoreError> {
        self.inner()?.page(partition, table, range, limit).await
    }

    /// See [`Store::log`].
    async fn log(
        &self,
        partition: &Partition,
        after: Position,
        limit: usize,
    ) -> Result<Log, StoreError> {
        self.inner()?.log(partition, after, limit).await
    }

    /// See [`Store::publish`].
    async fn publish(&self, topic: &Topic, record: Bytes) -> Result<(), StoreError> {
        self.inner()?.publish(topic, record).await
    }

    /// See [`Store::purge`].
    async fn purge(
        &self,
        partition: &Partition,
        table: Table,
        require: Option<Require>,
        limit: usize,
    ) -> Purged {
        self.inner()?.purge(partition, table, require, limit).await
    }

    /// See [`Store::lease`].
    async fn lease(
        &self,
        node: &str,
        ttl: Duration,
        members: Vec<(String, u32)>,
    ) -> Result<bool, StoreError> {
        self.inner()?.lease(node, ttl, members).await
    }

    /// See [`Store::release`].
    async fn release(&self, node: &str) -> Result<(), StoreError> {
        self.inner()?.release(node).await
    }

    /// See [`Store::members`].
    async fn members(&self, members: &[String]) -> Result<Vec<u32>, StoreError> {
        self.inner()?.members(members).await
    }

    /// See [`Store::sweep`].
    async fn sweep(&self) -> Result<Vec<String>, StoreError> {
        self.inner()?.sweep().await
    }

    /// See [`Store::now`].
    async fn now(&self) -> Result<u64, StoreError> {
        self.inner()?.now().await
    }

    /// See [`Store::probe`].
    async fn probe(&self) -> Result<Availability, StoreError> {
        self.inner()?.probe().await
    }
}

/// The return type that `async_trait` gives to the methods of [`Store`].
type BoxFuture<'r, T> = Pin<Box<dyn Future<Output = T> + Send + 'r>>;

// Written without `async_trait`, which would box each future of the layer once more.
impl<L: StoreLayer> Store for L {
    fn commit<'s, 'p, 'r>(
        &'s self,
        partition: &'p Partition,
        commit: Commit,
    ) -> BoxFuture<'r, Committed>
    where
        's: 'r,
        'p: 'r,
        Self: 'r,
    {
        StoreLayer::commit(self, partition, commit)
    }

    fn read<'s, 'r>(&'s self, reads: Vec<Read>) -> BoxFuture<'r, Result<Vec<Snapshot>, StoreError>>
    where
        's: 'r,
        Self: 'r,
    {
        StoreLayer::read(self, reads)
    }

    fn heads<'s, 'p, 'r>(
        &'s self,
        partitions: &'p [Partition],
    ) -> BoxFuture<'r, Vec<Result<Position, StoreError>>>
    where
        's: 'r,
        'p: 'r,
        Self: 'r,
    {
        StoreLayer::heads(self, partitions)
    }

    fn documents<'s, 'p, 'r>(
        &'s self,
        partition: &'p Partition,
        keys: Vec<(Table, DocumentKey)>,
        bytes: usize,
    ) -> BoxFuture<'r, Result<Vec<Option<Document>>, StoreError>>
    where
        's: 'r,
        'p: 'r,
        Self: 'r,
    {
        StoreLayer::documents(self, partition, keys, bytes)
    }

    fn page<'s, 'p, 'r>(
        &'s self,
        partition: &'p Partition,
        table: Table,
        range: Range,
        limit: usize,
    ) -> BoxFuture<'r, Result<(Page, PartitionHead), StoreError>>
    where
        's: 'r,
        'p: 'r,
        Self: 'r,
    {
        StoreLayer::page(self, partition, table, range, limit)
    }

    fn log<'s, 'p, 'r>(
        &'s self,
        partition: &'p Partition,
        after: Position,
        limit: usize,
    ) -> BoxFuture<'r, Result<Log, StoreError>>
    where
        's: 'r,
        'p: 'r,
        Self: 'r,
    {
        StoreLayer::log(self, partition, after, limit)
    }

    fn publish<'s, 't, 'r>(
        &'s self,
        topic: &'t Topic,
        record: Bytes,
    ) -> BoxFuture<'r, Result<(), StoreError>>
    where
        's: 'r,
        't: 'r,
        Self: 'r,
    {
        StoreLayer::publish(self, topic, record)
    }

    fn purge<'s, 'p, 'r>(
        &'s self,
        partition: &'p Partition,
        table: Table,
        require: Option<Require>,
        limit: usize,
    ) -> BoxFuture<'r, Purged>
    where
        's: 'r,
        'p: 'r,
        Self: 'r,
    {
        StoreLayer::purge(self, partition, table, require, limit)
    }

    fn lease<'s, 'n, 'r>(
        &'s self,
        node: &'n str,
        ttl: Duration,
        members: Vec<(String, u32)>,
    ) -> BoxFuture<'r, Result<bool, StoreError>>
    where
        's: 'r,
        'n: 'r,
        Self: 'r,
    {
        StoreLayer::lease(self, node, ttl, members)
    }

    fn release<'s, 'n, 'r>(&'s self, node: &'n str) -> BoxFuture<'r, Result<(), StoreError>>
    where
        's: 'r,
        'n: 'r,
        Self: 'r,
    {
        StoreLayer::release(self, node)
    }

    fn members<'s, 'm, 'r>(
        &'s self,
        members: &'m [String],
    ) -> BoxFuture<'r, Result<Vec<u32>, StoreError>>
    where
        's: 'r,
        'm: 'r,
        Self: 'r,
    {
        StoreLayer::members(self, members)
    }

    fn sweep<'s, 'r>(&'s self) -> BoxFuture<'r, Result<Vec<String>, StoreError>>
    where
        's: 'r,
        Self: 'r,
    {
        StoreLayer::sweep(self)
    }

    fn now<'s, 'r>(&'s self) -> BoxFuture<'r, Result<u64, StoreError>>
    where
        's: 'r,
        Self: 'r,
    {
        StoreLayer::now(self)
    }

    fn probe<'s, 'r>(&'s self) -> BoxFuture<'r, Result<Availability, StoreError>>
    where
        's: 'r,
        Self: 'r,
    {
        StoreLayer::probe(self)
    }
}
