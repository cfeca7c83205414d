//! Model checks of concurrent access to an outbox, see [`crate::sync`].
#![allow(clippy::unwrap_used, reason = "a check fails by panicking")]

use std::sync::Arc;
use std::time::Duration;

use shuttle::future::{JoinHandle, spawn};

use super::testing::{Pipe, frame};
use super::*;
use crate::sync::{races, yield_now};

const END: u16 = 1000;

fn limits(bytes: usize) -> Arc<OutboxLimits> {
    OutboxLimits::new(bytes, Duration::MAX, usize::MAX)
}

fn outbox(pipe: &Arc<Pipe>, limits: &Arc<OutboxLimits>) -> Arc<Outbox> {
    Outbox::new(
        Arc::<Pipe>::clone(pipe),
        FrameEncoding::Binary,
        Arc::clone(limits),
    )
}

/// The task of the connection's owner.
fn owner(outbox: &Arc<Outbox>) -> JoinHandle<Reason> {
    let outbox = Arc::clone(outbox);
    spawn(async move { outbox.drive().await })
}

/// Pushes numbered frames until one is refused. Returns the number of accepted frames.
fn writer(outbox: &Arc<Outbox>, name: &'static str, frames: usize) -> JoinHandle<usize> {
    let outbox = Arc::clone(outbox);
    spawn(async move {
        for n in 0..frames {
            if outbox
                .push(frame(format!("{name}{n}")), Class::Durable)
                .is_err()
            {
                return n;
            }
        }
        frames
    })
}

/// The peer: reads a few bytes at a time.
fn peer(pipe: &Arc<Pipe>, times: usize, bytes: usize) -> JoinHandle<()> {
    let pipe = Arc::clone(pipe);
    spawn(async move {
        for _ in 0..times {
            pipe.open(bytes);
            yield_now().await;
        }
    })
}

fn of<'a>(texts: &'a [String], name: &str) -> Vec<&'a str> {
    texts
        .iter()
        .map(String::as_str)
        .filter(|text| text.starts_with(name))
        .collect()
}

#[test]
fn frames_of_several_threads_are_written_once_in_their_order() {
    races(|| async {
        let (pipe, limits) = (Pipe::new(9), limits(10_000));
        let outbox = outbox(&pipe, &limits);
        let writers = ["a", "b"].map(|name| writer(&outbox, name, 3));
        // Six frames of six bytes and the last one of seven.
        let (owner, peer) = (owner(&outbox), peer(&pipe, 7, 5));
        for writer in writers {
            assert_eq!(writer.await.unwrap(), 3);
        }
        outbox.close(frame("end"), END);
        assert_eq!(owner.await.unwrap(), Reason::Closed(END));
        peer.await.unwrap();
        let texts = pipe.texts();
        assert_eq!(
            (of(&texts, "a"), of(&texts, "b")),
            (vec!["a0", "a1", "a2"], vec!["b0", "b1", "b2"])
        );
        assert_eq!(
            (texts.len(), texts.last().map(String::as_str)),
            (7, Some("end"))
        );
        assert_eq!(
            (
                outbox.queued_bytes(),
                limits.counts().queued_bytes,
                limits.counts().queues
            ),
            (0, 0, 0)
        );
    });
}

#[test]
fn a_push_wakes_an_owner_that_goes_to_sleep_meanwhile() {
    races(|| async {
        let (pipe, limits) = (Pipe::indirect(usize::MAX), limits(10_000));
        let outbox = outbox(&pipe, &limits);
        let writers = ["a", "b"].map(|name| writer(&outbox, name, 1));
        // Ends with the second frame; nothing but the outbox wakes it.
        poll_fn(|cx| {
            let _ = outbox.poll_drive(cx);
            if pipe.texts().len() == 2 {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
        for writer in writers {
            writer.await.unwrap();
        }
    });
}

#[test]
fn accepted_frames_precede_the_close_frame_and_none_follows() {
    races(|| async {
        let (pipe, limits) = (Pipe::new(8), limits(10_000));
        let outbox = outbox(&pipe, &limits);
        let (writer, owner, peer) = (writer(&outbox, "a", 4), owner(&outbox), peer(&pipe, 5, 5));
        outbox.close(frame("end"), END);
        let taken = writer.await.unwrap();
        assert_eq!(owner.await.unwrap(), Reason::Closed(END));
        peer.await.unwrap();
        let mut expected: Vec<String> = (0..taken).map(|n| format!("a{n}")).collect();
        expected.push("end".into());
        assert_eq!(pipe.texts(), expected);
        assert_eq!(
            (outbox.queued_bytes(), limits.counts().queued_bytes),
            (0, 0)
        );
    });
}

#[test]
fn queued_bytes_stay_within_the_bound_and_excess_is_refused() {
    races(|| async {
        // Three frames of six bytes, with their entries.
        let most = 3 * (6 + ENTRY_OVERHEAD_BYTES);
        let (pipe, limits) = (Pipe::new(2), limits(most));
        let outbox = outbox(&pipe, &limits);
        let writers = ["a", "b"].map(|name| writer(&outbox, name, 3));
        let (owner, peer) = (owner(&outbox), peer(&pipe, 6, 5));
        for _ in 0..6 {
            assert!(outbox.queued_bytes() <= most && limits.counts().queued_bytes <= most);
            yield_now().await;
        }
        let mut taken = 0;
        for writer in writers {
            taken += writer.await.unwrap();
        }
        peer.await.unwrap();
        outbox.close(frame("end"), END);
        pipe.open(100);
        let reason = owner.await.unwrap();
        let texts = pipe.texts();
        match reason {
            Reason::Closed(END) => assert_eq!((taken, texts.len()), (6, 7)),
            // The output may include the frame that was partly written. It includes the close frame
            // if the owner keeps driving.
            Reason::TooSlow(Excess::Bytes) => {
                assert!(taken < 6 && limits.counts().too_slow == [1, 0, 0])
            }
            other => panic!("{other:?}"),
        }
        drop(outbox);
        assert_eq!(
            (limits.counts().queued_bytes, limits.counts().queues),
            (0, 0)
        );
    });
}

#[test]
fn held_frames_are_written_in_order_after_the_last_hold() {
    races(|| async {
        let (pipe, limits) = (Pipe::new(usize::MAX), limits(10_000));
        let outbox = outbox(&pipe, &limits);
        let owner = owner(&outbox);
        let hold = outbox.hold();
        outbox.push(frame("reply"), Class::Reply).unwrap();
        let writer = writer(&outbox, "a", 2);
        let second = spawn({
            let outbox = Arc::clone(&outbox);
            async move { drop(outbox.hold()) }
        });
        yield_now().await;
        assert!(pipe.texts().is_empty());
        drop(hold);
        // All pushes may precede the last release: the release alone must
        // wake the owner.
        writer.await.unwrap();
        second.await.unwrap();
        outbox.drained_below(1).await.unwrap();
        assert_eq!(pipe.texts(), ["reply", "a0", "a1"]);
        outbox.close(frame("end"), END);
        assert_eq!(owner.await.unwrap(), Reason::Closed(END));
    });
}

#[test]
fn waiter_for_room_wakes_on_room_or_end() {
    races(|| async {
        let (pipe, limits) = (Pipe::new(3), limits(10_000));
        let outbox = outbox(&pipe, &limits);
        let (owner, peer) = (owner(&outbox), peer(&pipe, 3, 6));
        let pump = spawn({
            let outbox = Arc::clone(&outbox);
            async move {
                for n in 0..3 {
                    outbox.drained_below(1).await?;
                    outbox.push(frame(format!("a{n}")), Class::Durable)?;
                }
                outbox.drained_below(1).await
            }
        });
        let breaker = spawn({
            let outbox = Arc::clone(&outbox);
            async move { outbox.fail(Reason::Broken) }
        });
        peer.await.unwrap();
        breaker.await.unwrap();
        // Either everything was written before the connection broke, or the owner was informed.
        if pump.await.unwrap().is_ok() {
            assert_eq!(pipe.texts(), ["a0", "a1", "a2"]);
        }
        assert_eq!(owner.await.unwrap(), Reason::Broken);
        assert_eq!((outbox.queued_bytes(), limits.counts().queues), (0, 0));
    });
}
