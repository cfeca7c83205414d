//! The output of a connection: a direct write if nothing is queued, otherwise a bounded queue of
//! frames.
//!
//! Owned here: the order of frames, their bounds in bytes and age, which frames are dropped first,
//! and the total of the node. Left out: the content of frames, and the reading side of the
//! connection.
//!
//! Any thread may [`push`](Outbox::push), which never blocks. One task, the connection's owner,
//! polls [`drive`](Outbox::drive), which writes queued frames whenever the socket accepts more, and
//! returns when the outbox has ended.

mod frame;
mod limits;
mod queue;
#[cfg(all(test, shuttle))]
mod races;
mod sink;
#[cfg(test)]
#[cfg_attr(
    shuttle,
    allow(dead_code, reason = "the model checks need a part of it")
)]
pub(crate) mod testing;
#[cfg(all(test, not(shuttle)))]
mod tests;

use std::fmt;
use std::future::poll_fn;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use tokio::sync::{Notify, Semaphore, SemaphorePermit};

use self::queue::{Flush, Queue};
use crate::Topic;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

pub use self::frame::{Class, ENTRY_OVERHEAD_BYTES, Excess, FrameEncoding, Reason};
pub use self::limits::{OutboxCounts, OutboxLimits};
pub use self::sink::Sink;

/// The bounded output queue of one connection. It holds no buffer while it is empty.
pub struct Outbox {
    sink: Arc<dyn Sink>,
    limits: Arc<OutboxLimits>,
    encoding: FrameEncoding,
    subject: OnceLock<Bytes>,
    queue: Mutex<Queue>,
    /// A copy of the queue's byte count that is read without the lock.
    queued: AtomicUsize,
    owner: AtomicWaker,
    /// Whether the hub ended a subscription since the owner last asked.
    has_ended_subscription: AtomicBool,
    drained: Notify,
    turn: Semaphore,
}

impl Outbox {
    /// An empty outbox that writes to `sink`.
    pub fn new(
        sink: Arc<dyn Sink>,
        encoding: FrameEncoding,
        limits: Arc<OutboxLimits>,
    ) -> Arc<Self> {
        Arc::new(Self {
            sink,
            limits,
            encoding,
            subject: OnceLock::new(),
            queue: Mutex::default(),
            queued: AtomicUsize::new(0),
            owner: AtomicWaker::new(),
            has_ended_subscription: AtomicBool::new(false),
            drained: Notify::new(),
            turn: Semaphore::new(1),
        })
    }

    /// Sets whose connection this is, once that is known. Later calls are ignored.
    pub fn identify(&self, subject: Bytes) {
        let _ = self.subject.set(subject);
    }

    /// The subject that the connection belongs to; empty until [`identify`](Self::identify).
    pub fn subject(&self) -> &[u8] {
        self.subject.get().map_or(&[], |subject| subject)
    }

    /// The encoding of its frames.
    pub fn encoding(&self) -> FrameEncoding {
        self.encoding
    }

    /// Writes a frame at once if nothing is queued and the socket accepts it, otherwise queues it.
    /// Never blocks.
    ///
    /// # Errors
    /// Fails if the outbox has ended. A [`Class::Droppable`] frame may be dropped silently.
    pub fn push(&self, frame: Bytes, class: Class) -> Result<(), Reason> {
        self.push_unless(|_| false, frame, class)
    }

    /// Pushes a frame of a topic, which is dropped while the topic is [muted](Self::mute).
    pub(crate) fn push_of(&self, topic: &Topic, frame: Bytes, class: Class) -> Result<(), Reason> {
        self.push_unless(|queue| queue.is_muted(topic), frame, class)
    }

    /// Drops frames of a topic from now on, including those of running broadcasts, until the next
    /// subscription to it starts.
    pub fn mute(&self, topic: &Topic) {
        self.queue.lock().mute(topic);
    }

    /// Accepts frames of a topic again. Called when no frame of an earlier subscription can be
    /// pushed any more.
    pub(crate) fn unmute(&self, topic: &Topic) {
        self.queue.lock().unmute(topic);
    }

    fn push_unless(
        &self,
        is_dropped: impl Fn(&Queue) -> bool,
        frame: Bytes,
        class: Class,
    ) -> Result<(), Reason> {
        let mut queue = self.queue.lock();
        if is_dropped(&queue) {
            return Ok(());
        }
        let result = queue.push(frame, class, &*self.sink, &self.limits);
        let wake = queue.take_needs_owner();
        self.update_queued(&queue);
        drop(queue);
        if wake {
            self.owner.wake();
        }
        if result.is_err() {
            self.drained.notify_waiters();
        }
        result
    }

    /// Queues frames without writing them, in order and within the bounds, until the guard is
    /// dropped. For replies that must not be sent before the subscription that they announce has
    /// started.
    pub fn hold(&self) -> Hold<'_> {
        self.queue.lock().hold();
        Hold(self)
    }

    /// Queues a close frame as the last frame. The owner's [`drive`](Self::drive) returns when it
    /// is written.
    ///
    /// If the outbox has ended with [`Reason::TooSlow`], the close frame follows the frame that is
    /// partly written, so that a reader that resumes learns the reason. Later calls, and calls on a
    /// broken connection, do nothing.
    pub fn close(&self, frame: Bytes, code: u16) {
        let mut queue = self.queue.lock();
        queue.close(frame, code, &self.limits);
        self.update_queued(&queue);
        drop(queue);
        self.owner.wake();
        self.drained.notify_waiters();
    }

    /// Writes queued frames whenever the socket accepts them. Only the connection's owner polls it.
    ///
    /// Returns [`Reason::TooSlow`] at once when a bound is exceeded (the owner may then
    /// [`close`](Self::close) and drive on, with its own deadline), otherwise when the outbox has
    /// ended and everything is written. Cancel safe.
    pub async fn drive(&self) -> Reason {
        poll_fn(|cx| self.poll_drive(cx)).await
    }

    /// Polls [`drive`](Self::drive).
    pub fn poll_drive(&self, cx: &mut Context<'_>) -> Poll<Reason> {
        self.owner.register(cx.waker());
        loop {
            let mut queue = self.queue.lock();
            let flush = queue.flush(&*self.sink, &self.limits);
            self.update_queued(&queue);
            drop(queue);
            match flush {
                Flush::Over(reason) => {
                    self.drained.notify_waiters();
                    return Poll::Ready(reason);
                }
                Flush::Empty => {
                    self.drained.notify_waiters();
                    return Poll::Pending;
                }
                // Dropping the hold wakes the owner.
                Flush::Held => return Poll::Pending,
                Flush::Progress => self.drained.notify_waiters(),
                Flush::Blocked => {
                    if ready!(self.sink.poll_write_ready(cx)).is_err() {
                        self.fail(Reason::Broken);
                    }
                }
            }
        }
    }

    /// Returns whether the hub ended a subscription of this outbox since the last call. The owner
    /// calls it after [`poll_drive`](Self::poll_drive), which registers it to be woken for the
    /// next.
    pub fn take_ended_subscription(&self) -> bool {
        self.has_ended_subscription.load(Ordering::Acquire)
            && self.has_ended_subscription.swap(false, Ordering::AcqRel)
    }

    /// Tells the owner that the hub ended a subscription. Called after it has ended.
    pub(crate) fn notify_ended_subscription(&self) {
        self.has_ended_subscription.store(true, Ordering::Release);
        self.owner.wake();
    }

    /// Ends the outbox if its oldest frame is older than [`OutboxLimits::age`]. For the owner's timer.
    ///
    /// # Errors
    /// Fails if the outbox has ended, now or before.
    pub fn check(&self, now: Instant) -> Result<(), Reason> {
        let mut queue = self.queue.lock();
        let result = queue.check(now, &self.limits);
        self.update_queued(&queue);
        drop(queue);
        if result.is_err() {
            self.owner.wake();
            self.drained.notify_waiters();
        }
        result
    }

    /// Ends the outbox, for example after a failed read. Drops queued frames, unless a close frame
    /// is queued.
    pub fn fail(&self, reason: Reason) {
        let mut queue = self.queue.lock();
        queue.fail(reason, &self.limits);
        self.update_queued(&queue);
        drop(queue);
        self.owner.wake();
        self.drained.notify_waiters();
    }

    /// Returns why the outbox has ended, if it has: from a [`close`](Self::close) on, also while
    /// frames are still queued. [`OutboxLimits::age`] and [`OutboxLimits::bytes`] do not apply after that; the
    /// owner limits how long writing the rest may take.
    pub fn end_reason(&self) -> Option<Reason> {
        self.queue.lock().end_reason()
    }

    /// Queued bytes. A frame counts fully until it is completely written, plus
    /// [`ENTRY_OVERHEAD_BYTES`].
    pub fn queued_bytes(&self) -> usize {
        self.queued.load(Ordering::Acquire)
    }

    /// Bytes that may still be queued.
    pub fn room(&self) -> usize {
        self.limits.bytes.saturating_sub(self.queued_bytes())
    }

    /// Waits until fewer than `bytes` are queued.
    ///
    /// # Errors
    /// Fails if the outbox has ended.
    pub async fn drained_below(&self, bytes: usize) -> Result<(), Reason> {
        loop {
            let drained = self.drained.notified();
            tokio::pin!(drained);
            drained.as_mut().enable();
            // Under one lock: an outbox that ends in between would seem to have drained.
            let (ended, queued) = {
                let queue = self.queue.lock();
                (queue.end_reason(), queue.bytes())
            };
            match ended {
                Some(reason) => return Err(reason),
                None if queued < bytes => return Ok(()),
                None => drained.await,
            }
        }
    }

    /// The bounds of this outbox.
    pub fn limits(&self) -> &Arc<OutboxLimits> {
        &self.limits
    }

    /// Acquires the turn to push pages of the log. One catch-up task at a time pushes, because all
    /// would fill the same room.
    pub(crate) async fn acquire_turn(&self) -> SemaphorePermit<'_> {
        self.turn
            .acquire()
            .await
            .expect("the semaphore is never closed")
    }

    fn update_queued(&self, queue: &Queue) {
        self.queued.store(queue.bytes(), Ordering::Release);
    }
}

/// Holds an outbox's frames back, see [`Outbox::hold`].
#[derive(Debug)]
#[must_use = "dropping it writes the frames"]
pub struct Hold<'a>(&'a Outbox);

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        self.0.queue.lock().release();
        self.0.owner.wake();
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        self.queue.get_mut().clear(&self.limits);
    }
}

impl fmt::Debug for Outbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbox")
            .field("encoding", &self.encoding)
            .field("queued", &self.queued_bytes())
            .finish_non_exhaustive()
    }
}
