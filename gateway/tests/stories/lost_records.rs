//! Records that the bus loses without a sign, the last one of a conversation among them.

use protocol::{Encoding, operation::session::Connect};
use redis_testing::LossyProxy;

use crate::{
    redis_server::server,
    story::{Person, StoreKind, World, until},
};

/// Two nodes over one Redis, the second behind a proxy that drops records.
async fn two_nodes() -> (World, LossyProxy) {
    let mut world = World::on(StoreKind::Redis).await;
    let url = server(&world).url();
    let port = url.rsplit(':').next().unwrap().parse().unwrap();
    let proxy = LossyProxy::before(port).await;
    for flag in &mut world.store {
        if *flag == url {
            *flag = proxy.url();
        }
    }
    world.add_node().await;
    (world, proxy)
}

async fn connects_to_second(world: &World, name: &str) -> Person {
    world
        .connects_to(1, name, Encoding::MessagePack, Connect::default())
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn last_record_of_a_conversation_that_the_bus_lost_is_delivered() {
    let (world, proxy) = two_nodes().await;
    let general = world.channel("group", "general", &["alice", "bob"]).await;
    let alice = world.connects("alice").await;
    let mut bob = connects_to_second(&world, "bob").await;
    alice.sends(&general, "hello").await;
    bob.sees("hello").await;
    proxy.drop_next("goodbye", 1);
    alice.sends(&general, "goodbye").await;
    until("the record is lost", async || proxy.has_dropped_all()).await;
    bob.sees("goodbye").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_record_is_delivered_though_digests_are_lost_too() {
    let (world, proxy) = two_nodes().await;
    let general = world.channel("group", "general", &["alice", "bob"]).await;
    let alice = world.connects("alice").await;
    let mut bob = connects_to_second(&world, "bob").await;
    alice.sends(&general, "hello").await;
    bob.sees("hello").await;
    proxy.drop_next("goodbye", 1);
    // Two rounds of both nodes.
    proxy.drop_next("digests:", 4);
    alice.sends(&general, "goodbye").await;
    bob.sees("goodbye").await;
    until("the digests are lost", async || proxy.has_dropped_all()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_record_is_delivered_though_no_digest_arrives() {
    let (world, proxy) = two_nodes().await;
    let general = world.channel("group", "general", &["alice", "bob"]).await;
    let alice = world.connects("alice").await;
    let mut bob = connects_to_second(&world, "bob").await;
    alice.sends(&general, "hello").await;
    bob.sees("hello").await;
    proxy.drop_next("goodbye", 1);
    // As when the node of the sender dies: its digests end.
    proxy.drop_next("digests:", usize::MAX);
    alice.sends(&general, "goodbye").await;
    bob.sees("goodbye").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_event_of_the_own_stream_is_delivered() {
    let (world, proxy) = two_nodes().await;
    world.people(&["bob"]).await;
    let mut bob = connects_to_second(&world, "bob").await;
    proxy.drop_next("general", 2);
    let general = world.channel("group", "general", &["alice", "bob"]).await;
    bob.receives("channel.added").await;
    let alice = world.connects("alice").await;
    alice.sends(&general, "hello").await;
    bob.sees("hello").await;
}
