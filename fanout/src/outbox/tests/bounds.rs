//! What is dropped, and when the outbox ends.

use super::*;

#[test]
fn reader_that_reads_nothing_is_bounded_and_then_too_slow() {
    let (pipe, limits) = (Pipe::new(0), limits(100));
    let outbox = outbox(&pipe, &limits);
    let mut most = 0;
    let reason = (0..)
        .find_map(|_| {
            most = most.max(outbox.queued_bytes());
            outbox.push(frame("0123456789"), Class::Durable).err()
        })
        .unwrap();
    assert_eq!(reason, Reason::TooSlow(Excess::Bytes));
    assert!(most <= 100, "{most}");
    assert_eq!(
        (
            outbox.queued_bytes(),
            limits.counts().queued_bytes,
            limits.counts().queues
        ),
        (0, 0, 0)
    );
    assert_eq!(drive(&outbox), Some(reason));
    assert_eq!(outbox.push(frame("more"), Class::Control), Err(reason));
    assert_eq!(limits.counts().too_slow, [1, 0, 0]);
}

#[test]
fn close_frame_reaches_a_slow_reader_that_reads_again() {
    let (pipe, limits) = (Pipe::new(5), limits(30));
    let outbox = outbox(&pipe, &limits);
    while outbox.push(frame("0123456789"), Class::Durable).is_ok() {}
    let reason = drive(&outbox).unwrap();
    outbox.close(frame("4009"), 4009);
    assert_eq!(drive(&outbox), None);
    pipe.open(1_000);
    assert_eq!(drive(&outbox), Some(reason));
    assert_eq!(pipe.texts(), ["0123456789", "4009"]);
}

#[test]
fn droppable_frames_are_dropped_first_and_oldest_first() {
    let (pipe, limits) = (Pipe::new(0), limits(60 + 4 * ENTRY_OVERHEAD_BYTES));
    let outbox = outbox(&pipe, &limits);
    outbox.push(frame("durable 1"), Class::Durable).unwrap();
    outbox
        .push(frame("typing a"), Class::Droppable(None))
        .unwrap();
    outbox
        .push(frame("typing b"), Class::Droppable(None))
        .unwrap();
    outbox.push(frame("durable 2"), Class::Durable).unwrap();
    outbox.push(frame("durable 3"), Class::Durable).unwrap();
    outbox
        .push(
            frame("a droppable one that does not fit"),
            Class::Droppable(None),
        )
        .unwrap();
    assert_eq!(outbox.end_reason(), None);
    pipe.open(1_000);
    assert_eq!(drive(&outbox), None);
    assert_eq!(pipe.texts(), ["durable 1", "durable 2", "durable 3"]);
    assert_eq!(limits.counts().dropped, 3);
}

#[test]
fn a_droppable_frame_that_has_begun_is_finished() {
    let (pipe, limits) = (Pipe::new(3), limits(40 + 3 * ENTRY_OVERHEAD_BYTES));
    let outbox = outbox(&pipe, &limits);
    outbox
        .push(frame("typing"), Class::Droppable(Some(7)))
        .unwrap();
    outbox.push(frame("0123456789"), Class::Durable).unwrap();
    outbox
        .push(frame("newer"), Class::Droppable(Some(7)))
        .unwrap();
    let _ = outbox.push(frame("9876543210"), Class::Durable);
    pipe.open(1_000);
    assert_eq!(drive(&outbox), None);
    assert_eq!(pipe.texts(), ["typing", "0123456789", "9876543210"]);
}

#[test]
fn newer_frame_replaces_queued_frame_with_same_key() {
    let (pipe, limits) = (Pipe::new(0), limits(1_000));
    let outbox = outbox(&pipe, &limits);
    outbox
        .push(frame("online"), Class::Droppable(Some(1)))
        .unwrap();
    outbox
        .push(frame("other"), Class::Droppable(Some(2)))
        .unwrap();
    outbox
        .push(frame("offline"), Class::Droppable(Some(1)))
        .unwrap();
    pipe.open(1_000);
    assert_eq!(drive(&outbox), None);
    assert_eq!(pipe.texts(), ["other", "offline"]);
}

#[test]
fn empty_frames_count_too() {
    let (pipe, limits) = (Pipe::new(0), limits(20 * ENTRY_OVERHEAD_BYTES));
    let outbox = outbox(&pipe, &limits);
    let pushed = (0..)
        .find(|_| outbox.push(frame(""), Class::Durable).is_err())
        .unwrap();
    assert_eq!(
        (pushed, outbox.end_reason()),
        (18, Some(Reason::TooSlow(Excess::Bytes)))
    );
}

#[test]
fn only_the_newest_control_frames_stay_queued() {
    for room in [0, 3, 15] {
        let (pipe, limits) = (Pipe::new(room), limits(1_000));
        let outbox = outbox(&pipe, &limits);
        outbox.push(frame("durable"), Class::Durable).unwrap();
        outbox
            .push(frame("typing"), Class::Droppable(None))
            .unwrap();
        assert_eq!(drive(&outbox), None);
        for n in 1..=50_000 {
            outbox
                .push(frame(format!("pong {n}")), Class::Control)
                .unwrap();
        }
        assert!(outbox.queued_bytes() < 1_000, "{}", outbox.queued_bytes());
        outbox.close(frame("1000"), 1000);
        pipe.open(10_000);
        assert_eq!(drive(&outbox), Some(Reason::Closed(1000)));
        let mut expected: Vec<String> = (49_993..=50_000).map(|n| format!("pong {n}")).collect();
        expected.insert(if room == 0 { 8 } else { 0 }, "durable".into());
        expected.insert(if room == 15 { 1 } else { 9 }, "typing".into());
        expected.push("1000".into());
        assert_eq!(pipe.texts(), expected, "room {room}");
        assert_eq!(limits.counts().dropped, 49_992);
    }
}

#[test]
fn reader_that_reads_nothing_exceeds_the_age_despite_its_control_frames() {
    let (pipe, limits) = (Pipe::new(0), limits(1_000));
    let outbox = outbox(&pipe, &limits);
    outbox.push(frame("pong"), Class::Control).unwrap();
    let first = Instant::now();
    while first.elapsed() < Duration::from_millis(20) {
        outbox.push(frame("pong"), Class::Control).unwrap();
    }
    assert_eq!(
        outbox.check(first + Duration::from_secs(30)),
        Err(Reason::TooSlow(Excess::Age))
    );
}

#[test]
fn a_frame_that_waits_too_long_ends_the_outbox() {
    let (pipe, limits) = (Pipe::new(0), limits(1_000));
    let outbox = outbox(&pipe, &limits);
    let now = Instant::now();
    outbox.check(now + Duration::from_secs(3_600)).unwrap();
    outbox.push(frame("old"), Class::Durable).unwrap();
    outbox.check(now + Duration::from_secs(29)).unwrap();
    outbox.push(frame("ping"), Class::Control).unwrap();
    assert_eq!(
        outbox.check(now + Duration::from_secs(31)),
        Err(Reason::TooSlow(Excess::Age))
    );
    assert_eq!(drive(&outbox), Some(Reason::TooSlow(Excess::Age)));
}

#[test]
fn fullest_outbox_ends_when_the_total_is_exceeded() {
    let limits = OutboxLimits::new(10_000, Duration::MAX, 200 + 14 * ENTRY_OVERHEAD_BYTES);
    let (slow, quick) = (Pipe::new(0), Pipe::new(0));
    let (slow, quick) = (outbox(&slow, &limits), outbox(&quick, &limits));
    for _ in 0..12 {
        slow.push(frame("0123456789"), Class::Durable).unwrap();
    }
    quick.push(frame("0123456789"), Class::Durable).unwrap();
    quick.push(frame("0123456789"), Class::Durable).unwrap();
    assert_eq!(
        slow.push(frame("0123456789"), Class::Durable),
        Err(Reason::TooSlow(Excess::Total))
    );
    quick.push(frame("0123456789"), Class::Durable).unwrap();
    assert_eq!(
        limits.counts().queued_bytes,
        3 * (14 + ENTRY_OVERHEAD_BYTES)
    );
    drop(quick);
    assert_eq!(
        (limits.counts().queued_bytes, limits.counts().queues),
        (0, 0)
    );
}

#[test]
fn an_empty_outbox_takes_one_frame_of_any_size() {
    let (pipe, limits) = (Pipe::new(10), limits(20));
    let outbox = outbox(&pipe, &limits);
    outbox.push(frame([7; 500]), Class::Reply).unwrap();
    assert_eq!(outbox.room(), 0);
    pipe.open(1_000);
    assert_eq!(drive(&outbox), None);
    assert_eq!(pipe.frames(), [vec![7; 500]]);
}

#[tokio::test]
async fn frames_of_a_muted_topic_are_dropped_until_it_is_subscribed_again() {
    let pipe = Pipe::new(usize::MAX);
    let outbox = Outbox::new(
        Arc::<Pipe>::clone(&pipe),
        FrameEncoding::Binary,
        OutboxLimits::new(1 << 20, Duration::MAX, usize::MAX),
    );
    let (room, hall): (crate::Topic, crate::Topic) = ("room".into(), "hall".into());
    let says = |topic: &crate::Topic, text: &str| {
        outbox.push_of(topic, frame(text), Class::Durable).unwrap()
    };
    says(&room, "1");
    outbox.mute(&room);
    outbox.mute(&room);
    says(&room, "2");
    says(&hall, "3");
    outbox.push(frame("4"), Class::Reply).unwrap();
    outbox.unmute(&room);
    says(&room, "5");
    assert_eq!(pipe.texts(), ["1", "3", "4", "5"]);
}
