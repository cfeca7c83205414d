use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use tokio::time::Instant;

use super::*;
use crate::Position;

const PUBLISHER: u64 = 7;

fn at(seq: u64) -> Position {
    Position {
        seq,
        at: 1_000 + seq,
    }
}

fn decode(records: Vec<Bytes>) -> Vec<Digest> {
    records
        .into_iter()
        .map(|record| Digest::decode(record).unwrap())
        .collect()
}

fn lines(recorder: &DigestRecorder, now: Instant) -> Vec<DigestLine> {
    decode(recorder.next_round(now).1)
        .into_iter()
        .flat_map(|digest| digest.lines)
        .collect()
}

fn line(topic: &str, position: Option<Position>) -> DigestLine {
    DigestLine {
        topic: topic_hash(topic),
        position,
    }
}

/// A digest without lines.
fn empty(round: u64) -> Digest {
    Digest {
        publisher: PUBLISHER,
        round,
        part: 0,
        parts: 1,
        is_last: false,
        is_incomplete: false,
        lines: Vec::new(),
    }
}

#[test]
fn hash_of_a_topic_never_changes() {
    // Nodes of different versions name a topic by it.
    assert_eq!(topic_hash("c:app:room"), 0x5fb8_3110_9b10_d10a);
}

#[test]
fn commit_is_repeated_in_rounds_that_use_different_buckets() {
    let (recorder, start) = (DigestRecorder::new(PUBLISHER), Instant::now());
    recorder.committed("room", at(1), start);
    assert_eq!(
        lines(&recorder, start + HOLD / 2),
        [],
        "the record is on its way"
    );
    let mut buckets = Vec::new();
    for round in 1..=REPEATS {
        let (bucket, records) = recorder.next_round(start + HOLD + INTERVAL * round as u32);
        assert_eq!(decode(records)[0].lines, [line("room", Some(at(1)))]);
        assert!(!buckets.contains(&bucket));
        buckets.push(bucket);
    }
    assert_eq!(lines(&recorder, start + INTERVAL * 9), []);
}

#[test]
fn topic_has_one_line_for_all_its_commits() {
    let (recorder, start) = (DigestRecorder::new(PUBLISHER), Instant::now());
    for seq in [1, 3, 2] {
        recorder.committed("room", at(seq), start);
    }
    assert_eq!(lines(&recorder, start + HOLD), [line("room", Some(at(3)))]);
}

#[test]
fn commit_in_another_history_replaces_one_with_a_higher_number() {
    let (recorder, start) = (DigestRecorder::new(PUBLISHER), Instant::now());
    let other = Position { seq: 4, at: 9_000 };
    recorder.committed("room", at(9), start);
    recorder.committed("room", other, start);
    assert_eq!(lines(&recorder, start + HOLD), [line("room", Some(other))]);
}

#[test]
fn lost_answer_stays_uncertain_until_a_head_that_was_read_afterwards() {
    let (recorder, start) = (DigestRecorder::new(PUBLISHER), Instant::now());
    recorder.uncertain(&"room".into(), start);
    let mut now = start;
    while now < start + SETTLE_AFTER {
        assert_eq!(recorder.unsettled(10, now), []);
        assert_eq!(lines(&recorder, now), [line("room", None)]);
        now += INTERVAL;
    }
    let unsettled = recorder.unsettled(10, now);
    // A head that was read before another answer was lost settles nothing.
    recorder.uncertain(&"room".into(), now);
    recorder.settle(&unsettled[0], at(5), now);
    assert_eq!(lines(&recorder, now), [line("room", None)]);
    now += SETTLE_AFTER;
    recorder.settle(&recorder.unsettled(10, now)[0], at(6), now);
    assert_eq!(lines(&recorder, now + HOLD), [line("room", Some(at(6)))]);
}

#[test]
fn last_round_has_the_newest_commits_and_says_so() {
    let (recorder, start) = (DigestRecorder::new(PUBLISHER), Instant::now());
    recorder.committed("room", at(1), start);
    let last = decode(recorder.last_round(start).1).remove(0);
    assert!(last.is_last);
    assert_eq!(last.lines, [line("room", Some(at(1)))]);
}

#[test]
fn node_does_not_end_in_order_while_a_commit_is_uncertain() {
    let (recorder, start) = (DigestRecorder::new(PUBLISHER), Instant::now());
    recorder.uncertain(&"room".into(), start);
    assert!(!decode(recorder.last_round(start).1)[0].is_last);
}

#[test]
fn many_topics_are_sent_in_parts_of_bounded_size() {
    let (recorder, start) = (DigestRecorder::new(PUBLISHER), Instant::now());
    for n in 0..70_000 {
        recorder.committed(&format!("room-{n}"), at(1), start);
    }
    let records = recorder.next_round(start + HOLD).1;
    assert!(records.iter().all(|record| record.len() < 32_000));
    let digests = decode(records);
    assert_eq!(digests.len(), 64);
    assert!(digests[0].is_incomplete, "some topics had no room");
}

#[test]
fn rounds_without_a_hole_leave_no_doubt() {
    let now = Instant::now();
    let mut receiver = DigestReceiver::new(now);
    for round in 90..200 {
        let now = now + INTERVAL * (round - 90);
        assert_eq!(receiver.receive(&empty(round.into()), now), Doubt::None);
        assert_eq!(receiver.tick(now), Doubt::None);
    }
}

#[test]
fn hole_that_no_repeat_covers_puts_all_topics_in_doubt() {
    let now = Instant::now();
    let mut receiver = DigestReceiver::new(now);
    assert_eq!(receiver.receive(&empty(1), now), Doubt::None);
    assert_eq!(receiver.receive(&empty(1 + REPEATS), now), Doubt::None);
    let after_hole = empty(2 + 2 * REPEATS);
    assert_eq!(receiver.receive(&after_hole, now), Doubt::AllTopics);
    assert_eq!(receiver.receive(&empty(3 + 2 * REPEATS), now), Doubt::None);
}

#[test]
fn node_that_is_first_heard_late_puts_all_topics_in_doubt() {
    let start = Instant::now();
    let mut receiver = DigestReceiver::new(start);
    let late = start + SILENCE;
    assert_eq!(receiver.receive(&empty(100), late), Doubt::AllTopics);
    let mut receiver = DigestReceiver::new(start);
    assert_eq!(receiver.receive(&empty(1), late), Doubt::None, "it is new");
}

#[test]
fn silent_node_puts_all_topics_in_doubt_until_it_is_forgotten() {
    let start = Instant::now();
    let mut receiver = DigestReceiver::new(start);
    let _ = receiver.receive(&empty(1), start);
    let (mut doubts, mut checks) = (Vec::new(), Vec::new());
    for ticks in 1..=60 {
        let now = start + Duration::from_millis(500) * ticks;
        if receiver.tick(now) == Doubt::AllTopics {
            doubts.push(now - start);
        }
        if receiver.silent_publishers(now) == [PUBLISHER] {
            checks.push(now - start);
        }
    }
    assert_eq!(doubts, [1, 2, 3, 4, 5, 6].map(|n| SILENCE * n));
    assert_eq!(
        checks,
        [0, 1, 2].map(|n| LIFE_CHECK_AFTER + SILENCE * n),
        "it may live"
    );
    assert_eq!(receiver.forget(PUBLISHER), Doubt::AllTopics);
    let later = start + Duration::from_secs(600);
    assert_eq!(receiver.tick(later), Doubt::None);
    assert_eq!(receiver.silent_publishers(later), [0; 0]);
    assert_eq!(receiver.forget(PUBLISHER), Doubt::None);
}

#[test]
fn node_that_is_silent_after_a_hole_puts_all_topics_in_doubt_again() {
    let start = Instant::now();
    let mut receiver = DigestReceiver::new(start);
    let _ = receiver.receive(&empty(1), start);
    let after_hole = empty(2 + REPEATS);
    assert_eq!(receiver.receive(&after_hole, start), Doubt::AllTopics);
    assert_eq!(receiver.tick(start + SILENCE), Doubt::AllTopics);
}

#[test]
fn node_that_ended_in_order_is_not_silent() {
    let start = Instant::now();
    let mut receiver = DigestReceiver::new(start);
    let _ = receiver.receive(&empty(1), start);
    let last = Digest {
        is_last: true,
        ..empty(2)
    };
    assert_eq!(receiver.receive(&last, start), Doubt::None);
    assert_eq!(receiver.tick(start + LIFE_CHECK_AFTER * 2), Doubt::None);
}

proptest! {
    #[test]
    fn any_bytes_are_a_digest_or_an_error(bytes: Vec<u8>) {
        if let Ok(digest) = Digest::decode(bytes.clone().into()) {
            prop_assert_eq!(digest.encode(), Bytes::from(bytes));
        }
    }

    /// Whatever the bus drops, a receiver that has heard the node once knows each position or doubts
    /// all of them.
    #[test]
    fn every_commit_is_received_or_in_doubt(
        // For each round: topics with a commit, and parts that the bus drops.
        rounds in prop::collection::vec((prop::collection::vec(0..3_000u32, 0..3), any::<u8>(), 0..4u8), 1..60),
        is_crowded: bool,
    ) {
        let start = Instant::now();
        let recorder = DigestRecorder::new(PUBLISHER);
        let mut receiver = DigestReceiver::new(start);
        let mut now = start;
        let mut is_heard = false;
        let mut committed: HashMap<u64, (Position, Instant)> = HashMap::new();
        let mut known: HashMap<u64, Position> = HashMap::new();
        let mut seq = 1;
        if is_crowded {
            for n in 0..2_500 {
                recorder.committed(&n.to_string(), at(1), now);
            }
        }
        for (topics, dropped, luck) in rounds {
            for topic in topics {
                seq += 1;
                recorder.committed(&topic.to_string(), at(seq), now);
                committed.insert(topic_hash(&topic.to_string()), (at(seq), now));
            }
            now += INTERVAL;
            let mut doubt = receiver.tick(now);
            for digest in decode(recorder.next_round(now).1) {
                if luck > 0 && dropped & (1 << (digest.part % 8)) != 0 {
                    continue;
                }
                is_heard = true;
                if receiver.receive(&digest, now) == Doubt::AllTopics {
                    doubt = Doubt::AllTopics;
                }
                for line in digest.lines {
                    known.insert(line.topic, line.position.unwrap());
                }
            }
            if doubt == Doubt::AllTopics {
                known.extend(committed.iter().map(|(topic, (position, _))| (*topic, *position)));
            }
            if !is_heard {
                continue;
            }
            // What is missing is younger than the repeats.
            for (topic, (position, at)) in &committed {
                prop_assert!(
                    known.get(topic) == Some(position) || now - *at <= INTERVAL * (REPEATS + 1) as u32,
                    "{position:?} {:?} ago", now - *at
                );
            }
        }
    }
}
