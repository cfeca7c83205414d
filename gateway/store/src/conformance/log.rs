//! The log: reading from a position, continuity, trimming, timestamps.

use bytes::Bytes;

use super::{Bench, story::*};
use crate::{Commit, Continuity, Keep, LogEntry, Position, Store};

/// Commits events at least a millisecond apart, and returns their positions.
async fn append_events<B: Bench>(bench: &B, count: usize) -> Vec<Position> {
    let mut appended = Vec::new();
    for i in 0..count {
        bench.step_clock(3);
        let outcome = commits(
            &*bench.store(),
            &room(),
            commit().appending(format!("event {i}")),
        )
        .await;
        appended.push(Position {
            seq: outcome.first_seq,
            at: outcome.at,
        });
    }
    appended
}

async fn continuity(store: &dyn Store, after: Position) -> Continuity {
    let log = store.log(&room(), after, 10).await.unwrap();
    assert_eq!(log.head, head(store, &room()).await);
    if log.continuity != Continuity::Continuous {
        assert_eq!(log.entries, []);
    }
    log.continuity
}

pub(crate) async fn log_is_read_from_a_position<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.store();
    let appended = append_events(&bench, 5).await;
    let batch = commits(
        &*store,
        &room(),
        commit().putting(MESSAGES, "m", "hi").appending("second"),
    )
    .await;
    let all = store.log(&room(), Position::default(), 100).await.unwrap();
    assert_eq!(all.entries.len(), 7);
    for (i, entry) in all.entries[..5].iter().enumerate() {
        assert_eq!(
            *entry,
            LogEntry {
                position: appended[i],
                kind: 9,
                reference: Bytes::from(format!("event {i}"))
            }
        );
    }
    assert_eq!(
        all.entries[5],
        LogEntry {
            position: Position {
                seq: 6,
                at: batch.at
            },
            kind: 7,
            reference: Bytes::from("m")
        }
    );
    assert_eq!(
        all.entries[6].position,
        Position {
            seq: 7,
            at: batch.at
        }
    );
    let middle = store.log(&room(), appended[1], 2).await.unwrap();
    assert_eq!(middle.entries, all.entries[2..4]);
    assert_eq!(
        (middle.head, middle.head.position()),
        (
            all.head,
            Position {
                seq: 7,
                at: batch.at
            }
        )
    );
    let end = store.log(&room(), all.head.position(), 2).await.unwrap();
    assert_eq!(
        (end.entries, end.continuity),
        (vec![], Continuity::Continuous)
    );
    let none = store.log(&room(), appended[0], 0).await.unwrap();
    assert_eq!(
        (none.entries, none.continuity),
        (vec![], Continuity::Continuous)
    );
}

pub(crate) async fn start_is_continuous_until_events_are_trimmed<B: Bench>() {
    let bench = B::start(Keep {
        events: 3,
        bytes: 0,
    })
    .await;
    let store = bench.store();
    assert_eq!(
        continuity(&*store, Position::default()).await,
        Continuity::Continuous
    );
    append_events(&bench, 3).await;
    assert_eq!(
        continuity(&*store, Position::default()).await,
        Continuity::Continuous
    );
    append_events(&bench, 1).await;
    assert_eq!(
        continuity(&*store, Position::default()).await,
        Continuity::Trimmed
    );
}

pub(crate) async fn position_without_an_event_has_diverged<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.store();
    assert_eq!(
        continuity(&*store, Position { seq: 1, at: 5 }).await,
        Continuity::Diverged
    );
    let appended = append_events(&bench, 3).await;
    for position in &appended {
        assert_eq!(continuity(&*store, *position).await, Continuity::Continuous);
        assert_eq!(
            continuity(
                &*store,
                Position {
                    at: position.at - 1,
                    ..*position
                }
            )
            .await,
            Continuity::Diverged
        );
        assert_eq!(
            continuity(
                &*store,
                Position {
                    at: position.at + 1,
                    ..*position
                }
            )
            .await,
            Continuity::Diverged
        );
        assert_eq!(
            continuity(&*store, Position { at: 0, ..*position }).await,
            Continuity::Diverged
        );
    }
    assert_eq!(
        continuity(
            &*store,
            Position {
                seq: 4,
                at: appended[2].at
            }
        )
        .await,
        Continuity::Diverged
    );
    assert_eq!(
        continuity(
            &*store,
            Position {
                seq: u64::from(u32::MAX),
                at: appended[2].at
            }
        )
        .await,
        Continuity::Diverged
    );
}

pub(crate) async fn position_before_the_floor_is_trimmed<B: Bench>() {
    let bench = B::start(Keep {
        events: 2,
        bytes: 0,
    })
    .await;
    let store = bench.store();
    let appended = append_events(&bench, 5).await;
    assert_eq!(head(&*store, &room()).await.floor, appended[2]);
    assert_eq!(continuity(&*store, appended[0]).await, Continuity::Trimmed);
    assert_eq!(continuity(&*store, appended[1]).await, Continuity::Trimmed);
    assert_eq!(
        continuity(&*store, Position { seq: 1, at: 1 }).await,
        Continuity::Trimmed
    );
    assert_eq!(
        continuity(&*store, appended[2]).await,
        Continuity::Continuous
    );
    assert_eq!(
        continuity(
            &*store,
            Position {
                at: appended[2].at - 1,
                ..appended[2]
            }
        )
        .await,
        Continuity::Diverged
    );
    assert_eq!(
        continuity(&*store, appended[3]).await,
        Continuity::Continuous
    );
    assert_eq!(
        store
            .log(&room(), appended[2], 9)
            .await
            .unwrap()
            .entries
            .len(),
        2
    );
}

pub(crate) async fn log_is_trimmed_by_events<B: Bench>() {
    let bench = B::start(Keep {
        events: 10,
        bytes: 0,
    })
    .await;
    let store = bench.store();
    let appended = append_events(&bench, 25).await;
    assert_eq!(positions(&*store, &room()).await, appended[15..]);
    assert_eq!(head(&*store, &room()).await.floor, appended[14]);
    let batch = commits(
        &*store,
        &room(),
        commit().appending("a").appending("b").appending("c"),
    )
    .await;
    let kept = positions(&*store, &room()).await;
    assert_eq!(
        (kept.len(), kept[0], kept[9]),
        (
            10,
            appended[18],
            Position {
                seq: 28,
                at: batch.at
            }
        )
    );
    commits(&*store, &room(), commit().putting(PEOPLE, "ann", "1")).await;
    assert_eq!(
        positions(&*store, &room()).await,
        kept,
        "only events make others go"
    );
}

pub(crate) async fn log_is_trimmed_by_bytes<B: Bench>() {
    let bench = B::start(Keep {
        events: 0,
        bytes: 1_000,
    })
    .await;
    let store = bench.store();
    // Each event takes 100 bytes with its position.
    for _ in 0..10 {
        commits(&*store, &room(), commit().appending(vec![0; 84])).await;
    }
    assert_eq!(positions(&*store, &room()).await.len(), 10);
    assert_eq!(head(&*store, &room()).await.floor, Position::default());
    commits(&*store, &room(), commit().appending("")).await;
    assert_eq!(positions(&*store, &room()).await.len(), 10);
    assert_eq!(head(&*store, &room()).await.floor.seq, 1);
    commits(&*store, &room(), commit().appending(vec![0; 284])).await;
    // 11 entries of 916 + 300 bytes: three more are trimmed.
    assert_eq!(positions(&*store, &room()).await.len(), 8);
    commits(&*store, &room(), commit().appending("").appending("")).await;
    assert_eq!(
        positions(&*store, &room()).await.len(),
        10,
        "936 bytes in 10 entries"
    );
}

pub(crate) async fn newest_event_is_never_trimmed<B: Bench>() {
    let bench = B::start(Keep {
        events: 1,
        bytes: 10,
    })
    .await;
    let store = bench.store();
    for i in 1..=3 {
        let outcome = commits(&*store, &room(), commit().appending(vec![0; 100])).await;
        assert_eq!(
            positions(&*store, &room()).await,
            [Position {
                seq: i,
                at: outcome.at
            }]
        );
        assert_eq!(head(&*store, &room()).await.floor.seq, i - 1);
    }
}

pub(crate) async fn batch_longer_than_the_retention_keeps_its_end<B: Bench>() {
    let bench = B::start(Keep {
        events: 3,
        bytes: 0,
    })
    .await;
    let store = bench.store();
    let mut listener = bench.listen(&room().topic()).await;
    let mut batch = commit();
    for i in 0..8 {
        batch = batch.appending(format!("{i}"));
    }
    let outcome = commits(&*store, &room(), batch).await;
    let at = outcome.at;
    assert_eq!(
        positions(&*store, &room()).await,
        [6, 7, 8].map(|seq| Position { seq, at })
    );
    assert_eq!(head(&*store, &room()).await.floor, Position { seq: 5, at });
    assert_eq!(
        records_until_end(&*store, &room(), &mut listener)
            .await
            .len(),
        8,
        "all are published"
    );
}

pub(crate) async fn commit_can_set_its_own_retention<B: Bench>() {
    let bench = B::start(Keep {
        events: 3,
        bytes: 0,
    })
    .await;
    let store = bench.store();
    let own = |events, bytes| Commit {
        keep: Some(Keep { events, bytes }),
        ..commit().appending(vec![0; 84])
    };
    for kept in 1..=5 {
        commits(&*store, &room(), own(5, 0)).await;
        assert_eq!(positions(&*store, &room()).await.len(), kept);
    }
    commits(&*store, &room(), own(5, 0)).await;
    assert_eq!(positions(&*store, &room()).await.len(), 5);
    // A retention of any size, also in bytes.
    commits(&*store, &room(), own(0, 0)).await;
    assert_eq!(positions(&*store, &room()).await.len(), 6);
    commits(&*store, &room(), own(0, 400)).await;
    assert_eq!(positions(&*store, &room()).await.len(), 4);
    // It also applies to a commit that appends nothing or does nothing else. A commit without one
    // uses the engine's default.
    commits(
        &*store,
        &room(),
        Commit {
            keep: Some(Keep {
                events: 3,
                bytes: 0,
            }),
            ..commit().putting(PEOPLE, "ann", "1")
        },
    )
    .await;
    let newest = positions(&*store, &room()).await[1..].to_vec();
    assert_eq!(newest.len(), 2);
    let before = head(&*store, &room()).await;
    commits(
        &*store,
        &room(),
        Commit {
            keep: Some(Keep {
                events: 2,
                bytes: 0,
            }),
            ..commit()
        },
    )
    .await;
    assert_eq!(positions(&*store, &room()).await, newest);
    let after = head(&*store, &room()).await;
    assert_eq!(
        (after.position(), after.floor.seq),
        (before.position(), newest[0].seq - 1)
    );
    for _ in 0..2 {
        commits(
            &*store,
            &room(),
            Commit {
                keep: Some(Keep {
                    events: 1,
                    bytes: 0,
                }),
                ..commit()
            },
        )
        .await;
        assert_eq!(positions(&*store, &room()).await, newest[1..]);
    }
    for _ in 0..3 {
        commits(&*store, &room(), commit().appending("")).await;
    }
    commits(&*store, &room(), commit().appending("")).await;
    assert_eq!(positions(&*store, &room()).await.len(), 3);
}

pub(crate) async fn timestamps_of_a_partition_do_not_decrease<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.store();
    let mut listener = bench.listen(&room().topic()).await;
    let first = commits(&*store, &room(), commit().appending("now")).await;
    bench.step_clock(-60_000);
    let second = commits(&*store, &room(), commit().appending("then")).await;
    assert!(second.at >= first.at, "{} after {}", second.at, first.at);
    bench.step_clock(120_000);
    let third = commits(&*store, &room(), commit().appending("later")).await;
    assert!(
        third.at >= first.at + 50_000,
        "the clock is followed again: {} after {}",
        third.at,
        first.at
    );
    // A commit without events also advances the timestamp.
    bench.step_clock(60_000);
    let quiet = commits(&*store, &room(), commit().putting(PEOPLE, "ann", "1")).await;
    bench.step_clock(-60_000);
    let last = commits(
        &*store,
        &room(),
        commit().appending("last").putting(PEOPLE, "ann", "2"),
    )
    .await;
    assert!(last.at >= quiet.at, "{} after {}", last.at, quiet.at);
    let mut before = 0;
    for _ in 0..4 {
        let record = next_record(&mut listener).await;
        assert!(record.position.at >= before);
        assert_eq!(record.before, before);
        before = record.position.at;
    }
}

pub(crate) async fn references_of_any_bytes_are_preserved<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.store();
    let references = [
        Bytes::new(),
        (0..=255).collect(),
        Bytes::from_static(&[0]),
        Bytes::from("é".repeat(1_000)),
    ];
    let mut batch = commit();
    for (kind, reference) in references.iter().enumerate() {
        batch = batch.appending(reference.clone());
        batch.append[kind].kind = if kind == 0 { 255 } else { kind as u8 };
    }
    commits(&*store, &room(), batch).await;
    let log = store.log(&room(), Position::default(), 10).await.unwrap();
    assert_eq!(
        log.entries
            .iter()
            .map(|e| e.reference.clone())
            .collect::<Vec<_>>(),
        references
    );
    assert_eq!(
        log.entries.iter().map(|e| e.kind).collect::<Vec<_>>(),
        [255, 1, 2, 3]
    );
}
