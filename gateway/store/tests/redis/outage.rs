//! Outages: hanging, killed, refusing, missing and failed-over servers.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_to_a_hanging_server_fail_before_the_deadline() {
    let server = Server::start().await;
    let store = Redis::open(&server.deployment(), ALL);
    send(&store, "before").await.unwrap().unwrap();
    server.stop();
    let start = Instant::now();
    let read = vec![Read {
        partition: room(),
        documents: vec![],
        newest: None,
    }];
    let (members, room) = (["ann".to_owned()], room());
    let answers = tokio::join!(
        send(&store, "while"),
        store.read(read),
        store.log(&room, Position::default(), 10),
        store.page(&room, MESSAGES, Range::Before(None), 10),
        store.now(),
        store.members(&members),
        store.purge(&room, MESSAGES, None, 10),
    );
    assert!(start.elapsed() <= DEADLINE, "{:?}", start.elapsed());
    assert!(
        is_unavailable(&answers.0, "")
            && is_unavailable(&answers.1, "")
            && is_unavailable(&answers.2, "")
    );
    assert!(
        is_unavailable(&answers.3, "")
            && is_unavailable(&answers.4, "")
            && is_unavailable(&answers.5, "")
    );
    assert!(is_unavailable(&answers.6, ""));
    server.cont();
    until("the store comes back", || async {
        store.now().await.is_ok()
    })
    .await;
    send(&store, "after").await.unwrap().unwrap();
    // The commit sent to the hanging server is applied once or not at all.
    let logged = logged(&store).await;
    let expected: &[&str] = if logged.len() == 3 {
        &["before", "while", "after"]
    } else {
        &["before", "after"]
    };
    // The purge may have run, but it does not change the log.
    assert_eq!(logged, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_commits_survive_a_killed_server() {
    let mut server = Server::start_with(&["--appendonly", "yes", "--appendfsync", "always"]).await;
    let store = Arc::new(Redis::open(&server.deployment(), ALL));
    let senders: Vec<_> = (0..16)
        .map(|task| {
            let store = store.clone();
            tokio::spawn(async move {
                let mut acknowledged = Vec::new();
                for n in 0.. {
                    let id = format!("{task}.{n}");
                    match send(&store, &id).await {
                        Ok(done) => acknowledged.push((id, done.unwrap().first_seq)),
                        Err(_) => return acknowledged,
                    }
                }
                acknowledged
            })
        })
        .collect();
    until("some are sent", || async {
        store
            .log(&room(), Position::default(), 1)
            .await
            .is_ok_and(|log| log.head.seq > 500)
    })
    .await;
    server.kill9();
    let mut acknowledged = Vec::new();
    for sender in senders {
        acknowledged.extend(sender.await.unwrap());
    }
    server.restart().await;
    until("the store comes back", || async {
        store.now().await.is_ok()
    })
    .await;
    let logged = logged(&store).await;
    assert_eq!(
        logged.iter().collect::<HashSet<_>>().len(),
        logged.len(),
        "no duplicates"
    );
    for (id, seq) in &acknowledged {
        assert_eq!(logged.get(*seq as usize - 1), Some(id));
    }
    let (page, head) = store
        .page(&room(), MESSAGES, Range::After(0), 1_000_000)
        .await
        .unwrap();
    let kept: Vec<_> = page.documents.iter().map(|d| d.key.to_string()).collect();
    assert_eq!(
        (kept, head.number),
        (logged, head.seq),
        "every event has its document"
    );
}

/// Sends a commit that frees room, and writes a little itself.
pub(super) async fn send_freeing(store: &Redis) -> Committed {
    let table = Table::plain("tombstone");
    let put = Write::Put {
        table,
        key: DocumentKey::from(""),
        value: Bytes::from("gone"),
        mark: Mark::None,
        event: None,
    };
    store
        .commit(
            &room(),
            Commit {
                write: vec![put],
                frees: true,
                ..Commit::default()
            },
        )
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_writes_change_nothing() {
    let server = Server::start().await;
    let store = Redis::open(&server.deployment(), ALL);
    send(&store, "before").await.unwrap().unwrap();

    server
        .command(&["CONFIG", "SET", "maxmemory", "1"])
        .await
        .unwrap();
    let answer = send(&store, "full").await;
    assert!(
        matches!(&answer, Err(StoreError::Full(sentence)) if sentence.contains("maxmemory")),
        "{answer:?}"
    );
    send_freeing(&store).await.unwrap().unwrap();
    store
        .now()
        .await
        .expect("a store that is only full is available");
    store
        .lease("n", Duration::from_secs(10), vec![("alice".to_owned(), 1)])
        .await
        .expect("leases are renewed");
    assert_eq!(store.members(&["alice".to_owned()]).await.unwrap(), [1]);
    assert_eq!(logged(&store).await, ["before"], "reads work");
    server
        .command(&["CONFIG", "SET", "maxmemory", "0"])
        .await
        .unwrap();
    send(&store, "full").await.unwrap().unwrap();

    server
        .command(&["CONFIG", "SET", "min-replicas-to-write", "1"])
        .await
        .unwrap();
    let answer = send(&store, "lonely").await;
    assert!(is_unavailable(&answer, "NOREPLICAS"), "{answer:?}");
    server
        .command(&["CONFIG", "SET", "min-replicas-to-write", "0"])
        .await
        .unwrap();

    server
        .command(&["REPLICAOF", "127.0.0.1", "1"])
        .await
        .unwrap();
    let start = Instant::now();
    let answer = send(&store, "replica").await;
    assert!(
        is_unavailable(&answer, "") && start.elapsed() <= DEADLINE,
        "{answer:?} {:?}",
        start.elapsed()
    );
    server.command(&["REPLICAOF", "NO", "ONE"]).await.unwrap();
    until("the store comes back", || async {
        store.now().await.is_ok()
    })
    .await;
    send(&store, "after").await.unwrap().unwrap();
    assert_eq!(logged(&store).await, ["before", "full", "after"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn store_opens_before_its_server_starts() {
    let mut server = Server::start().await;
    server.kill9();
    let store = Redis::open(&server.deployment(), ALL);
    let start = Instant::now();
    assert!(is_unavailable(&send(&store, "early").await, ""));
    assert!(start.elapsed() <= DEADLINE, "{:?}", start.elapsed());
    assert!(matches!(store.check().await, Err(Unfit::Store(_))));
    server.restart().await;
    until("the store is there", || async { store.now().await.is_ok() }).await;
    send(&store, "m").await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn store_follows_a_sentinel_failover() {
    let mut sentinel = Sentinel::start().await;
    let store = Redis::open(&sentinel.deployment(), ALL);
    assert!(
        store
            .check()
            .await
            .unwrap()
            .iter()
            .all(|warning| warning.contains("append-only"))
    );
    send(&store, "before").await.unwrap().unwrap();
    let master = sentinel.master().await;
    sentinel.servers[master].kill9();
    sentinel.failed_over(master).await;
    until("the store follows", || async { store.now().await.is_ok() }).await;
    send(&store, "after").await.unwrap().unwrap();
}
