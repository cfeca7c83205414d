//! The only way out of a connection: a direct write where nothing is queued, and else a bounded queue of frames.
//!
//! Owned here: the order of frames, their bounds in bytes and in age, what is given up first, and the node-wide total.
//! Left out: what a frame holds (complete bytes of the wire, whoever made them), and the reading side of the connection.
//!
//! Anybody may [`push`](Outbox::push), from any thread, and never waits. One task, the connection's owner, polls
//! [`drive`](Outbox::drive), which writes what is queued whenever the socket takes more, and tells when it is over.

mod limits;
mod queue;
#[cfg(all(test, shuttle))]
mod races;
mod sink;
#[cfg(test)]
#[cfg_attr(shuttle, allow(dead_code, reason = "the checks need a part of it"))]
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
use crate::sync::atomic::{AtomicUsize, Ordering};

pub use self::limits::{Counts, Limits};
pub use self::sink::Sink;

/// What a frame counts beyond its own bytes while it waits: its place in the queue. Empty frames are not free.
pub const ENTRY: usize = 64;

/// In which of the wire's two encodings a connection is told. Each frame is made once per encoding that has a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Encoding {
    /// Binary messages.
    Binary = 0,
    /// Text messages.
    Text = 1,
}

impl Encoding {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 2] = [Self::Binary, Self::Text];
}

/// What happens to a frame that has to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Kept in order, or the connection ends. A buffer of several merged frames is one entry of this class.
    Durable,
    /// An answer to the connection's own request: as [`Durable`](Self::Durable).
    Reply,
    /// Given up first when there is no room. With a key: a newer one takes the place of one that waits under the same key.
    Droppable(Option<u64>),
    /// A ping, a pong: overtakes all frames that have not begun. Of those that wait the newest few stay: one more takes the place of the
    /// oldest (RFC 6455, 5.5.3, lets a pong answer the newest ping alone). Frames of other classes never give way to it, nor does a close.
    Control,
}

/// Why an outbox takes nothing more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// The reader is slower than what it is told.
    #[error("the reader is too slow: {0}")]
    TooSlow(Excess),
    /// The socket failed.
    #[error("the connection is broken")]
    Broken,
    /// [`Outbox::close`] was called, with this close code.
    #[error("closed with {0}")]
    Closed(u16),
}

/// Which bound a slow reader exceeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Excess {
    /// [`Limits::bytes`].
    #[error("too many bytes wait")]
    Bytes,
    /// [`Limits::age`].
    #[error("a frame waited too long")]
    Age,
    /// [`Limits::total`], and this one holds more than the average.
    #[error("the node holds too many bytes, and this connection more than others")]
    Total,
}

/// The way out of one connection. Idle, it holds no buffer.
pub struct Outbox {
    sink: Arc<dyn Sink>,
    limits: Arc<Limits>,
    encoding: Encoding,
    subject: OnceLock<Bytes>,
    queue: Mutex<Queue>,
    /// A copy of what the queue counts that is read without the lock.
    queued: AtomicUsize,
    owner: AtomicWaker,
    drained: Notify,
    turn: Semaphore,
}

impl Outbox {
    /// An empty outbox that writes to `sink`.
    pub fn new(sink: Arc<dyn Sink>, encoding: Encoding, limits: Arc<Limits>) -> Arc<Self> {
        Arc::new(Self {
            sink,
            limits,
            encoding,
            subject: OnceLock::new(),
            queue: Mutex::default(),
            queued: AtomicUsize::new(0),
            owner: AtomicWaker::new(),
            drained: Notify::new(),
            turn: Semaphore::new(1),
        })
    }

    /// Names whose connection this is, once that is known. Only the first call counts.
    pub fn identify(&self, subject: Bytes) {
        let _ = self.subject.set(subject);
    }

    /// Whose connection this is; empty until that is known.
    pub fn subject(&self) -> &[u8] {
        self.subject.get().map_or(&[], |subject| subject)
    }

    /// How its frames are encoded.
    pub fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// Sends a frame: at once, if nothing waits and the socket takes it, or later, in order. Never waits.
    ///
    /// # Errors
    /// The outbox takes nothing more. A frame that is [`Class::Droppable`] may be dropped silently.
    pub fn push(&self, frame: Bytes, class: Class) -> Result<(), Reason> {
        self.push_unless(|_| false, frame, class)
    }

    /// The same with what is told of a topic, which is dropped while the topic is [muted](Self::mute).
    pub(crate) fn push_of(&self, topic: &Topic, frame: Bytes, class: Class) -> Result<(), Reason> {
        self.push_unless(|queue| queue.is_muted(topic), frame, class)
    }

    /// Takes nothing more of what is told of a topic, also what is on its way already, until the next subscription to it begins.
    pub fn mute(&self, topic: &Topic) {
        self.queue.lock().mute(topic);
    }

    /// Nothing of an earlier subscription is on its way any more.
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
        let wake = queue.wants_owner();
        self.settle(&queue);
        drop(queue);
        if wake {
            self.owner.wake();
        }
        if result.is_err() {
            self.drained.notify_waiters();
        }
        result
    }

    /// Keeps back what is pushed from now on, in order and within the bounds, until the answer is dropped: a reply that
    /// announces something is not seen before what it announces has begun.
    pub fn hold(&self) -> Hold<'_> {
        self.queue.lock().hold();
        Hold(self)
    }

    /// Takes nothing more after this close frame, which follows what waits. The owner's [`drive`](Self::drive) ends when it is written.
    ///
    /// For one that is [`Reason::TooSlow`] already it follows the frame that has begun, so that a reader who wakes up learns the reason.
    /// Later calls, and calls on a broken connection, do nothing.
    pub fn close(&self, frame: Bytes, code: u16) {
        let mut queue = self.queue.lock();
        queue.close(frame, code, &self.limits);
        self.settle(&queue);
        drop(queue);
        self.owner.wake();
        self.drained.notify_waiters();
    }

    /// Writes whenever the socket takes something, for as long as the outbox lives. One task polls it, the socket's only other user is the reader.
    ///
    /// Ends with [`Reason::TooSlow`] at once when a bound is exceeded (the owner may then [`close`](Self::close) and drive on, with a deadline
    /// of its own), and else when there is nothing more to write. May be dropped and called again at any time.
    pub async fn drive(&self) -> Reason {
        poll_fn(|cx| self.poll_drive(cx)).await
    }

    /// [`drive`](Self::drive), for a task that polls by hand.
    pub fn poll_drive(&self, cx: &mut Context<'_>) -> Poll<Reason> {
        self.owner.register(cx.waker());
        loop {
            let mut queue = self.queue.lock();
            let flush = queue.flush(&*self.sink, &self.limits);
            self.settle(&queue);
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
                // Who lets it go wakes the owner.
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

    /// Ends the outbox if its oldest frame has waited longer than [`Limits::age`]. For the owner's timer; nothing is measured once the outbox is over.
    ///
    /// # Errors
    /// The outbox is over, by this or before.
    pub fn check(&self, now: Instant) -> Result<(), Reason> {
        let mut queue = self.queue.lock();
        let result = queue.check(now, &self.limits);
        self.settle(&queue);
        drop(queue);
        if result.is_err() {
            self.owner.wake();
            self.drained.notify_waiters();
        }
        result
    }

    /// Gives the outbox up, as after a failed read: what waits is dropped, unless a close frame is on its way out.
    pub fn fail(&self, reason: Reason) {
        let mut queue = self.queue.lock();
        queue.fail(reason, &self.limits);
        self.settle(&queue);
        drop(queue);
        self.owner.wake();
        self.drained.notify_waiters();
    }

    /// Why nothing more is taken, if so: from the moment of a [`close`](Self::close) on, also while its frame and what stands before it wait.
    /// [`Limits::age`] and [`Limits::bytes`] end an outbox only before that; how long it may take to write the rest is the owner's to say.
    pub fn is_over(&self) -> Option<Reason> {
        self.queue.lock().refuses()
    }

    /// Bytes that wait. A frame counts whole until it is written whole, and [`ENTRY`] more for its place in the queue.
    pub fn queued_bytes(&self) -> usize {
        self.queued.load(Ordering::Acquire)
    }

    /// Bytes that may still be queued.
    pub fn room(&self) -> usize {
        self.limits.bytes.saturating_sub(self.queued_bytes())
    }

    /// Waits until fewer than `bytes` wait.
    ///
    /// # Errors
    /// The outbox is over.
    pub async fn drained_below(&self, bytes: usize) -> Result<(), Reason> {
        loop {
            let drained = self.drained.notified();
            tokio::pin!(drained);
            drained.as_mut().enable();
            // Both in one look: an outbox that is given up between two would seem to have drained.
            let (refuses, queued) = {
                let queue = self.queue.lock();
                (queue.refuses(), queue.bytes())
            };
            match refuses {
                Some(reason) => return Err(reason),
                None if queued < bytes => return Ok(()),
                None => drained.await,
            }
        }
    }

    /// The bounds that this outbox keeps.
    pub fn limits(&self) -> &Arc<Limits> {
        &self.limits
    }

    /// The right to push page after page: one pump at a time, or a few hundred of them would each fill the same room.
    pub(crate) async fn turn(&self) -> SemaphorePermit<'_> {
        self.turn
            .acquire()
            .await
            .expect("the semaphore is never closed")
    }

    fn settle(&self, queue: &Queue) {
        self.queued.store(queue.bytes(), Ordering::Release);
    }
}

/// Keeps an outbox's frames back, see [`Outbox::hold`].
#[derive(Debug)]
#[must_use = "what is held leaves when this is dropped"]
pub struct Hold<'a>(&'a Outbox);

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        self.0.queue.lock().let_go();
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
