//! The queue of an outbox: which frame is next, which is partly written, and which is dropped.

use std::collections::VecDeque;
use std::io::{ErrorKind, IoSlice};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::frame::{Class, ENTRY_OVERHEAD_BYTES, Excess, Reason};
use super::limits::OutboxLimits;
use super::sink::Sink;
use crate::Topic;

/// Maximum buffers in one vectored write.
const MAX_BUFFERS_PER_WRITE: usize = 64;

/// Bytes after which no more buffers are added to a vectored write: the lock is held during the
/// write.
const TARGET_WRITE_BYTES: usize = 256 * 1024;

/// Bytes that control frames may use beyond the bound, so that a ping does not end a connection
/// whose queue is full.
const CONTROL_RESERVE_BYTES: usize = 4 * 1024;

const MAX_QUEUED_CONTROL_FRAMES: usize = 8;

/// Maximum muted topics. By then, frames of broadcasts that ran when the oldest was muted have
/// arrived.
const MAX_MUTED_TOPICS: usize = 64;

#[derive(Debug)]
struct Entry {
    frame: Bytes,
    since: Instant,
    class: Class,
}

const _: () = assert!(size_of::<Entry>() <= ENTRY_OVERHEAD_BYTES);

impl Entry {
    fn cost(&self) -> usize {
        cost(&self.frame)
    }
}

/// Bytes that a queued frame counts.
pub(super) fn cost(frame: &Bytes) -> usize {
    frame.len().saturating_add(ENTRY_OVERHEAD_BYTES)
}

#[derive(Debug, Clone, Copy, Default)]
enum State {
    #[default]
    Open,
    /// Accepts nothing. At most the partly written frame is left.
    Failed(Reason),
    /// Accepts nothing. The last entry is the close frame.
    Closing(Reason),
}

/// The result of a flush.
pub(super) enum Flush {
    /// Bytes were written, and more are queued.
    Progress,
    /// The socket accepts no more.
    Blocked,
    /// Nothing is queued.
    Empty,
    /// Queued frames are held back.
    Held,
    /// Nothing more will be written.
    Over(Reason),
}

/// Frames in the order in which they are written. Control frames precede all others, except a
/// partly written one.
#[derive(Debug, Default)]
pub(super) struct Queue {
    entries: VecDeque<Entry>,
    state: State,
    /// Topics whose frames are dropped. Almost always empty.
    muted: Vec<Topic>,
    /// Sum of the costs of all entries. The first counts fully even if it is partly written.
    bytes: usize,
    /// Written bytes of the first entry.
    written: usize,
    droppable: usize,
    /// Queued control frames, a partly written one included.
    controls: usize,
    /// Whether the owner has to be woken.
    needs_owner: bool,
    /// Number of active holds.
    holds: usize,
}

impl Queue {
    pub(super) fn mute(&mut self, topic: &Topic) {
        if self.is_muted(topic) {
            return;
        }
        if self.muted.len() == MAX_MUTED_TOPICS {
            self.muted.remove(0);
        }
        self.muted.push(Arc::clone(topic));
    }

    pub(super) fn unmute(&mut self, topic: &Topic) {
        self.muted.retain(|muted| muted != topic);
        if self.muted.is_empty() {
            self.muted = Vec::new();
        }
    }

    pub(super) fn is_muted(&self, topic: &Topic) -> bool {
        self.muted.contains(topic)
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn end_reason(&self) -> Option<Reason> {
        match self.state {
            State::Open => None,
            State::Failed(reason) | State::Closing(reason) => Some(reason),
        }
    }

    /// Returns whether the owner must be woken, and resets that.
    pub(super) fn take_needs_owner(&mut self) -> bool {
        std::mem::take(&mut self.needs_owner)
    }

    pub(super) fn push(
        &mut self,
        frame: Bytes,
        class: Class,
        sink: &dyn Sink,
        limits: &OutboxLimits,
    ) -> Result<(), Reason> {
        if let Some(reason) = self.end_reason() {
            return Err(reason);
        }
        if !self.entries.is_empty() || self.holds > 0 {
            return self.enqueue(frame, class, limits);
        }
        let written = if sink.is_direct() {
            match sink.try_write(&frame) {
                Ok(written) if written == frame.len() => return Ok(()),
                Ok(written) => written,
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
                {
                    0
                }
                Err(_) => {
                    self.fail(Reason::Broken, limits);
                    return Err(Reason::Broken);
                }
            }
        } else {
            0
        };
        self.needs_owner = true;
        self.insert(0, frame, class, Instant::now(), limits);
        self.written = written;
        self.check_total(limits)
    }

    /// Stops writing until [`release`](Self::release).
    pub(super) fn hold(&mut self) {
        self.holds += 1;
    }

    pub(super) fn release(&mut self) {
        self.holds -= 1;
    }

    fn enqueue(&mut self, frame: Bytes, class: Class, limits: &OutboxLimits) -> Result<(), Reason> {
        let now = Instant::now();
        self.check_age(now, limits)?;
        if let Class::Droppable(Some(key)) = class {
            self.drop_keyed(key, limits);
        }
        let reserve = if class == Class::Control {
            CONTROL_RESERVE_BYTES
        } else {
            0
        };
        if class == Class::Control && self.controls >= MAX_QUEUED_CONTROL_FRAMES {
            self.drop_oldest_control(limits);
        }
        let room = limits
            .bytes
            .saturating_add(reserve)
            .saturating_sub(cost(&frame));
        if self.bytes > room {
            self.free(self.bytes - room, limits);
        }
        if self.bytes > room && !self.entries.is_empty() {
            if let Class::Droppable(_) = class {
                limits.count_dropped(1);
                return Ok(());
            }
            return self.end(Excess::Bytes, limits);
        }
        let index = match class {
            Class::Control => self.control_index(),
            _ => self.entries.len(),
        };
        self.insert(index, frame, class, now, limits);
        self.check_total(limits)
    }

    /// Returns the index for the next control frame: after a partly written frame and earlier
    /// control frames.
    fn control_index(&self) -> usize {
        self.controls
            + usize::from(
                self.written > 0
                    && self
                        .entries
                        .front()
                        .is_some_and(|first| first.class != Class::Control),
            )
    }

    /// Drops the oldest control frame that is not partly written. The next one inherits its age, so
    /// that a reader that reads nothing exceeds the maximum age.
    fn drop_oldest_control(&mut self, limits: &OutboxLimits) {
        let oldest = usize::from(self.written > 0);
        let since = self.entries[oldest].since;
        self.remove(oldest, limits);
        if let Some(next) = self.entries.get_mut(oldest) {
            next.since = since;
        }
        limits.count_dropped(1);
    }

    fn insert(
        &mut self,
        index: usize,
        frame: Bytes,
        class: Class,
        since: Instant,
        limits: &OutboxLimits,
    ) {
        let entry = Entry {
            frame,
            since,
            class,
        };
        limits.hold(self.bytes, entry.cost());
        self.bytes += entry.cost();
        self.droppable += usize::from(matches!(class, Class::Droppable(_)));
        self.controls += usize::from(class == Class::Control);
        self.entries.insert(index, entry);
    }

    fn remove(&mut self, index: usize, limits: &OutboxLimits) {
        if let Some(entry) = self.entries.remove(index) {
            self.bytes -= entry.cost();
            self.droppable -= usize::from(matches!(entry.class, Class::Droppable(_)));
            self.controls -= usize::from(entry.class == Class::Control);
            limits.release(self.bytes, entry.cost());
        }
    }

    /// Drops the queued frame with this key.
    fn drop_keyed(&mut self, key: u64, limits: &OutboxLimits) {
        if self.droppable == 0 {
            return;
        }
        let first = usize::from(self.written > 0);
        let found = self
            .entries
            .iter()
            .skip(first)
            .position(|e| e.class == Class::Droppable(Some(key)));
        if let Some(index) = found {
            self.remove(first + index, limits);
            limits.count_dropped(1);
        }
    }

    /// Drops droppable frames, oldest first, until `bytes` are free or none is left.
    fn free(&mut self, bytes: usize, limits: &OutboxLimits) {
        let (target, mut index, mut dropped) = (
            self.bytes.saturating_sub(bytes),
            usize::from(self.written > 0),
            0,
        );
        while self.bytes > target && self.droppable > 0 && index < self.entries.len() {
            if matches!(self.entries[index].class, Class::Droppable(_)) {
                self.remove(index, limits);
                dropped += 1;
            } else {
                index += 1;
            }
        }
        limits.count_dropped(dropped);
    }

    fn check_total(&mut self, limits: &OutboxLimits) -> Result<(), Reason> {
        if limits.is_overdrawn_by(self.bytes) {
            self.end(Excess::Total, limits)
        } else {
            Ok(())
        }
    }

    fn check_age(&mut self, now: Instant, limits: &OutboxLimits) -> Result<(), Reason> {
        // Control frames overtake, so the oldest is the first or the first that was overtaken.
        let oldest = self
            .entries
            .front()
            .into_iter()
            .chain(self.entries.get(self.control_index()))
            .map(|e| e.since)
            .min();
        match oldest {
            Some(since) if now.saturating_duration_since(since) > limits.age => {
                self.end(Excess::Age, limits)
            }
            _ => Ok(()),
        }
    }

    pub(super) fn check(&mut self, now: Instant, limits: &OutboxLimits) -> Result<(), Reason> {
        if let Some(reason) = self.end_reason() {
            return Err(reason);
        }
        self.check_age(now, limits)?;
        if self.bytes > 0 {
            self.check_total(limits)
        } else {
            Ok(())
        }
    }

    fn end(&mut self, excess: Excess, limits: &OutboxLimits) -> Result<(), Reason> {
        let reason = Reason::TooSlow(excess);
        limits.count_too_slow(excess);
        self.fail(reason, limits);
        Err(reason)
    }

    /// Ends the queue. A partly written frame stays, so that a close frame can follow it, except on
    /// a broken connection.
    pub(super) fn fail(&mut self, reason: Reason, limits: &OutboxLimits) {
        self.needs_owner = true;
        match self.state {
            State::Open => {}
            State::Closing(_) | State::Failed(_) if reason == Reason::Broken => {}
            State::Closing(_) | State::Failed(_) => return,
        }
        let first = if self.written > 0 && reason != Reason::Broken {
            self.entries.pop_front()
        } else {
            None
        };
        self.entries = first.into_iter().collect();
        self.entries.shrink_to_fit();
        let kept = self.entries.front().map_or(0, Entry::cost);
        limits.release(kept, self.bytes - kept);
        self.bytes = kept;
        self.droppable = self
            .entries
            .iter()
            .filter(|e| matches!(e.class, Class::Droppable(_)))
            .count();
        self.controls = self
            .entries
            .iter()
            .filter(|e| e.class == Class::Control)
            .count();
        self.written = if kept > 0 { self.written } else { 0 };
        self.state = State::Failed(reason);
    }

    pub(super) fn close(&mut self, frame: Bytes, code: u16, limits: &OutboxLimits) {
        match self.state {
            State::Open => self.state = State::Closing(Reason::Closed(code)),
            State::Failed(reason @ Reason::TooSlow(_)) => self.state = State::Closing(reason),
            State::Failed(_) | State::Closing(_) => return,
        }
        self.insert(
            self.entries.len(),
            frame,
            Class::Reply,
            Instant::now(),
            limits,
        );
    }

    /// Writes once, as much as possible within the bounds of one write.
    pub(super) fn flush(&mut self, sink: &dyn Sink, limits: &OutboxLimits) -> Flush {
        if let State::Failed(reason) = self.state {
            return Flush::Over(reason);
        }
        if self.entries.is_empty() {
            return self.end_reason().map_or(Flush::Empty, Flush::Over);
        }
        if self.holds > 0 {
            return Flush::Held;
        }
        let result = match self.entries.len() {
            1 => sink.try_write(&self.entries[0].frame[self.written..]),
            _ => {
                let mut slices: [IoSlice<'_>; MAX_BUFFERS_PER_WRITE] =
                    std::array::from_fn(|_| IoSlice::new(&[]));
                let (mut used, mut bytes) = (0, 0);
                for (slice, entry) in slices.iter_mut().zip(&self.entries) {
                    let from = if used == 0 { self.written } else { 0 };
                    *slice = IoSlice::new(&entry.frame[from..]);
                    used += 1;
                    bytes += entry.frame.len() - from;
                    if bytes >= TARGET_WRITE_BYTES {
                        break;
                    }
                }
                sink.try_write_vectored(&slices[..used])
            }
        };
        match result {
            Ok(0) => {
                self.fail(Reason::Broken, limits);
                Flush::Over(Reason::Broken)
            }
            Ok(written) => {
                self.advance(written, limits);
                match self.entries.is_empty() {
                    true => self.end_reason().map_or(Flush::Empty, Flush::Over),
                    false => Flush::Progress,
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Flush::Blocked,
            Err(error) if error.kind() == ErrorKind::Interrupted => Flush::Progress,
            Err(_) => {
                self.fail(Reason::Broken, limits);
                Flush::Over(Reason::Broken)
            }
        }
    }

    fn advance(&mut self, written: usize, limits: &OutboxLimits) {
        self.written += written;
        while let Some(first) = self.entries.front().map(|e| e.frame.len()) {
            if self.written < first {
                return;
            }
            self.written -= first;
            self.remove(0, limits);
        }
        // Free the memory after a burst.
        self.entries = VecDeque::new();
    }

    pub(super) fn clear(&mut self, limits: &OutboxLimits) {
        limits.release(0, self.bytes);
        self.bytes = 0;
        self.entries = VecDeque::new();
    }
}
