//! What users who are connected and send nothing cost the store.

use redis_testing::CountingProxy;

use crate::{
    redis_server::server,
    story::{StoreKind, World, until},
};

const USERS: u64 = 300;

/// Rounds of digests in which the commands are counted.
const ROUNDS: u64 = 8;

/// Maximum commands in a round, a second, whatever the number of users: the digest, readiness,
/// ended sessions, jobs, lease, sweep and heartbeats of connections.
const PER_ROUND: u64 = 12;

/// Seconds in which each of a user's two positions is compared once.
const COMPARISON_PERIOD: u64 = 300;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_users_cost_redis_a_command_in_minutes() {
    let mut world = World::on(StoreKind::Redis).await;
    let url = server(&world).url();
    let port = url.rsplit(':').next().unwrap().parse().unwrap();
    let proxy = CountingProxy::before(port).await;
    for flag in &mut world.store {
        if *flag == url {
            *flag = proxy.url();
        }
    }
    world.restarts().await;
    let names: Vec<String> = (0..USERS).map(|n| format!("user-{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    for some in names.chunks(50) {
        world.channel("group", some[0], some).await;
    }
    let mut people = Vec::new();
    for name in &names {
        people.push(world.connects(name).await);
    }
    // What follows the connects is done: presence is written, and commits are in no digest.
    let rounds = async |count: u64| {
        let end = proxy.digests() + count;
        until("digests are published", async || proxy.digests() >= end).await;
    };
    rounds(6).await;
    let before = proxy.commands();
    rounds(ROUNDS).await;
    let commands = proxy.commands() - before;
    let compared = 2 * USERS * (ROUNDS + 1) / COMPARISON_PERIOD;
    assert!(
        commands <= (ROUNDS + 1) * PER_ROUND + 2 * compared,
        "{commands} commands in {ROUNDS} rounds"
    );
}
