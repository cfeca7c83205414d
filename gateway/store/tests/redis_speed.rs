//! A benchmark of the CPU time that commits cost a Redis server.
//! `cargo test -p chaos-store --test redis_speed -- --ignored --nocapture`

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use fanout::record::Control;
use redis_testing::Server;
use store::{
    Append, Commit, Counter, DocumentKey, EventBody, EventSlot, Expected, Increment, IncrementSlot,
    Keep, Mark, Partition, Read, Require, Store, Table, Write, WriteSlot, redis::Redis,
};

const MESSAGES: Table = Table::numbered("messages");
const PARTICIPANTS: Table = Table::listed("participants");
const TASKS: u64 = 64;

fn put(table: Table, key: &str, value: Bytes, event: Option<EventSlot>) -> Write {
    Write::Put {
        table,
        key: DocumentKey::from(key),
        value,
        mark: Mark::None,
        event,
    }
}

fn event(body: EventBody) -> Append {
    Append {
        kind: 1,
        reference: Bytes::from_static(b"msg_0123456789abcdef"),
        control: Control::None,
        body,
    }
}

fn message(id: &str) -> Commit {
    let require = |table, key: &str, is| Require {
        table,
        key: DocumentKey::from(key),
        is,
    };
    Commit {
        require: vec![
            require(MESSAGES, id, Expected::Absent),
            require(PARTICIPANTS, "usr_1", Expected::Present),
        ],
        write: vec![put(
            MESSAGES,
            id,
            Bytes::from(vec![7; 300]),
            Some(EventSlot::nth(0)),
        )],
        append: vec![event(EventBody::Written(WriteSlot::nth(0)))],
        ..Commit::default()
    }
}

fn reaction(id: &str) -> Commit {
    let counter = Counter::Document {
        table: MESSAGES,
        key: DocumentKey::from(id),
        name: "👍".into(),
    };
    Commit {
        require: vec![Require {
            table: PARTICIPANTS,
            key: DocumentKey::from("usr_1"),
            is: Expected::Present,
        }],
        write: vec![Write::Touch {
            table: MESSAGES,
            key: DocumentKey::from(id),
            event: EventSlot::nth(0),
        }],
        increment: vec![Increment {
            counter,
            by: 1,
            max: None,
            max_names: Some(50),
        }],
        append: vec![event(EventBody::Bytes(
            Bytes::from_static(b"reacted"),
            Some(IncrementSlot::nth(0)),
        ))],
        ..Commit::default()
    }
}

/// Returns the user and system CPU time of a process in seconds.
fn cpu_seconds(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<_> = stat
        .rsplit_once(')')
        .unwrap()
        .1
        .split_ascii_whitespace()
        .collect();
    let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
    ticks / 100.0
}

async fn measure<F: Future<Output = ()> + Send>(
    server: &Server,
    what: &str,
    work: impl Fn(u64, u64) -> F + Send + Sync + 'static,
) {
    let done = Arc::new(AtomicU64::new(0));
    let work = Arc::new(work);
    server.command(&["CONFIG", "RESETSTAT"]).await.unwrap();
    let (cpu, start) = (cpu_seconds(server.pid()), Instant::now());
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            let (done, work) = (done.clone(), work.clone());
            tokio::spawn(async move {
                for n in 0.. {
                    if start.elapsed() > Duration::from_secs(4) {
                        return;
                    }
                    work(task, n).await;
                    done.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let (done, seconds) = (
        done.load(Ordering::Relaxed) as f64,
        start.elapsed().as_secs_f64(),
    );
    let cpu = (cpu_seconds(server.pid()) - cpu) / done * 1e6;
    let stats: String =
        redis::from_redis_value(server.command(&["INFO", "commandstats"]).await.unwrap()).unwrap();
    let script = stats.lines().find_map(|line| {
        line.strip_prefix("cmdstat_evalsha:")?
            .split(',')
            .nth(2)?
            .strip_prefix("usec_per_call=")
    });
    println!(
        "{what:<60} {:>8.0}/s {cpu:>6.1} µs of Redis CPU, {:>6} µs in the script",
        done / seconds,
        script.unwrap_or("?")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement of some seconds"]
async fn what_a_commit_costs() {
    let server = Server::start().await;
    let store = Arc::new(Redis::open(
        &server.deployment(),
        Keep {
            events: 10_000,
            bytes: 0,
        },
    ));
    let channels: Vec<_> = (0..1000)
        .map(|n| Partition::new(format!("channel:app_1:chn_{n}")))
        .collect();
    for channel in &channels {
        let commit = Commit {
            write: vec![put(PARTICIPANTS, "usr_1", Bytes::from(vec![1; 120]), None)],
            ..Commit::default()
        };
        store.commit(channel, commit).await.unwrap().unwrap();
    }

    let send = |prefix: u8, count: u64| {
        let (store, channels) = (store.clone(), channels.clone());
        move |task: u64, n: u64| {
            let (store, channel) = (
                store.clone(),
                channels[((task * 7919 + n) % count) as usize].clone(),
            );
            async move {
                store
                    .commit(
                        &channel,
                        message(&format!("msg_{prefix:x}{task:07x}{n:08x}")),
                    )
                    .await
                    .unwrap()
                    .unwrap();
            }
        }
    };
    measure(
        &server,
        "messages of 300 bytes, 64 tasks, 1,000 channels",
        send(0, 1000),
    )
    .await;
    measure(&server, "the same, one channel", send(1, 1)).await;
    measure(&server, "the same, its log being trimmed", send(2, 1)).await;

    let (s, c) = (store.clone(), channels.clone());
    let react = move |_, _| {
        let (store, channel) = (s.clone(), c[0].clone());
        async move {
            store
                .commit(&channel, reaction("msg_1000000000000000"))
                .await
                .unwrap()
                .unwrap();
        }
    };
    measure(&server, "reactions to one message", react).await;

    let (s, c) = (store.clone(), channels.clone());
    let snapshot = move |task: u64, n: u64| {
        let (store, partition) = (s.clone(), c[((task * 7919 + n) % 1000) as usize].clone());
        async move {
            let read = Read {
                partition,
                documents: vec![(PARTICIPANTS, DocumentKey::from("usr_1"))],
                newest: Some(MESSAGES),
            };
            assert!(store.read(vec![read]).await.unwrap()[0].newest.is_some());
        }
    };
    measure(
        &server,
        "snapshots with a document and the newest message",
        snapshot,
    )
    .await;

    let read = |partition: &Partition| Read {
        partition: partition.clone(),
        documents: vec![(PARTICIPANTS, DocumentKey::from("usr_1"))],
        newest: Some(MESSAGES),
    };
    let start = Instant::now();
    for _ in 0..20 {
        store
            .read(channels.iter().take(200).map(read).collect())
            .await
            .unwrap();
    }
    println!(
        "a read of 200 partitions, one at a time {:>31.1} ms",
        start.elapsed().as_secs_f64() * 50.0
    );
}
