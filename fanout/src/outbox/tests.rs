//! What an outbox promises.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt;

use super::testing::{Pipe, frame};
use super::*;

fn limits(bytes: usize) -> Arc<Limits> {
    Limits::new(bytes, Duration::from_secs(30), usize::MAX)
}

fn outbox(pipe: &Arc<Pipe>, limits: &Arc<Limits>) -> Arc<Outbox> {
    Outbox::new(
        Arc::<Pipe>::clone(pipe),
        Encoding::Binary,
        Arc::clone(limits),
    )
}

/// What the owner's task does when it is woken.
fn drive(outbox: &Outbox) -> Option<Reason> {
    outbox.drive().now_or_never()
}

#[test]
fn a_frame_is_written_at_once_where_nothing_waits() {
    let (pipe, limits) = (Pipe::new(1_000), limits(100));
    let outbox = outbox(&pipe, &limits);
    outbox.push(frame("hi"), Class::Durable).unwrap();
    assert_eq!(pipe.texts(), ["hi"]);
    assert_eq!((outbox.queued_bytes(), limits.counts().queues), (0, 0));
}

#[test]
fn frames_that_wait_leave_in_order_and_in_one_call() {
    let (pipe, limits) = (Pipe::new(3), limits(1_000));
    let outbox = outbox(&pipe, &limits);
    for text in ["one", "two", "three"] {
        outbox.push(frame(text), Class::Durable).unwrap();
    }
    assert_eq!(outbox.queued_bytes(), 7 + 7 + 9 + 3 * ENTRY);
    assert_eq!(
        (limits.counts().queued_bytes, limits.counts().queues),
        (outbox.queued_bytes(), 1)
    );
    assert_eq!(drive(&outbox), None);
    let calls = pipe.calls();
    pipe.open(1_000);
    assert_eq!(drive(&outbox), None);
    assert_eq!(pipe.calls(), calls + 1);
    assert_eq!(pipe.texts(), ["one", "two", "three"]);
    assert_eq!(
        (
            outbox.queued_bytes(),
            limits.counts().queued_bytes,
            limits.counts().queues
        ),
        (0, 0, 0)
    );
}

#[test]
fn what_is_held_leaves_in_order_once_all_have_let_go() {
    let (pipe, limits) = (Pipe::new(1_000), limits(1_000));
    let outbox = outbox(&pipe, &limits);
    let (one, other) = (outbox.hold(), outbox.hold());
    for text in ["reply", "event"] {
        outbox.push(frame(text), Class::Durable).unwrap();
        assert_eq!(drive(&outbox), None);
    }
    drop(one);
    assert_eq!((drive(&outbox), pipe.texts().len()), (None, 0));
    drop(other);
    assert_eq!(drive(&outbox), None);
    assert_eq!(pipe.texts(), ["reply", "event"]);
    outbox.push(frame("direct"), Class::Durable).unwrap();
    assert_eq!(pipe.texts().len(), 3);
}

#[test]
fn what_is_held_is_bounded_as_ever() {
    let (pipe, limits) = (Pipe::new(1_000), limits(100));
    let outbox = outbox(&pipe, &limits);
    let hold = outbox.hold();
    while outbox.push(frame("hi"), Class::Durable).is_ok() {}
    assert_eq!(outbox.is_over(), Some(Reason::TooSlow(Excess::Bytes)));
    drop(hold);
}

#[test]
fn a_frame_counts_whole_until_it_is_written_whole() {
    let (pipe, limits) = (Pipe::new(4), limits(1_000));
    let outbox = outbox(&pipe, &limits);
    outbox.push(frame("hello"), Class::Durable).unwrap();
    assert_eq!(outbox.queued_bytes(), 9 + ENTRY);
    pipe.open(4);
    assert_eq!(drive(&outbox), None);
    assert_eq!(outbox.queued_bytes(), 9 + ENTRY);
    pipe.open(1);
    assert_eq!(drive(&outbox), None);
    assert_eq!(outbox.queued_bytes(), 0);
}

#[test]
fn control_frames_go_ahead_at_frame_boundaries_wherever_the_socket_stops() {
    for room in 0..60 {
        let (pipe, limits) = (Pipe::new(room), limits(1_000));
        let outbox = outbox(&pipe, &limits);
        outbox.push(frame("first"), Class::Durable).unwrap();
        outbox.push(frame("second"), Class::Durable).unwrap();
        assert_eq!(drive(&outbox), None);
        outbox.push(frame("ping 1"), Class::Control).unwrap();
        outbox.push(frame("third"), Class::Reply).unwrap();
        outbox.push(frame("ping 2"), Class::Control).unwrap();
        for _ in 0..100 {
            pipe.open(1);
            assert_eq!(drive(&outbox), None);
        }
        let texts = pipe.texts();
        assert_eq!(texts.len(), 5, "room {room}: {texts:?}");
        let place = |text| texts.iter().position(|t| t == text).unwrap();
        assert!(
            place("first") < place("second") && place("second") < place("third"),
            "room {room}: {texts:?}"
        );
        assert!(
            place("ping 1") < place("ping 2") && place("ping 2") <= place("third") + 1,
            "room {room}: {texts:?}"
        );
        if room == 0 {
            assert_eq!(texts, ["ping 1", "ping 2", "first", "second", "third"]);
        }
        if (1..9).contains(&room) {
            assert_eq!(
                texts,
                ["first", "ping 1", "ping 2", "second", "third"],
                "room {room}"
            );
        }
    }
}

#[test]
fn a_reader_that_takes_nothing_is_bounded_and_then_too_slow() {
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
fn a_close_frame_still_reaches_a_reader_that_was_too_slow_and_wakes_up() {
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
fn what_may_be_dropped_is_dropped_first_and_oldest_first() {
    let (pipe, limits) = (Pipe::new(0), limits(60 + 4 * ENTRY));
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
    assert_eq!(outbox.is_over(), None);
    pipe.open(1_000);
    assert_eq!(drive(&outbox), None);
    assert_eq!(pipe.texts(), ["durable 1", "durable 2", "durable 3"]);
    assert_eq!(limits.counts().dropped, 3);
}

#[test]
fn a_droppable_frame_that_has_begun_is_finished() {
    let (pipe, limits) = (Pipe::new(3), limits(40 + 3 * ENTRY));
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
fn of_frames_with_one_key_the_newest_waits() {
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
    let (pipe, limits) = (Pipe::new(0), limits(20 * ENTRY));
    let outbox = outbox(&pipe, &limits);
    let pushed = (0..)
        .find(|_| outbox.push(frame(""), Class::Durable).is_err())
        .unwrap();
    assert_eq!(
        (pushed, outbox.is_over()),
        (18, Some(Reason::TooSlow(Excess::Bytes)))
    );
}

#[test]
fn of_control_frames_that_wait_the_newest_few_stay() {
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
fn a_reader_that_takes_nothing_is_too_old_whatever_it_sends() {
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
fn when_the_node_holds_too_much_the_one_that_holds_the_most_goes() {
    let limits = Limits::new(10_000, Duration::MAX, 200 + 14 * ENTRY);
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
    assert_eq!(limits.counts().queued_bytes, 3 * (14 + ENTRY));
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

#[test]
fn after_a_close_what_waits_is_written_and_nothing_more_is_taken() {
    let (pipe, limits) = (Pipe::new(0), limits(1_000));
    let outbox = outbox(&pipe, &limits);
    outbox.push(frame("last words"), Class::Durable).unwrap();
    outbox.close(frame("1001"), 1001);
    assert_eq!(outbox.is_over(), Some(Reason::Closed(1001)));
    outbox.close(frame("4000"), 4000);
    assert_eq!(
        outbox.push(frame("late"), Class::Control),
        Err(Reason::Closed(1001))
    );
    assert_eq!(drive(&outbox), None);
    pipe.open(1_000);
    assert_eq!(drive(&outbox), Some(Reason::Closed(1001)));
    assert_eq!(pipe.texts(), ["last words", "1001"]);
}

#[test]
fn a_broken_socket_is_told_to_whoever_pushes_and_to_the_owner() {
    let (pipe, limits) = (Pipe::new(0), limits(1_000));
    let outbox = outbox(&pipe, &limits);
    outbox.push(frame("waits"), Class::Durable).unwrap();
    pipe.break_off();
    assert_eq!(drive(&outbox), Some(Reason::Broken));
    assert_eq!(
        outbox.push(frame("more"), Class::Durable),
        Err(Reason::Broken)
    );
    outbox.close(Bytes::new(), 1000);
    assert_eq!(
        (drive(&outbox), limits.counts().queued_bytes),
        (Some(Reason::Broken), 0)
    );
}

#[tokio::test]
async fn the_owner_is_woken_when_something_waits_and_pumps_when_it_drained() {
    let (pipe, limits) = (Pipe::new(0), limits(1_000));
    let outbox = outbox(&pipe, &limits);
    let owner = tokio::spawn({
        let outbox = Arc::clone(&outbox);
        async move { outbox.drive().await }
    });
    tokio::task::yield_now().await;
    for _ in 0..10 {
        outbox.push(frame("0123456789"), Class::Durable).unwrap();
    }
    let pump = tokio::spawn({
        let outbox = Arc::clone(&outbox);
        async move { outbox.drained_below(50 + 3 * ENTRY).await }
    });
    tokio::task::yield_now().await;
    assert!(!pump.is_finished());
    pipe.open(100);
    pump.await.unwrap().unwrap();
    outbox.close(frame("bye"), 1000);
    assert_eq!(outbox.drained_below(1).await, Err(Reason::Closed(1000)));
    pipe.open(1_000);
    assert_eq!(owner.await.unwrap(), Reason::Closed(1000));
    assert_eq!(pipe.frames().len(), 11);
}

#[tokio::test]
async fn frames_from_many_threads_reach_a_real_socket_whole() {
    use tokio::io::AsyncReadExt;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let reader = tokio::net::TcpStream::connect(listener.local_addr().unwrap())
        .await
        .unwrap();
    let writer = Arc::new(listener.accept().await.unwrap().0);
    let limits = Limits::new(usize::MAX, Duration::MAX, usize::MAX);
    let outbox = Outbox::new(writer, Encoding::Binary, limits);
    // So few that none has to give way to another.
    let is_control = |thread: u8, n: u32| thread == 0 && n.is_multiple_of(300);
    let owner = tokio::spawn({
        let outbox = Arc::clone(&outbox);
        async move { outbox.drive().await }
    });
    let threads: Vec<_> = (0..4u8)
        .map(|thread| {
            let outbox = Arc::clone(&outbox);
            std::thread::spawn(move || {
                for n in 0..2_000u32 {
                    let payload: Vec<u8> = [
                        &[thread][..],
                        &n.to_be_bytes(),
                        &vec![thread; (n % 700) as usize],
                    ]
                    .concat();
                    outbox
                        .push(
                            frame(payload),
                            if is_control(thread, n) {
                                Class::Control
                            } else {
                                Class::Durable
                            },
                        )
                        .unwrap();
                }
            })
        })
        .collect();
    let mut reader = tokio::io::BufReader::new(reader);
    let mut last = [None; 4];
    for _ in 0..8_000 {
        let length = reader.read_u32().await.unwrap() as usize;
        let mut payload = vec![0; length];
        reader.read_exact(&mut payload).await.unwrap();
        let (thread, n) = (
            payload[0],
            u32::from_be_bytes(payload[1..5].try_into().unwrap()),
        );
        assert!(payload[5..].iter().all(|b| *b == thread));
        let place = usize::from(thread);
        if !is_control(thread, n) {
            assert!(last[place].is_none_or(|last| last < n));
            last[place] = Some(n);
        }
    }
    threads.into_iter().for_each(|t| t.join().unwrap());
    outbox.close(frame("bye"), 1000);
    assert_eq!(owner.await.unwrap(), Reason::Closed(1000));
}

/// What may happen to an outbox.
#[derive(Debug, Clone)]
enum Act {
    Push(u8, usize),
    Open(usize),
    Drive,
}

fn acts() -> impl proptest::strategy::Strategy<Value = Vec<Act>> {
    use proptest::prelude::*;
    let act = prop_oneof![
        6 => (0..5u8, 0..40usize).prop_map(|(class, length)| Act::Push(class, length)),
        2 => (0..80usize).prop_map(Act::Open),
        2 => Just(Act::Drive),
    ];
    proptest::collection::vec(act, 0..120)
}

proptest::proptest! {
    #[test]
    fn whatever_happens_frames_leave_whole_in_order_and_within_bounds(acts in acts(), room in 0..50usize, bound in 50..400usize) {
        let (pipe, limits) = (Pipe::new(room), limits(bound));
        let outbox = outbox(&pipe, &limits);
        let mut over = None;
        for (n, act) in acts.into_iter().enumerate() {
            match act {
                Act::Push(kind, length) => {
                    let class = match kind {
                        0 => Class::Control,
                        1 => Class::Droppable(None),
                        2 => Class::Droppable(Some(1)),
                        3 => Class::Reply,
                        _ => Class::Durable,
                    };
                    let payload = format!("{kind}:{n}:{}", "x".repeat(length));
                    over = over.or(outbox.push(frame(payload), class).err());
                }
                Act::Open(more) => pipe.open(more),
                Act::Drive => over = over.or(drive(&outbox)),
            }
            proptest::prop_assert!(outbox.queued_bytes() <= bound + 4 * 1024);
            proptest::prop_assert_eq!(limits.counts().queued_bytes, outbox.queued_bytes());
            proptest::prop_assert_eq!(limits.counts().queues, usize::from(outbox.queued_bytes() > 0));
            proptest::prop_assert_eq!(outbox.is_over(), over);
        }
        pipe.open(usize::MAX);
        if over.is_some() {
            outbox.close(frame("9:999:"), 1000);
        }
        proptest::prop_assert_eq!(drive(&outbox), over);
        let frames = pipe.frames();
        let whole: usize = frames.iter().map(|f| f.len() + 4).sum();
        proptest::prop_assert_eq!(whole, pipe.written().len());
        for kinds in [&["0"][..], &["1"], &["2"], &["3", "4"]] {
            let numbers: Vec<usize> = pipe
                .texts()
                .iter()
                .map(|t| t.split(':').map(str::to_owned).collect::<Vec<_>>())
                .filter(|parts| kinds.contains(&parts[0].as_str()))
                .map(|parts| parts[1].parse().unwrap())
                .collect();
            proptest::prop_assert!(numbers.is_sorted(), "{:?}", numbers);
        }
    }
}

#[tokio::test]
async fn what_is_told_of_a_muted_topic_is_dropped_until_the_topic_begins_anew() {
    let pipe = Pipe::new(usize::MAX);
    let outbox = Outbox::new(
        Arc::<Pipe>::clone(&pipe),
        Encoding::Binary,
        Limits::new(1 << 20, Duration::MAX, usize::MAX),
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
