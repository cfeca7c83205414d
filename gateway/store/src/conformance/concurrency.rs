//! Concurrent commits.

use std::{collections::HashSet, sync::Arc};

use super::{Bench, story::*};
use crate::{Expected, Partition, Position, Range, Store};

const TASKS: usize = 64;
const EACH: usize = 12;

/// Runs each future in a task and collects the results.
async fn together<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
    tasks: usize,
    work: impl Fn(usize) -> F,
) -> Vec<T> {
    let tasks: Vec<_> = (0..tasks).map(|task| tokio::spawn(work(task))).collect();
    let mut results = Vec::new();
    for task in tasks {
        results.push(task.await.expect("the task ends well"));
    }
    results
}

pub(crate) async fn acknowledged_events_have_unique_seqs_and_are_published_once<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.store();
    let mut listener = bench.listen(&room().topic()).await;
    let acknowledged = together(TASKS, |task| {
        let store = store.clone();
        async move {
            let mut seqs = Vec::new();
            for i in 0..EACH {
                // One event, two, or three.
                let mut batch = commit();
                for part in 0..=i % 3 {
                    batch = batch.appending(format!("{task}.{i}.{part}"));
                }
                let count = batch.append.len() as u64;
                let outcome = commits(&*store, &room(), batch).await;
                seqs.extend(
                    (outcome.first_seq..outcome.first_seq + count)
                        .enumerate()
                        .map(|(part, seq)| (seq, format!("{task}.{i}.{part}"))),
                );
            }
            seqs
        }
    })
    .await;
    let mut acknowledged: Vec<_> = acknowledged.into_iter().flatten().collect();
    acknowledged.sort();
    let total = (TASKS * EACH * 2) as u64;
    assert!(
        acknowledged.iter().map(|(seq, _)| *seq).eq(1..=total),
        "every seq is one acknowledged event's own"
    );

    let records = records_until_end(&*store, &room(), &mut listener).await;
    assert!(
        records.iter().map(|r| r.position.seq).eq(1..=total),
        "published once, in order"
    );
    assert!(
        records
            .windows(2)
            .all(|pair| pair[1].before == pair[0].position.at
                && pair[1].position.at >= pair[0].position.at)
    );
    let log = store
        .log(&room(), Position::default(), 100_000)
        .await
        .unwrap();
    for ((entry, record), (seq, reference)) in log.entries.iter().zip(&records).zip(&acknowledged) {
        assert_eq!(
            (entry.position, entry.position.seq),
            (record.position, *seq)
        );
        assert_eq!(entry.reference, reference);
    }
}

pub(crate) async fn numbers_have_no_holes_under_contention<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.store();
    let numbers = together(TASKS, |task| {
        let store = store.clone();
        async move {
            let mut numbers = Vec::new();
            for i in 0..EACH {
                let name = format!("{task}.{i}");
                let fresh = commit()
                    .requiring(MESSAGES, &name, Expected::Absent)
                    .putting(MESSAGES, &name, name.clone());
                numbers.push(
                    commits(&*store, &room(), fresh.clone()).await.written[0]
                        .stamps
                        .number,
                );
                conflicts(&*store, &room(), fresh).await;
            }
            numbers
        }
    })
    .await;
    assert!(
        numbers.iter().all(|own| own.is_sorted()),
        "each task's own come in its order"
    );
    let mut all: Vec<_> = numbers.into_iter().flatten().collect();
    all.sort_unstable();
    let total = (TASKS * EACH) as u64;
    assert!(all.iter().copied().eq(1..=total));
    let page = page(&*store, MESSAGES, Range::After(0), 10_000).await;
    assert!(page.documents.iter().map(|d| d.stamps.number).eq(1..=total));
    assert_eq!(
        page.documents
            .iter()
            .map(|d| &d.key)
            .collect::<HashSet<_>>()
            .len() as u64,
        total
    );
}

pub(crate) async fn one_of_many_commits_with_the_same_key_wins<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.store();
    for round in 0..10 {
        let name = format!("m{round}");
        let won = together(TASKS, |task| {
            let (store, name) = (store.clone(), name.clone());
            async move {
                let attempt = commit()
                    .requiring(MESSAGES, &name, Expected::Absent)
                    .putting(MESSAGES, &name, task.to_string());
                store
                    .commit(&room(), attempt)
                    .await
                    .unwrap()
                    .is_ok()
                    .then_some(task)
            }
        })
        .await;
        let won: Vec<_> = won.into_iter().flatten().collect();
        assert_eq!(won.len(), 1);
        assert_eq!(
            document(&*store, &room(), MESSAGES, &name)
                .await
                .unwrap()
                .value,
            won[0].to_string()
        );
    }
    assert_eq!(head(&*store, &room()).await.number, 10);
}

pub(crate) async fn concurrent_increments_are_not_lost<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.store();
    commits(&*store, &room(), commit().putting(MESSAGES, "m", "hi")).await;
    let limit = (TASKS * EACH / 2) as u64;
    let done_ = together(TASKS, |_| {
        let store = store.clone();
        async move {
            let mut done = 0;
            for _ in 0..EACH {
                let mut both = commit()
                    .counting("size", 1)
                    .reacting("m", "+1", 1)
                    .touching(MESSAGES, "m");
                both.increment[1].max = Some(limit);
                done += u64::from(store.commit(&room(), both).await.unwrap().is_ok());
            }
            done
        }
    })
    .await;
    assert_eq!(done_.into_iter().sum::<u64>(), limit);
    let now = read(&*store, &room(), &[(MESSAGES, "m")]).await;
    assert_eq!((now.counter("size"), now.head.seq), (limit, limit + 1));
    assert_eq!(
        now.documents[0].as_ref().unwrap().counts,
        [("+1".to_owned(), limit)]
    );
}

pub(crate) async fn partitions_are_independent<B: Bench>() {
    let bench = B::start(ALL).await;
    let store: Arc<dyn Store> = bench.store();
    let partitions: Vec<_> = (0..TASKS)
        .map(|i| Partition::new(format!("channel:{i}")))
        .collect();
    let mut listeners = Vec::new();
    for partition in &partitions {
        listeners.push(bench.listen(&partition.topic()).await);
    }
    together(TASKS, |task| {
        let (store, partition) = (store.clone(), partitions[task].clone());
        async move {
            for i in 0..EACH {
                let outcome = commits(
                    &*store,
                    &partition,
                    commit().putting(MESSAGES, &format!("m{i}"), partition.name().to_owned()),
                )
                .await;
                assert_eq!(
                    (outcome.first_seq, outcome.written[0].stamps.number),
                    (i as u64 + 1, i as u64 + 1)
                );
            }
        }
    })
    .await;
    for (partition, listener) in partitions.iter().zip(&mut listeners) {
        let records = records_until_end(&*store, partition, listener).await;
        assert!(records.iter().map(|r| r.position.seq).eq(1..=EACH as u64));
        assert!(
            records
                .iter()
                .all(|r| r.body == partition.name().as_bytes())
        );
    }
}
