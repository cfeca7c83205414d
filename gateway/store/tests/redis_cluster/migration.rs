//! Slot migrations, and reads over all shards.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_stay_atomic_during_a_slot_migration() {
    let cluster = Cluster::start(3).await;
    let store = Arc::new(Redis::open(&cluster.deployment(), ALL));
    let over = Arc::new(AtomicBool::new(false));
    let senders: Vec<_> = (0..8)
        .map(|task| {
            let (store, over) = (store.clone(), over.clone());
            tokio::spawn(async move {
                let mut acknowledged = HashMap::new();
                for n in 0.. {
                    if over.load(Ordering::Relaxed) {
                        break;
                    }
                    let id = format!("{task}.{n}");
                    if let Ok(done) = store.commit(&room(), message(&id)).await {
                        acknowledged.insert(id, done.unwrap().first_seq);
                    }
                }
                acknowledged
            })
        })
        .collect();
    let number = slot(&channel(room().name()));
    for to in [0, 1, 2, 0, 1, 2] {
        let from = cluster.owner(number).await;
        if from == to {
            continue;
        }
        let before = store
            .log(&room(), Position::default(), 0)
            .await
            .map_or(0, |log| log.head.seq);
        cluster.begin_migration(number, from, to).await;
        // Commits run in each state of the migration.
        tokio::time::sleep(Duration::from_millis(30)).await;
        cluster.move_keys(number, from, to).await;
        tokio::time::sleep(Duration::from_millis(30)).await;
        cluster.finish_migration(number, from, to).await;
        until("commits go on", || async {
            store
                .log(&room(), Position::default(), 0)
                .await
                .is_ok_and(|log| log.head.seq > before + 100)
        })
        .await;
    }
    over.store(true, Ordering::Relaxed);
    let mut acknowledged = HashMap::new();
    for sender in senders {
        acknowledged.extend(sender.await.unwrap());
    }

    let log = store
        .log(&room(), Position::default(), 1_000_000)
        .await
        .unwrap();
    let logged: Vec<_> = log
        .entries
        .iter()
        .map(|e| String::from_utf8(e.reference.to_vec()).unwrap())
        .collect();
    for (id, seq) in &acknowledged {
        assert_eq!(
            logged.get(*seq as usize - 1),
            Some(id),
            "every acknowledged one is there, where it was said to be"
        );
    }
    assert!(
        acknowledged.len() > 500,
        "{} were acknowledged",
        acknowledged.len()
    );
    let (page, head) = store
        .page(&room(), MESSAGES, Range::After(0), 1_000_000)
        .await
        .unwrap();
    let kept: Vec<_> = page.documents.iter().map(|d| d.key.to_string()).collect();
    assert_eq!(
        (kept, head.number, head.seq),
        (logged.clone(), logged.len() as u64, logged.len() as u64),
        "each event has its message, in order"
    );
    let (mut people, mut logged) = (
        store
            .page(&room(), PEOPLE, Range::Keys { after: None }, 1_000_000)
            .await
            .unwrap()
            .0
            .documents,
        logged,
    );
    people.sort_by(|a, b| a.key.cmp(&b.key));
    logged.sort();
    assert_eq!(
        people.iter().map(|d| d.key.to_string()).collect::<Vec<_>>(),
        logged,
        "and its person"
    );
    let read = store::Read {
        partition: room(),
        documents: vec![],
        newest: None,
    };
    assert_eq!(
        store.read(vec![read]).await.unwrap()[0].counter("sent"),
        logged.len() as u64,
        "and is counted"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn record_of_a_migrating_slot_reaches_subscribers_of_its_owner() {
    let cluster = Cluster::start(2).await;
    let store = Redis::open(&cluster.deployment(), ALL);
    let edit = |value: &'static str| Commit {
        write: vec![Write::Put {
            table: MESSAGES,
            key: DocumentKey::from("m"),
            value: Bytes::from(value),
            mark: Mark::Edited,
            event: Some(EventSlot::nth(0)),
        }],
        append: vec![Append {
            kind: 2,
            reference: Bytes::new(),
            control: Control::Except(Bytes::from_static(b"ann")),
            body: EventBody::Written(WriteSlot::nth(0)),
        }],
        ..Commit::default()
    };
    let react = Increment {
        counter: Counter::Document {
            table: MESSAGES,
            key: DocumentKey::from("m"),
            name: "👍".into(),
        },
        by: 2,
        max: None,
        max_names: None,
    };
    let reacted = || Commit {
        write: vec![Write::Touch {
            table: MESSAGES,
            key: DocumentKey::from("m"),
            event: EventSlot::nth(0),
        }],
        increment: vec![react.clone()],
        append: vec![Append {
            kind: 3,
            reference: Bytes::new(),
            control: Control::None,
            body: EventBody::Bytes("r".into(), Some(IncrementSlot::nth(0))),
        }],
        ..Commit::default()
    };
    store.commit(&room(), edit("first")).await.unwrap().unwrap();
    store.commit(&room(), reacted()).await.unwrap().unwrap();

    let number = slot(&channel(room().name()));
    let from = cluster.owner(number).await;
    let to = 1 - from;
    let (pushed, mut pushes) = tokio::sync::mpsc::unbounded_channel();
    let config = redis::AsyncConnectionConfig::new().set_push_sender(pushed);
    let client = redis::Client::open(format!(
        "redis://127.0.0.1:{}/?protocol=resp3",
        cluster.masters[from].port()
    ))
    .unwrap();
    let mut connection = client
        .get_multiplexed_async_connection_with_config(&config)
        .await
        .unwrap();
    redis::cmd("SSUBSCRIBE")
        .arg(channel(room().name()))
        .exec_async(&mut connection)
        .await
        .unwrap();
    cluster.begin_migration(number, from, to).await;
    cluster.move_keys(number, from, to).await;

    let edited = store
        .commit(&room(), edit("second"))
        .await
        .unwrap()
        .unwrap();
    let reacted = store.commit(&room(), reacted()).await.unwrap().unwrap();
    store
        .publish(
            &room().topic(),
            Record::passing(9, Control::None, "typing".into()).encode(),
        )
        .await
        .unwrap();
    let mut records = Vec::new();
    while records.len() < 3 {
        let push = tokio::time::timeout(Duration::from_secs(5), pushes.recv())
            .await
            .expect("it is heard")
            .unwrap();
        if let (redis::PushKind::SMessage, Some(redis::Value::BulkString(bytes))) =
            (push.kind, push.data.into_iter().nth(1))
        {
            records.push(Record::decode(bytes.into()).unwrap());
        }
    }
    let [edit, reaction, typing] = <[Record; 3]>::try_from(records).unwrap();
    assert_eq!(
        (edit.position, edit.stamps),
        (
            Position {
                seq: 3,
                at: edited.at
            },
            edited.written[0].stamps
        )
    );
    assert_eq!(
        (&edit.body[..], edit.control),
        (&b"second"[..], Control::Except("ann".into()))
    );
    assert_eq!(
        edit.counts.as_deref(),
        Some(&b"\x81\xa4\xf0\x9f\x91\x8d\x02"[..]),
        "a map from thumbs-up to 2"
    );
    assert_eq!(
        (reaction.position, reaction.before, reaction.count),
        (
            Position {
                seq: 4,
                at: reacted.at
            },
            edited.at,
            Some(4)
        )
    );
    assert!(!typing.is_durable());
    cluster.finish_migration(number, from, to).await;
    until("the new owner serves it", || async {
        store
            .log(&room(), Position::default(), 9)
            .await
            .is_ok_and(|log| log.entries.len() == 4)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_of_many_partitions_span_all_shards() {
    let cluster = Cluster::start(3).await;
    let store = Redis::open(&cluster.deployment(), ALL);
    assert!(
        store
            .check()
            .await
            .unwrap()
            .iter()
            .all(|warning| warning.contains("append-only"))
    );
    let partitions: Vec<_> = (0..200)
        .map(|n| Partition::new(format!("channel:{n}")))
        .collect();
    for (n, partition) in partitions.iter().enumerate() {
        for m in 0..=n % 3 {
            store
                .commit(partition, message(&format!("{m}")))
                .await
                .unwrap()
                .unwrap();
        }
    }
    let new_node = Redis::open(&cluster.deployment(), ALL);
    let read = |partition: &Partition| store::Read {
        partition: partition.clone(),
        documents: vec![],
        newest: Some(MESSAGES),
    };
    for store in [&store, &new_node] {
        let found = store
            .read(partitions.iter().map(read).collect())
            .await
            .unwrap();
        for (n, snapshot) in found.iter().enumerate() {
            assert_eq!(
                snapshot.newest.as_ref().map(|d| d.stamps.number),
                Some(n as u64 % 3 + 1)
            );
        }
    }
}
