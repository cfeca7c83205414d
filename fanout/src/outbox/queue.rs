//! The queue behind an outbox: which frame is next, which has begun, and which is given up.

use std::collections::VecDeque;
use std::io::{ErrorKind, IoSlice};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::{Class, ENTRY, Excess, Limits, Reason, Sink};
use crate::Topic;

/// Buffers in one vectored write: beyond a few dozen the cost of the call no longer shrinks.
const SLICES: usize = 64;

/// Bytes in one vectored write: the lock is held that long, and sockets seldom take more at once.
const SLICE_BYTES: usize = 256 * 1024;

/// What control frames may take beyond the bound, so that a ping does not end a connection whose queue is full.
const CONTROL: usize = 4 * 1024;

/// Control frames that wait. A reader that takes none of them needs no more, and its pings could fill any room.
const CONTROLS: usize = 8;

/// Topics that are muted at once. What was on its way when the oldest was muted has long arrived.
const MUTED: usize = 64;

#[derive(Debug)]
struct Entry {
    frame: Bytes,
    since: Instant,
    class: Class,
}

const _: () = assert!(size_of::<Entry>() <= ENTRY);

impl Entry {
    /// What it counts.
    fn cost(&self) -> usize {
        cost(&self.frame)
    }
}

/// What a frame counts while it waits.
pub(super) fn cost(frame: &Bytes) -> usize {
    frame.len().saturating_add(ENTRY)
}

#[derive(Debug, Clone, Copy, Default)]
enum State {
    #[default]
    Open,
    /// Refuses; what has not begun is gone.
    Failed(Reason),
    /// Refuses; the last entry is the close frame.
    Closing(Reason),
}

/// How far a flush came.
pub(super) enum Flush {
    /// Something was written, and something waits.
    Progress,
    /// The socket takes no more.
    Blocked,
    /// Nothing waits.
    Empty,
    /// What waits is kept back.
    Held,
    /// Nothing will be written any more.
    Over(Reason),
}

/// Frames in the order in which they leave. Control frames that wait stand before all others that have not begun.
#[derive(Debug, Default)]
pub(super) struct Queue {
    entries: VecDeque<Entry>,
    state: State,
    /// Topics of which nothing is taken: a few, and hardly ever any.
    muted: Vec<Topic>,
    /// What all entries count, the first one whole even when it has begun.
    bytes: usize,
    /// How much of the first entry is written.
    begun: usize,
    droppable: usize,
    /// Control frames, one that has begun included.
    controls: usize,
    wants_owner: bool,
    /// How many keep what is here back.
    holds: usize,
}

impl Queue {
    pub(super) fn mute(&mut self, topic: &Topic) {
        if self.is_muted(topic) {
            return;
        }
        if self.muted.len() == MUTED {
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

    pub(super) fn refuses(&self) -> Option<Reason> {
        match self.state {
            State::Open => None,
            State::Failed(reason) | State::Closing(reason) => Some(reason),
        }
    }

    /// Whether something happened since the last call that the owner must act on.
    pub(super) fn wants_owner(&mut self) -> bool {
        std::mem::take(&mut self.wants_owner)
    }

    pub(super) fn push(
        &mut self,
        frame: Bytes,
        class: Class,
        sink: &dyn Sink,
        limits: &Limits,
    ) -> Result<(), Reason> {
        if let Some(reason) = self.refuses() {
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
        self.wants_owner = true;
        self.insert(0, frame, class, Instant::now(), limits);
        self.begun = written;
        self.check_total(limits)
    }

    /// Writes nothing from now on.
    pub(super) fn hold(&mut self) {
        self.holds += 1;
    }

    /// Writes again, unless others hold on.
    pub(super) fn let_go(&mut self) {
        self.holds -= 1;
    }

    fn enqueue(&mut self, frame: Bytes, class: Class, limits: &Limits) -> Result<(), Reason> {
        let now = Instant::now();
        self.check_age(now, limits)?;
        if let Class::Droppable(Some(key)) = class {
            self.forget(key, limits);
        }
        let reserve = if class == Class::Control { CONTROL } else { 0 };
        if class == Class::Control && self.controls >= CONTROLS {
            self.give_way(limits);
        }
        let room = limits
            .bytes
            .saturating_add(reserve)
            .saturating_sub(cost(&frame));
        if self.bytes > room {
            self.give_up(self.bytes - room, limits);
        }
        if self.bytes > room && !self.entries.is_empty() {
            if let Class::Droppable(_) = class {
                limits.count_dropped(1);
                return Ok(());
            }
            return self.end(Excess::Bytes, limits);
        }
        let index = match class {
            Class::Control => self.boundary(),
            _ => self.entries.len(),
        };
        self.insert(index, frame, class, now, limits);
        self.check_total(limits)
    }

    /// Where the next control frame goes: after what has begun and after control frames before it.
    fn boundary(&self) -> usize {
        self.controls
            + usize::from(
                self.begun > 0
                    && self
                        .entries
                        .front()
                        .is_some_and(|first| first.class != Class::Control),
            )
    }

    /// Drops the oldest control frame that has not begun. The next one waits in its place, and for as long:
    /// a reader that takes nothing is too old some day, whatever it sends.
    fn give_way(&mut self, limits: &Limits) {
        let oldest = usize::from(self.begun > 0);
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
        limits: &Limits,
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

    fn remove(&mut self, index: usize, limits: &Limits) {
        if let Some(entry) = self.entries.remove(index) {
            self.bytes -= entry.cost();
            self.droppable -= usize::from(matches!(entry.class, Class::Droppable(_)));
            self.controls -= usize::from(entry.class == Class::Control);
            limits.release(self.bytes, entry.cost());
        }
    }

    /// Drops the frame that waits under this key.
    fn forget(&mut self, key: u64, limits: &Limits) {
        if self.droppable == 0 {
            return;
        }
        let begun = usize::from(self.begun > 0);
        let found = self
            .entries
            .iter()
            .skip(begun)
            .position(|e| e.class == Class::Droppable(Some(key)));
        if let Some(index) = found {
            self.remove(begun + index, limits);
            limits.count_dropped(1);
        }
    }

    /// Drops droppable frames, oldest first, until this many bytes are free or none is left.
    fn give_up(&mut self, bytes: usize, limits: &Limits) {
        let (target, mut index, mut dropped) = (
            self.bytes.saturating_sub(bytes),
            usize::from(self.begun > 0),
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

    fn check_total(&mut self, limits: &Limits) -> Result<(), Reason> {
        if limits.is_overdrawn_by(self.bytes) {
            self.end(Excess::Total, limits)
        } else {
            Ok(())
        }
    }

    fn check_age(&mut self, now: Instant, limits: &Limits) -> Result<(), Reason> {
        // Control frames overtake, so the oldest is the first or the first that was overtaken.
        let oldest = self
            .entries
            .front()
            .into_iter()
            .chain(self.entries.get(self.boundary()))
            .map(|e| e.since)
            .min();
        match oldest {
            Some(since) if now.saturating_duration_since(since) > limits.age => {
                self.end(Excess::Age, limits)
            }
            _ => Ok(()),
        }
    }

    pub(super) fn check(&mut self, now: Instant, limits: &Limits) -> Result<(), Reason> {
        if let Some(reason) = self.refuses() {
            return Err(reason);
        }
        self.check_age(now, limits)?;
        if self.bytes > 0 {
            self.check_total(limits)
        } else {
            Ok(())
        }
    }

    fn end(&mut self, excess: Excess, limits: &Limits) -> Result<(), Reason> {
        let reason = Reason::TooSlow(excess);
        limits.count_too_slow(excess);
        self.fail(reason, limits);
        Err(reason)
    }

    /// Refuses from now on. A frame that has begun stays, so that a close frame can follow it; on a broken connection nothing does.
    pub(super) fn fail(&mut self, reason: Reason, limits: &Limits) {
        self.wants_owner = true;
        match self.state {
            State::Open => {}
            State::Closing(_) | State::Failed(_) if reason == Reason::Broken => {}
            State::Closing(_) | State::Failed(_) => return,
        }
        let first = if self.begun > 0 && reason != Reason::Broken {
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
        self.begun = if kept > 0 { self.begun } else { 0 };
        self.state = State::Failed(reason);
    }

    pub(super) fn close(&mut self, frame: Bytes, code: u16, limits: &Limits) {
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

    /// One write of as much as waits, within bounds.
    pub(super) fn flush(&mut self, sink: &dyn Sink, limits: &Limits) -> Flush {
        if let State::Failed(reason) = self.state {
            return Flush::Over(reason);
        }
        if self.entries.is_empty() {
            return self.refuses().map_or(Flush::Empty, Flush::Over);
        }
        if self.holds > 0 {
            return Flush::Held;
        }
        let result = match self.entries.len() {
            1 => sink.try_write(&self.entries[0].frame[self.begun..]),
            _ => {
                let mut slices: [IoSlice<'_>; SLICES] = std::array::from_fn(|_| IoSlice::new(&[]));
                let (mut used, mut bytes) = (0, 0);
                for (slice, entry) in slices.iter_mut().zip(&self.entries) {
                    let from = if used == 0 { self.begun } else { 0 };
                    *slice = IoSlice::new(&entry.frame[from..]);
                    used += 1;
                    bytes += entry.frame.len() - from;
                    if bytes >= SLICE_BYTES {
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
                    true => self.refuses().map_or(Flush::Empty, Flush::Over),
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

    fn advance(&mut self, written: usize, limits: &Limits) {
        self.begun += written;
        while let Some(first) = self.entries.front().map(|e| e.frame.len()) {
            if self.begun < first {
                return;
            }
            self.begun -= first;
            self.remove(0, limits);
        }
        // Nothing is retained after a burst.
        self.entries = VecDeque::new();
    }

    pub(super) fn clear(&mut self, limits: &Limits) {
        limits.release(0, self.bytes);
        self.bytes = 0;
        self.entries = VecDeque::new();
    }
}
