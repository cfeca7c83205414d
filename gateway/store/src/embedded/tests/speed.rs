//! A benchmark that prints its results:
//! `cargo test --release -p chaos-store -- --ignored --nocapture speed`.

use std::time::{Duration, Instant};

use super::{
    folder::{PEOPLE, message},
    *,
};
use crate::{Commit, DocumentKey, Expected, Mark, Partition, Range, Require, Write};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures for some seconds"]
async fn speed_of_messages() {
    for tasks in [1, 64, 512] {
        let folder = TempDir::new_in(std::env::current_dir().unwrap()).unwrap();
        let keep = Keep {
            events: 10_000,
            bytes: 0,
        };
        let store =
            Arc::new(Embedded::open(folder.path(), keep, Local::new(Arc::new(()))).unwrap());
        let ann = DocumentKey::from("ann");
        for channel in 0..tasks {
            let put = Write::Put {
                table: PEOPLE,
                key: ann.clone(),
                value: Bytes::new(),
                mark: Mark::None,
                event: None,
            };
            let joined = Commit {
                write: vec![put],
                ..Commit::default()
            };
            store
                .commit(&channel_of(channel), joined)
                .await
                .unwrap()
                .unwrap();
        }
        let begin = Instant::now();
        let running: Vec<_> = (0..tasks)
            .map(|task| {
                let (store, ann) = (store.clone(), ann.clone());
                tokio::spawn(async move {
                    let mut latencies = Vec::new();
                    while begin.elapsed() < Duration::from_secs(4) {
                        let mut commit = message(
                            &format!("{task:03}{:020}", latencies.len()),
                            vec![b'x'; 300],
                        );
                        commit.require.push(Require {
                            table: PEOPLE,
                            key: ann.clone(),
                            is: Expected::Present,
                        });
                        let asked = Instant::now();
                        store
                            .commit(&channel_of(task), commit)
                            .await
                            .unwrap()
                            .unwrap();
                        latencies.push(asked.elapsed());
                    }
                    latencies
                })
            })
            .collect();
        let mut latencies = Vec::new();
        for task in running {
            latencies.extend(task.await.unwrap());
        }
        let took = begin.elapsed();
        latencies.sort();
        let at = |share: f64| latencies[(latencies.len() as f64 * share) as usize];
        let rate = latencies.len() as f64 / took.as_secs_f64();
        println!(
            "{tasks} committers: {rate:.0} commits/s, p50 {:?}, p99 {:?}",
            at(0.5),
            at(0.99)
        );

        let begin = Instant::now();
        let mut pages = 0u32;
        while begin.elapsed() < Duration::from_secs(1) {
            store
                .page(
                    &channel_of(pages as usize % tasks),
                    folder::MESSAGES,
                    Range::Before(None),
                    50,
                )
                .await
                .unwrap();
            pages += 1;
        }
        println!("one reader: {pages} pages of the last 50 a second");
        store.close().await;
    }
}

fn channel_of(task: usize) -> Partition {
    Partition::new(format!("channel:{task}"))
}
