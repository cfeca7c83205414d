//! Waiting for replicas.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_wait_for_the_replicas_of_their_master_and_share_waits() {
    const COMMITS: usize = 600;
    let cluster = Cluster::start_with_replicas(3).await;
    let replicas = Some(Replicas {
        count: 1,
        timeout: Duration::from_secs(1),
    });
    let store = Redis::open_with(
        &cluster.deployment(),
        Names::of(&cluster.deployment()),
        ALL,
        replicas,
    );
    let room = |n: usize| Partition::new(format!("channel:room-{n}"));
    for n in 0..10 {
        store
            .commit(&room(n), message("first"))
            .await
            .unwrap()
            .unwrap();
    }
    let before = waits(&cluster).await;
    let all = futures_util::future::join_all((0..COMMITS).map(|n| {
        let (store, room) = (&store, room(n % 100));
        async move { store.commit(&room, message(&format!("msg-{n}"))).await }
    }));
    assert!(
        all.await
            .into_iter()
            .all(|committed| matches!(committed, Ok(Ok(_))))
    );
    let asked = waits(&cluster).await - before;
    assert!(
        asked >= 3 && asked < COMMITS as u64 / 3,
        "{asked} waits for {COMMITS} commits"
    );

    // The replica of one master hangs: only commits to that master are not acknowledged.
    let hanging = cluster.owner(slot(&channel("channel:room-0"))).await;
    cluster.replicas[hanging].stop();
    let mut unconfirmed = 0;
    for n in 0..10 {
        let is_affected = cluster.owner(slot(&channel(room(n).name()))).await == hanging;
        let committed = store.commit(&room(n), message("second")).await;
        assert_eq!(
            matches!(committed, Err(StoreError::Unavailable(_))),
            is_affected,
            "{committed:?}"
        );
        unconfirmed += usize::from(is_affected);
    }
    cluster.replicas[hanging].cont();
    assert!((1..10).contains(&unconfirmed), "{unconfirmed}");
    // The commit was applied, and a retry finds it once the replica has it.
    let again = store.commit(&room(0), message("second")).await.unwrap();
    assert!(again.is_err(), "the id is taken: {again:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_wait_for_replicas_during_a_slot_migration() {
    let cluster = Cluster::start_with_replicas(3).await;
    let replicas = Some(Replicas {
        count: 1,
        timeout: Duration::from_secs(1),
    });
    let store = Redis::open_with(
        &cluster.deployment(),
        Names::of(&cluster.deployment()),
        ALL,
        replicas,
    );
    let slot_of = |room: &Partition| slot(&channel(room.name()));
    let moving = Partition::new("channel:moving");
    let from = cluster.owner(slot_of(&moving)).await;
    let mut neighbours = Vec::new();
    for n in 0.. {
        let room = Partition::new(format!("channel:neighbour-{n}"));
        if cluster.owner(slot_of(&room)).await == from {
            neighbours.push(room);
        }
        if neighbours.len() == 8 {
            break;
        }
    }
    let all: Vec<&Partition> = std::iter::once(&moving).chain(&neighbours).collect();
    for room in &all {
        store.commit(room, message("first")).await.unwrap().unwrap();
    }
    let (number, to) = (slot_of(&moving), (from + 1) % 3);
    // A commit that creates no key; others may have to wait until the migration ends.
    let count = || {
        let increment = vec![Increment {
            counter: Counter::Partition("sent"),
            by: 1,
            max: None,
            max_names: None,
        }];
        futures_util::future::join_all(all.iter().map(|room| {
            store.commit(
                room,
                Commit {
                    increment: increment.clone(),
                    ..Commit::default()
                },
            )
        }))
    };
    cluster.begin_migration(number, from, to).await;
    for n in 0..10 {
        let committed = count().await;
        assert!(
            committed
                .iter()
                .all(|committed| matches!(committed, Ok(Ok(_)))),
            "{n}: {committed:?}"
        );
    }
    cluster.move_keys(number, from, to).await;
    // All keys are at the importing node, which does not own the slot yet.
    let committed = count().await;
    assert!(
        committed
            .iter()
            .all(|committed| matches!(committed, Ok(Ok(_)))),
        "{committed:?}"
    );
    cluster.finish_migration(number, from, to).await;
    for room in all {
        store.commit(room, message("last")).await.unwrap().unwrap();
    }
}
