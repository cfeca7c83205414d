//! Nodes over one store, step by step.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

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

use super::{settle::USERS_PER_BATCH, *};

/// Times that are over as soon as they begin: each step is the test's.
const AT_ONCE: Timing = Timing {
    grace: Duration::ZERO,
    lease: Duration::from_secs(60),
    renewal: Duration::from_millis(5),
};
/// The same for a node that dies after each of its writes.
const DYING: Timing = Timing {
    lease: Duration::ZERO,
    ..AT_ONCE
};
/// The same for a node that is soon sure who is dead.
const SHORT: Timing = Timing {
    lease: Duration::from_millis(200),
    ..AT_ONCE
};
const LONG: Duration = Duration::from_secs(20);

struct World {
    store: Arc<Gate>,
    bus: Arc<Local>,
    received: Arc<Recorder>,
    clock: Arc<Clock>,
    scope: Scope,
    _folder: TempDir,
}

impl World {
    fn new() -> Self {
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
        let store = Arc::new(Gate {
            store: Arc::new(embedded),
            is_closed: AtomicBool::default(),
            is_mute: AtomicBool::default(),
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

    fn node(&self, name: &str, timing: Timing) -> Arc<Presences> {
        let mut services = Services::new(
            self.store.clone(),
            Limits::default(),
            SecretKey::new([7; 32]),
            name,
        );
        services.clock = self.clock.clone();
        Presences::with(services, name, timing)
    }

    async fn user(&self, id: &str) -> UserId {
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

    /// What was told of a user, in order.
    fn told(&self, user: &UserId) -> Vec<PresenceData> {
        #[derive(Deserialize)]
        struct Told {
            data: PresenceData,
        }
        let read = |record| {
            codec::from_msgpack::<Told>(&Record::decode(record).unwrap().body)
                .unwrap()
                .data
        };
        self.received
            .received(&self.scope.presence(user))
            .into_iter()
            .map(read)
            .collect()
    }

    fn words(&self, user: &UserId) -> Vec<bool> {
        self.told(user).iter().map(|told| told.online).collect()
    }

    /// What a client shows after it heard all of that, in whatever order.
    fn shown(&self, user: &UserId) -> bool {
        self.told(user)
            .into_iter()
            .max_by_key(|told| told.at)
            .is_some_and(|told| told.online)
    }

    async fn kept(&self, user: &UserId) -> Online {
        self.store
            .store
            .members(&[self.scope.member(user)])
            .await
            .unwrap()[0]
            .into()
    }

    async fn last_seen(&self, user: &UserId) -> Option<u64> {
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

    /// A node's write reaches the store.
    async fn writes(&self, node: &Presences) {
        self.clock.advance(Duration::from_millis(1));
        node.write(node.timing.lease).await.unwrap();
    }

    /// A node asks who else has its users, and tells.
    async fn settles(&self, node: &Presences) {
        self.clock.advance(Duration::from_millis(1));
        while node.settle().await.unwrap() {}
    }

    /// A node does all that there is to do.
    async fn works(&self, node: &Presences) {
        node.end_graces(Instant::now());
        for _ in 0..2 {
            self.writes(node).await;
            self.settles(node).await;
        }
    }
}

#[tokio::test]
async fn a_user_is_told_online_once_and_offline_once_its_grace_is_over() {
    let world = World::new();
    let (node, ann) = (world.node("a", AT_ONCE), world.user("ann").await);
    node.session_began(&world.scope, &ann);
    node.session_began(&world.scope, &ann);
    world.works(&node).await;
    assert_eq!(
        (world.words(&ann), world.kept(&ann).await),
        (vec![true], Online::told(2))
    );
    node.session_ended(&world.scope, &ann);
    world.works(&node).await;
    node.session_ended(&world.scope, &ann);
    world.writes(&node).await;
    assert_eq!(
        (world.words(&ann), world.kept(&ann).await),
        (vec![true], Online::told(0)),
        "within its grace"
    );
    world.works(&node).await;
    assert_eq!(
        (world.words(&ann), world.kept(&ann).await),
        (vec![true, false], Online::NOT)
    );
    assert_eq!(world.last_seen(&ann).await, world.told(&ann)[1].last_seen);
}

#[tokio::test]
async fn a_user_who_comes_as_another_nodes_grace_ends_is_online_at_last() {
    for b_writes_first in [true, false] {
        let world = World::new();
        let (a, b, ann) = (
            world.node("a", AT_ONCE),
            world.node("b", AT_ONCE),
            world.user("ann").await,
        );
        a.session_began(&world.scope, &ann);
        world.works(&a).await;
        a.session_ended(&world.scope, &ann);
        world.writes(&a).await;
        b.session_began(&world.scope, &ann);
        if b_writes_first {
            world.writes(&b).await;
        }
        world.works(&a).await;
        assert_eq!(world.words(&ann).contains(&false), !b_writes_first);
        world.works(&b).await;
        assert!(world.shown(&ann), "{:?}", world.told(&ann));
        assert_eq!(world.kept(&ann).await, Online::told(1));
    }
}

#[tokio::test]
async fn nodes_that_take_a_user_in_at_once_do_not_rely_on_each_other() {
    let world = World::new();
    let (a, b, ann) = (
        world.node("a", AT_ONCE),
        world.node("b", AT_ONCE),
        world.user("ann").await,
    );
    a.session_began(&world.scope, &ann);
    b.session_began(&world.scope, &ann);
    world.writes(&a).await;
    world.writes(&b).await;
    world.settles(&a).await;
    world.settles(&b).await;
    assert!(world.shown(&ann));
}

#[tokio::test]
async fn a_user_who_is_known_to_be_online_is_not_told_again() {
    let world = World::new();
    let (a, b, ann) = (
        world.node("a", AT_ONCE),
        world.node("b", AT_ONCE),
        world.user("ann").await,
    );
    for node in [&a, &b] {
        node.session_began(&world.scope, &ann);
        world.works(node).await;
    }
    a.session_ended(&world.scope, &ann);
    world.works(&a).await;
    assert_eq!(
        (world.words(&ann), world.kept(&ann).await.sessions()),
        (vec![true], 1)
    );
}

#[tokio::test]
async fn a_session_that_begins_while_the_grace_ends_is_written() {
    let world = World::new();
    let (node, ann) = (world.node("a", AT_ONCE), world.user("ann").await);
    node.session_began(&world.scope, &ann);
    world.works(&node).await;
    for _ in 0..200 {
        node.session_ended(&world.scope, &ann);
        std::thread::scope(|threads| {
            threads.spawn(|| node.end_graces(Instant::now()));
            threads.spawn(|| node.session_began(&world.scope, &ann));
        });
        world.works(&node).await;
        assert_eq!(world.kept(&ann).await, Online::told(1));
    }
    assert!(!world.words(&ann).contains(&false));
}

#[tokio::test]
async fn the_users_of_a_dead_node_are_told_offline_once_unless_they_are_elsewhere() {
    let world = World::new();
    let (dead, b, c) = (
        world.node("dead", DYING),
        world.node("b", AT_ONCE),
        world.node("c", AT_ONCE),
    );
    let mut users = Vec::new();
    for i in 0..USERS_PER_BATCH + 100 {
        users.push(world.user(&format!("user-{i}")).await);
    }
    b.session_began(&world.scope, &users[0]);
    world.works(&b).await;
    users
        .iter()
        .for_each(|user| dead.session_began(&world.scope, user));
    world.writes(&dead).await;
    b.sweep().await.unwrap();
    c.sweep().await.unwrap();
    world.works(&b).await;
    world.works(&c).await;
    assert_eq!(world.words(&users[0]), [true]);
    for user in &users[1..] {
        assert_eq!(world.words(user), [false]);
        assert!(world.last_seen(user).await.is_some());
    }
}

#[tokio::test]
async fn a_node_whose_lease_ended_and_was_swept_tells_its_users_anew() {
    let world = World::new();
    let (slow, b, ann) = (
        world.node("slow", DYING),
        world.node("b", AT_ONCE),
        world.user("ann").await,
    );
    slow.session_began(&world.scope, &ann);
    slow.write(LONG).await.unwrap();
    world.settles(&slow).await;
    world.writes(&slow).await;
    b.sweep().await.unwrap();
    world.works(&b).await;
    assert_eq!(world.words(&ann), [true, false]);
    world.clock.advance(Duration::from_millis(1));
    slow.write(LONG).await.unwrap();
    world.settles(&slow).await;
    assert_eq!(
        (world.words(&ann), world.shown(&ann)),
        (vec![true, false, true], true)
    );
}

#[tokio::test]
async fn who_moves_to_another_node_during_a_drain_was_never_offline() {
    let world = World::new();
    let (drained, b) = (world.node("drained", AT_ONCE), world.node("b", AT_ONCE));
    let (ann, bob) = (world.user("ann").await, world.user("bob").await);
    for user in [&ann, &bob] {
        drained.session_began(&world.scope, user);
    }
    world.works(&drained).await;
    for user in [&ann, &bob] {
        drained.session_ended(&world.scope, user);
    }
    b.session_began(&world.scope, &ann);
    world.works(&b).await;
    drained.leave(LONG).await;
    assert_eq!(world.words(&bob), [true], "its grace is the lease's");
    b.sweep().await.unwrap();
    world.works(&b).await;
    assert_eq!(world.words(&ann), [true]);
    assert_eq!(world.words(&bob), [true, false]);
}

#[tokio::test]
async fn the_last_node_keeps_when_everybody_was_seen() {
    let world = World::new();
    let (node, ann, bob) = (
        world.node("a", AT_ONCE),
        world.user("ann").await,
        world.user("bob").await,
    );
    node.session_began(&world.scope, &ann);
    node.session_began(&world.scope, &bob);
    world.works(&node).await;
    node.session_ended(&world.scope, &bob);
    node.close(LONG).await;
    for user in [&ann, &bob] {
        assert_eq!(
            (world.words(user), world.kept(user).await),
            (vec![true, false], Online::NOT)
        );
        assert_eq!(world.last_seen(user).await, Some(world.clock.now_ms()));
    }
}

#[tokio::test]
async fn the_lease_is_renewed_while_the_users_of_a_dead_node_wait() {
    let world = World::new();
    let (dead, node) = (world.node("dead", DYING), world.node("a", SHORT));
    let (ann, bob) = (world.user("ann").await, world.user("bob").await);
    dead.session_began(&world.scope, &ann);
    world.writes(&dead).await;
    world.store.is_closed.store(true, Ordering::SeqCst);
    let keeping = tokio::spawn(node.clone().run());
    world
        .until(async || {
            world.store.waiting.load(Ordering::SeqCst) > 0
                && world.store.renewals.load(Ordering::SeqCst) > 3
        })
        .await;
    let before = world.store.renewals.load(Ordering::SeqCst);
    node.session_began(&world.scope, &bob);
    world
        .until(async || {
            world.store.renewals.load(Ordering::SeqCst) > before + 3
                && world.kept(&bob).await.sessions() == 1
        })
        .await;
    assert_eq!((world.words(&ann), world.words(&bob)), (vec![], vec![]));

    // Cancelled in the midst of it, nothing is forgotten.
    keeping.abort();
    assert!(keeping.await.unwrap_err().is_cancelled());
    world.store.is_closed.store(false, Ordering::SeqCst);
    world.works(&node).await;
    assert_eq!(
        (world.words(&ann), world.words(&bob)),
        (vec![false], vec![true])
    );
}

#[tokio::test]
async fn after_an_outage_nobody_is_taken_for_dead_before_there_was_time_to_come_back() {
    let world = World::new();
    let (a, b, ann) = (
        world.node("a", SHORT),
        world.node("b", SHORT),
        world.user("ann").await,
    );
    assert!(!a.may_sweep(), "it has just begun");
    b.session_began(&world.scope, &ann);
    world.works(&b).await;
    world
        .until(async || {
            world.writes(&a).await;
            world.writes(&b).await;
            a.may_sweep()
        })
        .await;
    // Both leases end while the store is away. The first to come back finds that of the other
    // ended.
    tokio::time::sleep(2 * SHORT.lease).await;
    world.writes(&a).await;
    assert!(!a.may_sweep());
    world.works(&b).await;
    world
        .until(async || {
            world.writes(&a).await;
            world.writes(&b).await;
            a.may_sweep()
        })
        .await;
    a.sweep().await.unwrap();
    world.works(&a).await;
    assert!(world.shown(&ann) && world.kept(&ann).await.is_online());
    assert!(
        !world.words(&ann).contains(&false),
        "{:?}",
        world.words(&ann)
    );
}

#[tokio::test]
async fn what_could_not_be_told_is_told_when_the_store_is_back() {
    let world = World::new();
    let (node, ann) = (world.node("a", AT_ONCE), world.user("ann").await);
    node.session_began(&world.scope, &ann);
    world.store.is_mute.store(true, Ordering::SeqCst);
    world.works(&node).await;
    assert!(world.words(&ann).is_empty());
    world.store.is_mute.store(false, Ordering::SeqCst);
    world.works(&node).await;
    assert_eq!(world.words(&ann), [true]);
}

impl World {
    async fn until(&self, holds: impl AsyncFn() -> bool) {
        let deadline = Instant::now() + LONG;
        while !holds().await {
            assert!(Instant::now() < deadline, "in vain");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

/// A store that can be made to leave the question of who is online unanswered.
#[derive(Debug)]
struct Gate {
    store: Arc<dyn Store>,
    is_closed: AtomicBool,
    is_mute: AtomicBool,
    waiting: AtomicU64,
    renewals: AtomicU64,
}

#[async_trait]
impl store::StoreLayer for Gate {
    fn inner(&self) -> Result<&dyn Store, StoreError> {
        Ok(&*self.store)
    }

    async fn publish(&self, topic: &fanout::Topic, record: Bytes) -> Result<(), StoreError> {
        if self.is_mute.load(Ordering::SeqCst) {
            return Err(StoreError::Unavailable("mute".into()));
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
        if self.is_closed.load(Ordering::SeqCst) {
            self.waiting.fetch_add(1, Ordering::SeqCst);
            std::future::pending::<()>().await;
        }
        self.store.members(members).await
    }
}
