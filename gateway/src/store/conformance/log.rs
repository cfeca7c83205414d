//! The log: reading on from a position, continuity, trimming, time.

use bytes::Bytes;

use super::{Bench, story::*};
use crate::store::{Commit, Continuity, Entry, Keep, Position, Store};

/// Commits one event after the other, a millisecond apart at least; their positions.
async fn tell<B: Bench>(bench: &B, count: usize) -> Vec<Position> {
    let mut told = Vec::new();
    for i in 0..count {
        bench.step_clock(3);
        let outcome = done(
            &*bench.store(),
            &room(),
            commit().telling(format!("event {i}")),
        )
        .await;
        told.push(Position {
            seq: outcome.first_seq,
            at: outcome.at,
        });
    }
    told
}

async fn continuity(store: &dyn Store, after: Position) -> Continuity {
    let log = store.log(&room(), after, 10).await.unwrap();
    assert_eq!(log.head, head(store, &room()).await);
    if log.continuity != Continuity::Continuous {
        assert_eq!(log.entries, []);
    }
    log.continuity
}

pub(crate) async fn the_log_reads_on_from_a_position<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.store();
    let told = tell(&bench, 5).await;
    let batch = done(
        &*store,
        &room(),
        commit().putting(MESSAGES, "m", "hi").telling("second"),
    )
    .await;
    let all = store.log(&room(), Position::default(), 100).await.unwrap();
    assert_eq!(all.entries.len(), 7);
    for (i, entry) in all.entries[..5].iter().enumerate() {
        assert_eq!(
            *entry,
            Entry {
                position: told[i],
                kind: 9,
                reference: Bytes::from(format!("event {i}"))
            }
        );
    }
    assert_eq!(
        all.entries[5],
        Entry {
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
    let middle = store.log(&room(), told[1], 2).await.unwrap();
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
    let none = store.log(&room(), told[0], 0).await.unwrap();
    assert_eq!(
        (none.entries, none.continuity),
        (vec![], Continuity::Continuous)
    );
}

pub(crate) async fn the_beginning_is_continuous_until_something_is_trimmed<B: Bench>() {
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
    tell(&bench, 3).await;
    assert_eq!(
        continuity(&*store, Position::default()).await,
        Continuity::Continuous
    );
    tell(&bench, 1).await;
    assert_eq!(
        continuity(&*store, Position::default()).await,
        Continuity::Trimmed
    );
}

pub(crate) async fn a_position_where_no_event_stands_has_diverged<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.store();
    assert_eq!(
        continuity(&*store, Position { seq: 1, at: 5 }).await,
        Continuity::Diverged
    );
    let told = tell(&bench, 3).await;
    for position in &told {
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
                at: told[2].at
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
                at: told[2].at
            }
        )
        .await,
        Continuity::Diverged
    );
}

pub(crate) async fn a_position_before_the_floor_is_trimmed<B: Bench>() {
    let bench = B::start(Keep {
        events: 2,
        bytes: 0,
    })
    .await;
    let store = bench.store();
    let told = tell(&bench, 5).await;
    assert_eq!(head(&*store, &room()).await.floor, told[2]);
    assert_eq!(continuity(&*store, told[0]).await, Continuity::Trimmed);
    assert_eq!(continuity(&*store, told[1]).await, Continuity::Trimmed);
    assert_eq!(
        continuity(&*store, Position { seq: 1, at: 1 }).await,
        Continuity::Trimmed
    );
    assert_eq!(continuity(&*store, told[2]).await, Continuity::Continuous);
    assert_eq!(
        continuity(
            &*store,
            Position {
                at: told[2].at - 1,
                ..told[2]
            }
        )
        .await,
        Continuity::Diverged
    );
    assert_eq!(continuity(&*store, told[3]).await, Continuity::Continuous);
    assert_eq!(
        store.log(&room(), told[2], 9).await.unwrap().entries.len(),
        2
    );
}

pub(crate) async fn the_log_is_trimmed_by_events<B: Bench>() {
    let bench = B::start(Keep {
        events: 10,
        bytes: 0,
    })
    .await;
    let store = bench.store();
    let told = tell(&bench, 25).await;
    assert_eq!(positions(&*store, &room()).await, told[15..]);
    assert_eq!(head(&*store, &room()).await.floor, told[14]);
    let batch = done(
        &*store,
        &room(),
        commit().telling("a").telling("b").telling("c"),
    )
    .await;
    let kept = positions(&*store, &room()).await;
    assert_eq!(
        (kept.len(), kept[0], kept[9]),
        (
            10,
            told[18],
            Position {
                seq: 28,
                at: batch.at
            }
        )
    );
    done(&*store, &room(), commit().putting(PEOPLE, "ann", "1")).await;
    assert_eq!(
        positions(&*store, &room()).await,
        kept,
        "only events make others go"
    );
}

pub(crate) async fn the_log_is_trimmed_by_bytes<B: Bench>() {
    let bench = B::start(Keep {
        events: 0,
        bytes: 1_000,
    })
    .await;
    let store = bench.store();
    // Each takes 100 bytes with its position.
    for _ in 0..10 {
        done(&*store, &room(), commit().telling(vec![0; 84])).await;
    }
    assert_eq!(positions(&*store, &room()).await.len(), 10);
    assert_eq!(head(&*store, &room()).await.floor, Position::default());
    done(&*store, &room(), commit().telling("")).await;
    assert_eq!(positions(&*store, &room()).await.len(), 10);
    assert_eq!(head(&*store, &room()).await.floor.seq, 1);
    done(&*store, &room(), commit().telling(vec![0; 284])).await;
    // 11 entries of 916 + 300 bytes: three more go.
    assert_eq!(positions(&*store, &room()).await.len(), 8);
    done(&*store, &room(), commit().telling("").telling("")).await;
    assert_eq!(
        positions(&*store, &room()).await.len(),
        10,
        "936 bytes in 10 entries"
    );
}

pub(crate) async fn the_newest_event_is_never_trimmed<B: Bench>() {
    let bench = B::start(Keep {
        events: 1,
        bytes: 10,
    })
    .await;
    let store = bench.store();
    for i in 1..=3 {
        let outcome = done(&*store, &room(), commit().telling(vec![0; 100])).await;
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

pub(crate) async fn a_batch_longer_than_the_log_leaves_its_end<B: Bench>() {
    let bench = B::start(Keep {
        events: 3,
        bytes: 0,
    })
    .await;
    let store = bench.store();
    let mut listener = bench.listen(&room().topic()).await;
    let mut batch = commit();
    for i in 0..8 {
        batch = batch.telling(format!("{i}"));
    }
    let outcome = done(&*store, &room(), batch).await;
    let at = outcome.at;
    assert_eq!(
        positions(&*store, &room()).await,
        [6, 7, 8].map(|seq| Position { seq, at })
    );
    assert_eq!(head(&*store, &room()).await.floor, Position { seq: 5, at });
    assert_eq!(
        all_heard(&*store, &room(), &mut listener).await.len(),
        8,
        "all are published"
    );
}

pub(crate) async fn a_commit_may_bring_its_own_bound<B: Bench>() {
    let bench = B::start(Keep {
        events: 3,
        bytes: 0,
    })
    .await;
    let store = bench.store();
    let own = |events, bytes| Commit {
        keep: Some(Keep { events, bytes }),
        ..commit().telling(vec![0; 84])
    };
    for kept in 1..=5 {
        done(&*store, &room(), own(5, 0)).await;
        assert_eq!(positions(&*store, &room()).await.len(), kept);
    }
    done(&*store, &room(), own(5, 0)).await;
    assert_eq!(positions(&*store, &room()).await.len(), 5);
    // Of any size, and by bytes.
    done(&*store, &room(), own(0, 0)).await;
    assert_eq!(positions(&*store, &room()).await.len(), 6);
    done(&*store, &room(), own(0, 400)).await;
    assert_eq!(positions(&*store, &room()).await.len(), 4);
    // One that appends nothing trims nothing, and one without a bound has the engine's.
    done(
        &*store,
        &room(),
        Commit {
            keep: Some(Keep {
                events: 1,
                bytes: 0,
            }),
            ..commit().putting(PEOPLE, "ann", "1")
        },
    )
    .await;
    assert_eq!(positions(&*store, &room()).await.len(), 4);
    done(&*store, &room(), commit().telling("")).await;
    assert_eq!(positions(&*store, &room()).await.len(), 3);
}

pub(crate) async fn time_never_runs_backwards_in_a_partition<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.store();
    let mut listener = bench.listen(&room().topic()).await;
    let first = done(&*store, &room(), commit().telling("now")).await;
    bench.step_clock(-60_000);
    let second = done(&*store, &room(), commit().telling("then")).await;
    assert!(second.at >= first.at, "{} after {}", second.at, first.at);
    bench.step_clock(120_000);
    let third = done(&*store, &room(), commit().telling("later")).await;
    assert!(
        third.at >= first.at + 50_000,
        "the clock is followed again: {} after {}",
        third.at,
        first.at
    );
    // A commit without events counts as well.
    bench.step_clock(60_000);
    let quiet = done(&*store, &room(), commit().putting(PEOPLE, "ann", "1")).await;
    bench.step_clock(-60_000);
    let last = done(
        &*store,
        &room(),
        commit().telling("last").putting(PEOPLE, "ann", "2"),
    )
    .await;
    assert!(last.at >= quiet.at, "{} after {}", last.at, quiet.at);
    let mut before = 0;
    for _ in 0..4 {
        let record = heard(&mut listener).await;
        assert!(record.position.at >= before);
        assert_eq!(record.before, before);
        before = record.position.at;
    }
}

pub(crate) async fn references_of_any_bytes_come_back<B: Bench>() {
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
        batch = batch.telling(reference.clone());
        batch.append[kind].kind = if kind == 0 { 255 } else { kind as u8 };
    }
    done(&*store, &room(), batch).await;
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
