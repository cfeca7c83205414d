//! The Redis store on a Cluster whose slots move while it is used.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use fanout::{
    Position,
    record::{Control, Record},
    redis::{
        Replicas, channel, slot,
        testing::{Cluster, until},
    },
};
use gateway::store::{
    Append, Body, Commit, Counter, Expected, Increment, Keep, Key, Mark, Partition, Range, Require,
    Store, StoreError, Table, Write, redis::Redis,
};

const MESSAGES: Table = Table::numbered("messages");
const PEOPLE: Table = Table::listed("people");
const ALL: Keep = Keep {
    events: 0,
    bytes: 0,
};

fn room() -> Partition {
    Partition::new("channel:room")
}

/// A new message, a new person and a count: as many keys as a commit may touch.
fn message(id: &str) -> Commit {
    let put = |table, event| Write::Put {
        table,
        key: Key::from(id),
        value: Bytes::from("hi"),
        mark: Mark::None,
        event,
    };
    Commit {
        require: vec![Require {
            table: MESSAGES,
            key: Key::from(id),
            is: Expected::Absent,
        }],
        write: vec![put(MESSAGES, Some(0)), put(PEOPLE, None)],
        increment: vec![Increment {
            counter: Counter::Partition("sent"),
            by: 1,
            max: None,
            max_names: None,
        }],
        append: vec![Append {
            kind: 1,
            reference: Bytes::copy_from_slice(id.as_bytes()),
            control: Control::None,
            body: Body::Written(0),
        }],
        ..Commit::default()
    }
}

/// How often the masters were asked to wait for replicas.
async fn waits(cluster: &Cluster) -> u64 {
    let mut waits = 0;
    for master in &cluster.masters {
        let text: String =
            redis::from_redis_value(master.command(&["INFO", "commandstats"]).await.unwrap())
                .unwrap();
        let calls = text.lines().find_map(|line| {
            line.strip_prefix("cmdstat_wait:calls=")?
                .split(',')
                .next()?
                .parse::<u64>()
                .ok()
        });
        waits += calls.unwrap_or(0);
    }
    waits
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_cluster_the_replicas_of_each_master_are_waited_for_and_many_commits_share_a_wait() {
    const COMMITS: usize = 600;
    let cluster = Cluster::start_with_replicas(3).await;
    let replicas = Some(Replicas {
        count: 1,
        timeout: Duration::from_secs(1),
    });
    let store = Redis::open_with(&cluster.deployment(), ALL, replicas);
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

    // One master alone goes without its replica: what lies there is not acknowledged, all else is.
    let deaf = cluster.owner(slot(&channel("channel:room-0"))).await;
    cluster.replicas[deaf].stop();
    let mut unconfirmed = 0;
    for n in 0..10 {
        let is_deaf = cluster.owner(slot(&channel(room(n).name()))).await == deaf;
        let committed = store.commit(&room(n), message("second")).await;
        assert_eq!(
            matches!(committed, Err(StoreError::Unavailable(_))),
            is_deaf,
            "{committed:?}"
        );
        unconfirmed += usize::from(is_deaf);
    }
    cluster.replicas[deaf].cont();
    assert!((1..10).contains(&unconfirmed), "{unconfirmed}");
    // It is there, and found once the replica has it.
    let again = store.commit(&room(0), message("second")).await.unwrap();
    assert!(again.is_err(), "the id is taken: {again:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_a_slot_moves_its_replicas_and_those_of_its_neighbours_are_waited_for_all_the_same() {
    let cluster = Cluster::start_with_replicas(3).await;
    let replicas = Some(Replicas {
        count: 1,
        timeout: Duration::from_secs(1),
    });
    let store = Redis::open_with(&cluster.deployment(), ALL, replicas);
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
    // One that makes no key: while a slot moves, others may wait for its arrival.
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
    // All of it is at the other one by now, which does not have the slot yet.
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_go_on_while_their_slot_moves_and_none_is_half_done() {
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
        // Some commits find the slot in each of its states.
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
    let told: Vec<_> = log
        .entries
        .iter()
        .map(|e| String::from_utf8(e.reference.to_vec()).unwrap())
        .collect();
    for (id, seq) in &acknowledged {
        assert_eq!(
            told.get(*seq as usize - 1),
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
        (told.clone(), told.len() as u64, told.len() as u64),
        "each event has its message, in order"
    );
    let (mut people, mut told) = (
        store
            .page(&room(), PEOPLE, Range::Keys { after: None }, 1_000_000)
            .await
            .unwrap()
            .0
            .documents,
        told,
    );
    people.sort_by(|a, b| a.key.cmp(&b.key));
    told.sort();
    assert_eq!(
        people.iter().map(|d| d.key.to_string()).collect::<Vec<_>>(),
        told,
        "and its person"
    );
    let read = gateway::store::Read {
        partition: room(),
        documents: vec![],
        newest: None,
    };
    assert_eq!(
        store.read(vec![read]).await.unwrap()[0].counter("sent"),
        told.len() as u64,
        "and is counted"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_of_a_moving_slot_reaches_the_listeners_at_its_owner() {
    let cluster = Cluster::start(2).await;
    let store = Redis::open(&cluster.deployment(), ALL);
    let edit = |value: &'static str| Commit {
        write: vec![Write::Put {
            table: MESSAGES,
            key: Key::from("m"),
            value: Bytes::from(value),
            mark: Mark::Edited,
            event: Some(0),
        }],
        append: vec![Append {
            kind: 2,
            reference: Bytes::new(),
            control: Control::Except(Bytes::from_static(b"ann")),
            body: Body::Written(0),
        }],
        ..Commit::default()
    };
    let react = Increment {
        counter: Counter::Document {
            table: MESSAGES,
            key: Key::from("m"),
            name: "👍".into(),
        },
        by: 2,
        max: None,
        max_names: None,
    };
    let reacted = || Commit {
        write: vec![Write::Touch {
            table: MESSAGES,
            key: Key::from("m"),
            event: 0,
        }],
        increment: vec![react.clone()],
        append: vec![Append {
            kind: 3,
            reference: Bytes::new(),
            control: Control::None,
            body: Body::Bytes("r".into(), Some(0)),
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
async fn many_partitions_are_read_over_all_shards() {
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
    let stranger = Redis::open(&cluster.deployment(), ALL);
    let read = |partition: &Partition| gateway::store::Read {
        partition: partition.clone(),
        documents: vec![],
        newest: Some(MESSAGES),
    };
    for store in [&store, &stranger] {
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
