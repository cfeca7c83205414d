//! Tests of the guarantees of an outbox.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bounds;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt;

use super::testing::{Pipe, frame};
use super::*;

fn limits(bytes: usize) -> Arc<OutboxLimits> {
    OutboxLimits::new(bytes, Duration::from_secs(30), usize::MAX)
}

fn outbox(pipe: &Arc<Pipe>, limits: &Arc<OutboxLimits>) -> Arc<Outbox> {
    Outbox::new(
        Arc::<Pipe>::clone(pipe),
        FrameEncoding::Binary,
        Arc::clone(limits),
    )
}

/// Does what the owner's task does when it is woken.
fn drive(outbox: &Outbox) -> Option<Reason> {
    outbox.drive().now_or_never()
}

#[test]
fn frame_is_written_at_once_if_nothing_is_queued() {
    let (pipe, limits) = (Pipe::new(1_000), limits(100));
    let outbox = outbox(&pipe, &limits);
    outbox.push(frame("hi"), Class::Durable).unwrap();
    assert_eq!(pipe.texts(), ["hi"]);
    assert_eq!((outbox.queued_bytes(), limits.counts().queues), (0, 0));
}

#[test]
fn queued_frames_leave_in_order_in_one_call() {
    let (pipe, limits) = (Pipe::new(3), limits(1_000));
    let outbox = outbox(&pipe, &limits);
    for text in ["one", "two", "three"] {
        outbox.push(frame(text), Class::Durable).unwrap();
    }
    assert_eq!(outbox.queued_bytes(), 7 + 7 + 9 + 3 * ENTRY_OVERHEAD_BYTES);
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
fn held_frames_are_written_in_order_after_the_last_release() {
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
fn held_frames_are_bounded() {
    let (pipe, limits) = (Pipe::new(1_000), limits(100));
    let outbox = outbox(&pipe, &limits);
    let hold = outbox.hold();
    while outbox.push(frame("hi"), Class::Durable).is_ok() {}
    assert_eq!(outbox.end_reason(), Some(Reason::TooSlow(Excess::Bytes)));
    drop(hold);
}

#[test]
fn frame_counts_in_full_until_it_is_written() {
    let (pipe, limits) = (Pipe::new(4), limits(1_000));
    let outbox = outbox(&pipe, &limits);
    outbox.push(frame("hello"), Class::Durable).unwrap();
    assert_eq!(outbox.queued_bytes(), 9 + ENTRY_OVERHEAD_BYTES);
    pipe.open(4);
    assert_eq!(drive(&outbox), None);
    assert_eq!(outbox.queued_bytes(), 9 + ENTRY_OVERHEAD_BYTES);
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
fn queued_frames_are_written_and_new_ones_refused_after_close() {
    let (pipe, limits) = (Pipe::new(0), limits(1_000));
    let outbox = outbox(&pipe, &limits);
    outbox.push(frame("last words"), Class::Durable).unwrap();
    outbox.close(frame("1001"), 1001);
    assert_eq!(outbox.end_reason(), Some(Reason::Closed(1001)));
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
fn broken_socket_is_reported_to_pushers_and_owner() {
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
async fn owner_is_woken_for_queued_frames_and_writes_when_the_socket_drains() {
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
        async move { outbox.drained_below(50 + 3 * ENTRY_OVERHEAD_BYTES).await }
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
    let limits = OutboxLimits::new(usize::MAX, Duration::MAX, usize::MAX);
    let outbox = Outbox::new(writer, FrameEncoding::Binary, limits);
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

/// A random operation on an outbox.
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
    fn frames_leave_whole_in_order_and_within_bounds(acts in acts(), room in 0..50usize, bound in 50..400usize) {
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
            proptest::prop_assert_eq!(outbox.end_reason(), over);
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
