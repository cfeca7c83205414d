//! Published records.

use bytes::{BufMut, Bytes, BytesMut};
use fanout::{
    Position,
    record::{Control, Record, Stamps},
};

use super::{Bench, story::*};
use crate::{Append, Commit, EventBody, Expected, IncrementSlot, Mark, WriteSlot};

pub(crate) async fn batch_is_published_in_order_and_once<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.store();
    let mut listener = bench.listen(&room().topic()).await;
    let mut batch = commit();
    for i in 0..20u8 {
        let body = EventBody::Bytes(Bytes::from(vec![i; usize::from(i)]), None);
        batch.append.push(Append {
            kind: i,
            reference: Bytes::from_static(b"ref"),
            control: Control::None,
            body,
        });
    }
    let outcome = commits(&*store, &room(), batch).await;
    let records = records_until_end(&*store, &room(), &mut listener).await;
    assert_eq!(records.len(), 20);
    for (i, record) in records.into_iter().enumerate() {
        let expected = Record {
            kind: i as u8,
            position: Position {
                seq: outcome.first_seq + i as u64,
                at: outcome.at,
            },
            before: if i == 0 { 0 } else { outcome.at },
            body: Bytes::from(vec![i as u8; i]),
            ..Record::default()
        };
        assert_eq!(record, expected);
    }
}

pub(crate) async fn record_has_the_timestamp_of_the_previous_event<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.store();
    let mut listener = bench.listen(&room().topic()).await;
    let mut before = 0;
    for _ in 0..5 {
        bench.step_clock(7);
        let outcome = commits(&*store, &room(), commit().appending("x").counting("n", 1)).await;
        let record = next_record(&mut listener).await;
        assert_eq!(
            (record.before, record.position),
            (
                before,
                Position {
                    seq: outcome.first_seq,
                    at: outcome.at
                }
            )
        );
        bench.step_clock(7);
        // A commit without events does not change `before` of the next record.
        commits(&*store, &room(), commit().counting("n", 1)).await;
        before = outcome.at;
    }
}

pub(crate) async fn written_document_is_published_with_its_stamps<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.store();
    let mut listener = bench.listen(&room().topic()).await;
    let made = commits(
        &*store,
        &room(),
        commit().appending("first").putting(MESSAGES, "m", "hi"),
    )
    .await;
    next_record(&mut listener).await;
    let expected = Record {
        kind: 7,
        position: Position {
            seq: 2,
            at: made.at,
        },
        before: made.at,
        stamps: Stamps {
            number: 1,
            seq: 2,
            created_at: made.at,
            edited_at: 0,
            deleted_at: 0,
        },
        body: Bytes::from("hi"),
        ..Record::default()
    };
    assert_eq!(next_record(&mut listener).await, expected);
    bench.step_clock(5);
    let edited = commits(
        &*store,
        &room(),
        commit().marking(MESSAGES, "m", "ho", Mark::Edited),
    )
    .await;
    let record = next_record(&mut listener).await;
    assert_eq!(
        record.stamps,
        Stamps {
            seq: 3,
            edited_at: edited.at,
            ..expected.stamps
        }
    );
    assert_eq!((record.before, &record.body[..]), (made.at, &b"ho"[..]));
    let deleted = commits(
        &*store,
        &room(),
        commit().marking(MESSAGES, "m", "", Mark::Deleted),
    )
    .await;
    let record = next_record(&mut listener).await;
    assert_eq!(
        record.stamps,
        Stamps {
            seq: 4,
            edited_at: edited.at,
            deleted_at: deleted.at,
            ..expected.stamps
        }
    );
    assert_eq!(record.body, "");

    // A document of another table, put by the second write and published by the first event.
    let mut person = commit()
        .putting(FACTS, "f", "fact")
        .putting(PEOPLE, "ann", "person");
    person.append.push(Append {
        kind: 3,
        reference: Bytes::new(),
        control: Control::None,
        body: EventBody::Written(WriteSlot::nth(1)),
    });
    let person = commits(&*store, &room(), person).await;
    let record = next_record(&mut listener).await;
    assert_eq!((record.kind, &record.body[..]), (3, &b"person"[..]));
    assert_eq!(
        record.stamps,
        Stamps {
            created_at: person.at,
            ..Stamps::default()
        }
    );
}

pub(crate) async fn written_document_is_published_with_its_counters<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.store();
    let mut listener = bench.listen(&room().topic()).await;
    commits(&*store, &room(), commit().putting(MESSAGES, "m", "hi")).await;
    assert_eq!(next_record(&mut listener).await.counts, None);
    // Every width of a MessagePack integer, and names below and above the limit of a short string.
    let widths = [
        1u64,
        127,
        128,
        255,
        256,
        65_535,
        65_536,
        4_294_967_295,
        4_294_967_296,
        (1 << 53) - 1,
    ];
    let mut names: Vec<String> = widths.iter().map(|n| format!("n{n}")).collect();
    names.extend(["Z", "é", "👍🏽", "{x}"].map(str::to_owned));
    names.extend(["x".repeat(31), "y".repeat(32), "z".repeat(64)]);
    let mut counts = Vec::new();
    for (i, name) in names.iter().enumerate() {
        counts.push((name.clone(), widths[i % widths.len()]));
        commits(
            &*store,
            &room(),
            commit().reacting("m", name, widths[i % widths.len()] as i64),
        )
        .await;
        commits(
            &*store,
            &room(),
            commit().marking(MESSAGES, "m", "ho", Mark::Edited),
        )
        .await;
        counts.sort();
        assert_eq!(
            next_record(&mut listener).await.counts,
            Some(map(&counts)),
            "{} names",
            counts.len()
        );
    }
    // Increment and edit in one commit: the record has the state after the commit.
    commits(
        &*store,
        &room(),
        commit()
            .marking(MESSAGES, "m", "hm", Mark::Edited)
            .reacting("m", "n1", -1),
    )
    .await;
    counts.retain(|(name, _)| name != "n1");
    assert_eq!(next_record(&mut listener).await.counts, Some(map(&counts)));
}

fn map(counts: &[(String, u64)]) -> Bytes {
    let mut out = BytesMut::new().writer();
    rmp::encode::write_map_len(&mut out, counts.len() as u32).unwrap();
    for (name, count) in counts {
        rmp::encode::write_str(&mut out, name).unwrap();
        rmp::encode::write_uint(&mut out, *count).unwrap();
    }
    out.into_inner().freeze()
}

pub(crate) async fn bytes_are_published_with_the_count<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.store();
    let mut listener = bench.listen(&room().topic()).await;
    commits(&*store, &room(), commit().putting(MESSAGES, "m", "hi")).await;
    next_record(&mut listener).await;
    for (by, count) in [
        (1, 1),
        (1_000_000_000_000, 1_000_000_000_001),
        (-1_000_000_000_001, 0),
    ] {
        let mut reaction = commit()
            .counting("other", 3)
            .reacting("m", "+1", by)
            .touching(MESSAGES, "m");
        reaction.append[0].body =
            EventBody::Bytes(Bytes::from_static(b"reacted"), Some(IncrementSlot::nth(1)));
        let outcome = commits(&*store, &room(), reaction).await;
        let record = next_record(&mut listener).await;
        assert_eq!(
            (record.count, record.stamps, record.counts),
            (Some(count), Stamps::default(), None)
        );
        assert_eq!(
            (record.position.seq, outcome.counts[1], &record.body[..]),
            (outcome.first_seq, count, &b"reacted"[..])
        );
    }
}

pub(crate) async fn controls_are_published<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.store();
    let mut listener = bench.listen(&room().topic()).await;
    let controls = [
        Control::None,
        Control::Evict(Bytes::from("ann")),
        Control::Close,
        Control::Except(Bytes::from("bób")),
        Control::Evict(Bytes::new()),
    ];
    let append = |control: &Control| Append {
        control: control.clone(),
        ..event("x")
    };
    commits(
        &*store,
        &room(),
        Commit {
            append: controls.iter().map(append).collect(),
            ..commit()
        },
    )
    .await;
    for control in controls {
        assert_eq!(next_record(&mut listener).await.control, control);
    }
}

pub(crate) async fn bodies_of_any_bytes_are_published<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.store();
    let mut listener = bench.listen(&room().topic()).await;
    let every: Bytes = (0..=255).collect();
    let large: Bytes = (0..64 * 1024)
        .map(|i: u32| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    for bytes in [every, large, Bytes::new(), Bytes::from_static(&[0, 0])] {
        let mut both = commit().putting(MESSAGES, "m", bytes.clone());
        both.append.push(Append {
            body: EventBody::Bytes(bytes.clone(), None),
            ..event(bytes.clone())
        });
        commits(&*store, &room(), both).await;
        assert_eq!(next_record(&mut listener).await.body, bytes);
        assert_eq!(next_record(&mut listener).await.body, bytes);
    }
}

pub(crate) async fn conflict_publishes_nothing<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.store();
    let mut listener = bench.listen(&room().topic()).await;
    conflicts(
        &*store,
        &room(),
        commit()
            .requiring(PEOPLE, "ann", Expected::Present)
            .putting(MESSAGES, "m", "hi")
            .appending("x"),
    )
    .await;
    assert_eq!(records_until_end(&*store, &room(), &mut listener).await, []);
}

pub(crate) async fn ephemeral_records_are_published_unchanged<B: Bench>() {
    let bench = B::start(ALL).await;
    let store = bench.store();
    let mut listener = bench.listen(&room().topic()).await;
    let record = Record::passing(
        4,
        Control::Except(Bytes::from("ann")),
        Bytes::from_static(&[1, 2, 0, 255]),
    );
    store
        .publish(&room().topic(), record.encode())
        .await
        .unwrap();
    assert_eq!(next_record(&mut listener).await, record);
    assert_eq!(
        head(&*store, &room()).await,
        Default::default(),
        "it takes no seq"
    );
}
