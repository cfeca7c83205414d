//! Where a client stands in a stream.

use protocol::params::Cursor;

/// `[seq, at]` of the last durable event that a client has of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Position {
    /// Which event.
    pub seq: u64,
    /// Its instant, which tells it from another one with the same `seq`.
    pub at: u64,
}

/// What an event is to somebody who stands at a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The next one.
    Next,
    /// One that was passed already.
    Again,
    /// One behind others that did not come.
    Beyond,
}

impl Position {
    /// What the event with this `seq` is to somebody who stands here.
    pub fn step(self, seq: u64) -> Step {
        match seq {
            _ if seq <= self.seq => Step::Again,
            _ if seq == self.seq + 1 => Step::Next,
            _ => Step::Beyond,
        }
    }
}

impl From<(u64, u64)> for Position {
    fn from((seq, at): (u64, u64)) -> Self {
        Self { seq, at }
    }
}

impl From<Position> for Cursor {
    fn from(Position { seq, at }: Position) -> Self {
        Self::After(seq, at)
    }
}
