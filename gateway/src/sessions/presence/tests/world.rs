//! Nodes over one store, which can be made to fail.

use std::sync::atomic::AtomicBool;

use async_trait::async_trait;
use bytes::Bytes;
use domain::{
    clock::Clock,
    credential::SecretKey,
    document::{PutValue, decode},
    random,
    schema::{ENTITY, ONLY, SEEN},
};
use fanout::{
    bus::{Bus, Local, conformance::Recorder},
    record::Record,
};
use protocol::{Limits, codec, entity::Environment, event::PresenceData};
use serde::Deserialize;
use store::{Commit, Keep, Read, Store, embedded::Embedded};
use tempfile::TempDir;

use super::{super::*, LONG};

pub(super) struct World {
    pub(super) store: Arc<FaultyStore>,
    pub(super) bus: Arc<Local>,
    pub(super) received: Arc<Recorder>,
    pub(super) clock: Arc<Clock>,
    pub(super) scope: Scope,
    pub(super) _folder: TempDir,
}

impl World {
    pub(super) fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let received = Recorder::new();
        let bus = Local::new(received.clone());
        let embedded = Embedded::open(
            folder.path(),
            Keep {
                events: 0,
                bytes: 0,
            },
            bus.clone(),
        )
        .unwrap();
        let store = Arc::new(FaultyStore {
            store: Arc::new(embedded),
            blocks_reads: AtomicBool::default(),
            fails_publishing: AtomicBool::default(),
            waiting: AtomicU64::default(),
            renewals: AtomicU64::default(),
        });
        let scope = Scope {
            app: protocol::AppId::from_bits(random::bits()),
            environment: Environment::Live,
        };
        Self {
            store,
            bus,
            received,
            clock: Arc::new(Clock::manual(1_000_000)),
            scope,
            _folder: folder,
        }
    }

    pub(super) fn node(&self, name: &str, timing: PresenceTiming) -> Arc<PresenceTracker> {
        let mut services = Services::new(
            self.store.clone(),
            Limits::default(),
            SecretKey::new([7; 32]),
            name,
        );
        services.clock = self.clock.clone();
        PresenceTracker::with(services, name, timing)
    }

    pub(super) async fn user(&self, id: &str) -> UserId {
        let user: UserId = id.parse().unwrap();
        self.bus.join(&[self.scope.presence(&user)]).await.unwrap();
        self.store
            .store
            .commit(
                &self.scope.user(&user),
                Commit::default().put_value(ENTITY, ONLY, &()),
            )
            .await
            .unwrap()
            .unwrap();
        user
    }

    /// Returns the published presence of a user, in order.
    pub(super) fn published(&self, user: &UserId) -> Vec<PresenceData> {
        #[derive(Deserialize)]
        struct Published {
            data: PresenceData,
        }
        let read = |record| {
            codec::from_msgpack::<Published>(&Record::decode(record).unwrap().body)
                .unwrap()
                .data
        };
        self.received
            .received(&self.scope.presence(user))
            .into_iter()
            .map(read)
            .collect()
    }

    pub(super) fn published_states(&self, user: &UserId) -> Vec<bool> {
        self.published(user)
            .iter()
            .map(|published| published.online)
            .collect()
    }

    /// Returns what a client shows after it received all of that, in any order.
    pub(super) fn shown(&self, user: &UserId) -> bool {
        self.published(user)
            .into_iter()
            .max_by_key(|published| published.at)
            .is_some_and(|published| published.online)
    }

    pub(super) async fn stored(&self, user: &UserId) -> Online {
        self.store
            .store
            .members(&[self.scope.member(user)])
            .await
            .unwrap()[0]
            .into()
    }

    pub(super) async fn last_seen(&self, user: &UserId) -> Option<u64> {
        let read = Read {
            partition: self.scope.user(user),
            documents: vec![(SEEN, ONLY.into())],
            newest: None,
        };
        let seen = self.store.read(vec![read]).await.unwrap().remove(0);
        seen.documents[0]
            .as_ref()
            .map(|document| decode(document).unwrap())
    }

    /// Writes the node's changes.
    pub(super) async fn writes(&self, node: &PresenceTracker) {
        self.clock.advance(Duration::from_millis(1));
        node.write(node.timing.lease).await.unwrap();
    }

    /// Settles the findings of a node.
    pub(super) async fn settles(&self, node: &PresenceTracker) {
        self.clock.advance(Duration::from_millis(1));
        while node.settle().await.unwrap() {}
    }

    /// Ends the graces of a node, writes and settles.
    pub(super) async fn works(&self, node: &PresenceTracker) {
        node.end_graces(Instant::now());
        for _ in 0..2 {
            self.writes(node).await;
            self.settles(node).await;
        }
    }
}

impl World {
    pub(super) async fn until(&self, holds: impl AsyncFn() -> bool) {
        let deadline = Instant::now() + LONG;
        while !holds().await {
            assert!(
                Instant::now() < deadline,
                "the condition did not become true in time"
            );
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

/// A store that can be made to block reads of members, and to fail publishing.
#[derive(Debug)]
pub(super) struct FaultyStore {
    pub(super) store: Arc<dyn Store>,
    pub(super) blocks_reads: AtomicBool,
    pub(super) fails_publishing: AtomicBool,
    pub(super) waiting: AtomicU64,
    pub(super) renewals: AtomicU64,
}

#[async_trait]
impl store::StoreLayer for FaultyStore {
    fn inner(&self) -> Result<&dyn Store, StoreError> {
        Ok(&*self.store)
    }

    async fn publish(&self, topic: &fanout::Topic, record: Bytes) -> Result<(), StoreError> {
        if self.fails_publishing.load(Ordering::SeqCst) {
            return Err(StoreError::Unavailable("publishing fails".into()));
        }
        self.store.publish(topic, record).await
    }

    async fn lease(
        &self,
        node: &str,
        ttl: Duration,
        members: Vec<(String, u32)>,
    ) -> Result<bool, StoreError> {
        self.renewals.fetch_add(1, Ordering::SeqCst);
        self.store.lease(node, ttl, members).await
    }

    async fn members(&self, members: &[String]) -> Result<Vec<u32>, StoreError> {
        if self.blocks_reads.load(Ordering::SeqCst) {
            self.waiting.fetch_add(1, Ordering::SeqCst);
            std::future::pending::<()>().await;
        }
        self.store.members(members).await
    }
}
