//! Scenarios of several nodes over one store, step by step.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod world;

use self::world::World;
use super::{settle::USERS_PER_BATCH, *};

/// Graces end at once, and the test takes each step.
const NO_GRACE: PresenceTiming = PresenceTiming {
    grace: Duration::ZERO,
    lease: Duration::from_secs(60),
    renewal: Duration::from_millis(5),
};
/// Leases end at once, as if the node died after each write.
const DYING: PresenceTiming = PresenceTiming {
    lease: Duration::ZERO,
    ..NO_GRACE
};
/// Leases are short, so that a node may sweep soon.
const SHORT: PresenceTiming = PresenceTiming {
    lease: Duration::from_millis(200),
    ..NO_GRACE
};
const LONG: Duration = Duration::from_secs(20);

#[tokio::test]
async fn user_is_published_online_once_and_offline_after_the_grace() {
    let world = World::new();
    let (node, ann) = (world.node("a", NO_GRACE), world.user("ann").await);
    node.session_began(&world.scope, &ann);
    node.session_began(&world.scope, &ann);
    world.works(&node).await;
    assert_eq!(
        (world.published_states(&ann), world.stored(&ann).await),
        (vec![true], Online::told(2))
    );
    node.session_ended(&world.scope, &ann);
    world.works(&node).await;
    node.session_ended(&world.scope, &ann);
    world.writes(&node).await;
    assert_eq!(
        (world.published_states(&ann), world.stored(&ann).await),
        (vec![true], Online::told(0)),
        "within its grace"
    );
    world.works(&node).await;
    assert_eq!(
        (world.published_states(&ann), world.stored(&ann).await),
        (vec![true, false], Online::NOT)
    );
    assert_eq!(
        world.last_seen(&ann).await,
        world.published(&ann)[1].last_seen
    );
}

#[tokio::test]
async fn memory_of_many_users_is_freed_after_they_left() {
    let world = World::new();
    let node = world.node("a", NO_GRACE);
    let users: Vec<UserId> = (0..5_000)
        .map(|n| format!("user{n}").parse().unwrap())
        .collect();
    for user in &users {
        node.session_began(&world.scope, user);
    }
    assert!(node.local.capacity() >= users.len());
    for user in &users {
        node.session_ended(&world.scope, user);
    }
    node.end_graces(Instant::now());
    assert_eq!(node.take_unwritten().len(), users.len());
    let capacities = [
        node.local.capacity(),
        node.graces.lock().capacity(),
        node.unwritten.lock().capacity(),
    ];
    assert!(
        capacities.iter().all(|capacity| *capacity < 1_000),
        "{capacities:?}"
    );
}

#[tokio::test]
async fn node_counts_as_alive_until_its_lease_ends() {
    let world = World::new();
    let alive = async |name: &str| {
        let leases = [name.to_owned()];
        world.store.store.members(&leases).await.unwrap() != [0]
    };
    world.writes(&world.node("a", NO_GRACE)).await;
    world.writes(&world.node("b", DYING)).await;
    assert!(alive("a").await && !alive("b").await);
    let sweeper = world.node("c", NO_GRACE);
    sweeper.sweep().await.unwrap();
    world.works(&sweeper).await;
    assert!(alive("a").await && alive("c").await && !alive("b").await);
}

#[tokio::test]
async fn user_who_connects_as_another_nodes_grace_ends_is_online() {
    for b_writes_first in [true, false] {
        let world = World::new();
        let (a, b, ann) = (
            world.node("a", NO_GRACE),
            world.node("b", NO_GRACE),
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
        assert_eq!(
            world.published_states(&ann).contains(&false),
            !b_writes_first
        );
        world.works(&b).await;
        assert!(world.shown(&ann), "{:?}", world.published(&ann));
        assert_eq!(world.stored(&ann).await, Online::told(1));
    }
}

#[tokio::test]
async fn nodes_that_add_a_user_concurrently_do_not_rely_on_each_other() {
    let world = World::new();
    let (a, b, ann) = (
        world.node("a", NO_GRACE),
        world.node("b", NO_GRACE),
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
async fn user_who_is_online_is_not_published_again() {
    let world = World::new();
    let (a, b, ann) = (
        world.node("a", NO_GRACE),
        world.node("b", NO_GRACE),
        world.user("ann").await,
    );
    for node in [&a, &b] {
        node.session_began(&world.scope, &ann);
        world.works(node).await;
    }
    a.session_ended(&world.scope, &ann);
    world.works(&a).await;
    assert_eq!(
        (
            world.published_states(&ann),
            world.stored(&ann).await.sessions()
        ),
        (vec![true], 1)
    );
}

#[tokio::test]
async fn session_that_begins_while_the_grace_ends_is_written() {
    let world = World::new();
    let (node, ann) = (world.node("a", NO_GRACE), world.user("ann").await);
    node.session_began(&world.scope, &ann);
    world.works(&node).await;
    for _ in 0..200 {
        node.session_ended(&world.scope, &ann);
        std::thread::scope(|threads| {
            threads.spawn(|| node.end_graces(Instant::now()));
            threads.spawn(|| node.session_began(&world.scope, &ann));
        });
        world.works(&node).await;
        assert_eq!(world.stored(&ann).await, Online::told(1));
    }
    assert!(!world.published_states(&ann).contains(&false));
}

#[tokio::test]
async fn users_of_a_dead_node_are_published_offline_once_unless_they_are_elsewhere() {
    let world = World::new();
    let (dead, b, c) = (
        world.node("dead", DYING),
        world.node("b", NO_GRACE),
        world.node("c", NO_GRACE),
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
    assert_eq!(world.published_states(&users[0]), [true]);
    for user in &users[1..] {
        assert_eq!(world.published_states(user), [false]);
        assert!(world.last_seen(user).await.is_some());
    }
}

#[tokio::test]
async fn node_whose_lease_was_swept_publishes_its_users_again() {
    let world = World::new();
    let (slow, b, ann) = (
        world.node("slow", DYING),
        world.node("b", NO_GRACE),
        world.user("ann").await,
    );
    slow.session_began(&world.scope, &ann);
    slow.write(LONG).await.unwrap();
    world.settles(&slow).await;
    world.writes(&slow).await;
    b.sweep().await.unwrap();
    world.works(&b).await;
    assert_eq!(world.published_states(&ann), [true, false]);
    world.clock.advance(Duration::from_millis(1));
    slow.write(LONG).await.unwrap();
    world.settles(&slow).await;
    assert_eq!(
        (world.published_states(&ann), world.shown(&ann)),
        (vec![true, false, true], true)
    );
}

#[tokio::test]
async fn user_who_moves_to_another_node_during_a_drain_is_never_offline() {
    let world = World::new();
    let (drained, b) = (world.node("drained", NO_GRACE), world.node("b", NO_GRACE));
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
    assert_eq!(
        world.published_states(&bob),
        [true],
        "the lease lasts for the grace"
    );
    b.sweep().await.unwrap();
    world.works(&b).await;
    assert_eq!(world.published_states(&ann), [true]);
    assert_eq!(world.published_states(&bob), [true, false]);
}

#[tokio::test]
async fn last_node_stores_when_its_users_were_last_seen() {
    let world = World::new();
    let (node, ann, bob) = (
        world.node("a", NO_GRACE),
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
            (world.published_states(user), world.stored(user).await),
            (vec![true, false], Online::NOT)
        );
        assert_eq!(world.last_seen(user).await, Some(world.clock.now_ms()));
    }
}

#[tokio::test]
async fn lease_is_renewed_while_users_of_a_dead_node_are_settled() {
    let world = World::new();
    let (dead, node) = (world.node("dead", DYING), world.node("a", SHORT));
    let (ann, bob) = (world.user("ann").await, world.user("bob").await);
    dead.session_began(&world.scope, &ann);
    world.writes(&dead).await;
    world.store.blocks_reads.store(true, Ordering::SeqCst);
    let running = tokio::spawn(node.clone().run());
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
                && world.stored(&bob).await.sessions() == 1
        })
        .await;
    assert_eq!(
        (world.published_states(&ann), world.published_states(&bob)),
        (vec![], vec![])
    );

    // Cancellation loses no changes.
    running.abort();
    assert!(running.await.unwrap_err().is_cancelled());
    world.store.blocks_reads.store(false, Ordering::SeqCst);
    world.works(&node).await;
    assert_eq!(
        (world.published_states(&ann), world.published_states(&bob)),
        (vec![false], vec![true])
    );
}

#[tokio::test]
async fn after_an_outage_nodes_have_time_to_return_before_they_are_swept() {
    let world = World::new();
    let (a, b, ann) = (
        world.node("a", SHORT),
        world.node("b", SHORT),
        world.user("ann").await,
    );
    assert!(!a.may_sweep(), "it has just started");
    b.session_began(&world.scope, &ann);
    world.works(&b).await;
    world
        .until(async || {
            world.writes(&a).await;
            world.writes(&b).await;
            a.may_sweep()
        })
        .await;
    // Both leases end during the outage. The node that returns first finds the other lease ended.
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
    assert!(world.shown(&ann) && world.stored(&ann).await.is_online());
    assert!(
        !world.published_states(&ann).contains(&false),
        "{:?}",
        world.published_states(&ann)
    );
}

#[tokio::test]
async fn failed_publication_is_repeated_when_the_store_is_back() {
    let world = World::new();
    let (node, ann) = (world.node("a", NO_GRACE), world.user("ann").await);
    node.session_began(&world.scope, &ann);
    world.store.fails_publishing.store(true, Ordering::SeqCst);
    world.works(&node).await;
    assert!(world.published_states(&ann).is_empty());
    world.store.fails_publishing.store(false, Ordering::SeqCst);
    world.works(&node).await;
    assert_eq!(world.published_states(&ann), [true]);
}
