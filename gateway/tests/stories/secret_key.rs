//! The check value of the secret key: running nodes write it again to a store that lost it, before
//! a node with another key can start.

use domain::{
    document::PutValue,
    document::decode,
    schema::{ONLY, SECRET_KEY, deployment},
};
use gateway::node::Node;
use store::Commit;

use crate::story::{StoreKind, StoreProcess, World, until};

async fn kept(world: &World) -> Option<String> {
    let snapshot = world.nodes[0]
        .services
        .snapshot(deployment(), vec![(SECRET_KEY, ONLY.into())])
        .await
        .unwrap();
    snapshot.documents[0]
        .as_ref()
        .map(|document| decode(document).unwrap())
}

async fn write(world: &World, commit: Commit) {
    world.nodes[0]
        .services
        .store
        .commit(&deployment(), commit)
        .await
        .unwrap()
        .unwrap();
}

on_both_stores! {
    async fn running_node_writes_the_check_value_of_its_secret_key_again(world: World) {
        let own = kept(&world).await;
        assert!(own.is_some());
        write(&world, Commit::default().delete(SECRET_KEY, ONLY)).await;
        until("it is written again", || async { kept(&world).await == own }).await;
    }

    async fn running_node_is_not_ready_over_a_store_that_is_sealed_under_another_secret_key(world: World) {
        let own = kept(&world).await.unwrap();
        until("the node is ready", || async { world.readiness(0).await == 200 }).await;
        write(&world, Commit::default().put_value(SECRET_KEY, ONLY, &"another key's")).await;
        until("the node is not ready", || async { world.readiness(0).await == 503 }).await;
        assert_eq!(kept(&world).await.as_deref(), Some("another key's"), "it is not replaced");
        write(&world, Commit::default().put_value(SECRET_KEY, ONLY, &own)).await;
        until("the node is ready again", || async { world.readiness(0).await == 200 }).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_with_another_secret_key_does_not_start_after_redis_was_emptied() {
    let world = World::on(StoreKind::Redis).await;
    let StoreProcess::Redis(server, _) = &world.store_process else {
        panic!()
    };
    let own = kept(&world).await;
    server.command(&["FLUSHALL"]).await.unwrap();
    until("the check value is written again", || async {
        kept(&world).await == own
    })
    .await;
    std::fs::write(world.secret_key_file(), "08".repeat(32)).unwrap();
    let refused = Node::start(world.config()).await.map(drop).unwrap_err();
    assert!(
        refused.to_string().contains("another secret key"),
        "{refused}"
    );
}
