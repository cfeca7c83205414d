//! Scripts: loading, guessed keys, leases and long batches.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn missing_scripts_are_loaded_again() {
    let server = Server::start().await;
    let store = Arc::new(Redis::open(&server.deployment(), ALL));
    for round in 0..3 {
        let sent: Vec<_> = (0..32)
            .map(|n| {
                let store = store.clone();
                tokio::spawn(async move {
                    send(&store, &format!("{round}.{n}"))
                        .await
                        .unwrap()
                        .unwrap()
                })
            })
            .collect();
        server.command(&["SCRIPT", "FLUSH"]).await.unwrap();
        for one in sent {
            one.await.unwrap();
        }
    }
    let logged = logged(&store).await;
    assert_eq!(
        (logged.len(), logged.iter().collect::<HashSet<_>>().len()),
        (96, 96)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn numbers_of_two_nodes_have_no_holes() {
    let server = Server::start().await;
    let nodes = [(); 2].map(|()| Arc::new(Redis::open(&server.deployment(), ALL)));
    let sent: Vec<_> = (0..8)
        .map(|task| {
            let node = nodes[task % 2].clone();
            tokio::spawn(async move {
                for batch in 0..9 {
                    let ids: Vec<_> = (0..31).map(|n| format!("{task}.{batch}.{n}")).collect();
                    node.commit(&room(), messages(ids.iter().map(String::as_str)))
                        .await
                        .unwrap()
                        .unwrap();
                }
            })
        })
        .collect();
    for one in sent {
        one.await.unwrap();
    }
    let (page, head) = nodes[0]
        .page(&room(), MESSAGES, Range::After(0), 10_000)
        .await
        .unwrap();
    let numbers: Vec<_> = page.documents.iter().map(|d| d.stamps.number).collect();
    assert_eq!(numbers, (1..=8 * 9 * 31).collect::<Vec<_>>());
    assert_eq!(head.number, 8 * 9 * 31);
    // A node without hints finds the documents, including the newest.
    let new_node = Redis::open(&server.deployment(), ALL);
    let documents = vec![
        (MESSAGES, DocumentKey::from("0.0.0")),
        (MESSAGES, DocumentKey::from("7.8.30")),
        (MESSAGES, DocumentKey::from("none")),
    ];
    let found = new_node
        .read(vec![Read {
            partition: room(),
            documents,
            newest: Some(MESSAGES),
        }])
        .await
        .unwrap()
        .remove(0);
    assert_eq!(
        found
            .documents
            .iter()
            .map(Option::is_some)
            .collect::<Vec<_>>(),
        [true, true, false]
    );
    assert_eq!(found.newest.unwrap().stamps.number, 8 * 9 * 31);
    let (changed, _) = new_node
        .page(&room(), MESSAGES, Range::Changed(8 * 9 * 31 - 3), 10)
        .await
        .unwrap();
    assert_eq!(changed.documents.len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_of_an_ended_and_renewed_lease_are_swept_once() {
    let server = Server::start().await;
    let store = Redis::open(&server.deployment(), ALL);
    assert!(
        !store
            .lease(
                "n1",
                Duration::from_millis(50),
                vec![("ann".into(), 1), ("bob".into(), 2)]
            )
            .await
            .unwrap()
    );
    until("the lease ends", || async {
        store.members(&["ann".into()]).await.unwrap() == [0]
    })
    .await;
    assert!(
        !store
            .lease("n1", Duration::from_secs(60), vec![("ann".into(), 1)])
            .await
            .unwrap()
    );
    assert_eq!(
        store.members(&["ann".into(), "bob".into()]).await.unwrap(),
        [1, 0]
    );
    let mut swept = store.sweep().await.unwrap();
    swept.sort();
    assert_eq!(swept, ["ann", "bob"]);
    assert_eq!(store.sweep().await.unwrap(), [""; 0]);
    assert_eq!(store.members(&["ann".into()]).await.unwrap(), [1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batch_can_be_longer_than_lua_can_unpack() {
    let server = Server::start().await;
    let store = Redis::open(&server.deployment(), ALL);
    let ids: Vec<_> = (0..9_500).map(|n| format!("{n}")).collect();
    let people = Table::listed("people");
    let mut commit = messages([]);
    for id in &ids {
        let put = Write::Put {
            table: people,
            key: DocumentKey::from(id.as_str()),
            value: Bytes::new(),
            mark: Mark::None,
            event: None,
        };
        commit.write.push(put);
        let reference = Bytes::copy_from_slice(id.as_bytes());
        commit.append.push(Append {
            kind: 1,
            reference,
            control: Control::None,
            body: EventBody::Bytes(Bytes::new(), None),
        });
    }
    store.commit(&room(), commit).await.unwrap().unwrap();
    assert_eq!(logged(&store).await, ids);
    let (page, _) = store
        .page(&room(), people, Range::Keys { after: None }, 4_000)
        .await
        .unwrap();
    assert_eq!((page.documents.len(), page.more), (4_000, true));
}
