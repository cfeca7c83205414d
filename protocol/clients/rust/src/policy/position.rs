//! A position in a stream.

use protocol::Cursor;

/// `[seq, at]` of the last durable event that a client received of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Position {
    /// `seq` of the event.
    pub seq: u64,
    /// `at` of the event, which distinguishes it from another event with the same `seq` in a
    /// superseded history.
    pub at: u64,
}

/// How an event relates to a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventOrder {
    /// The next event.
    Next,
    /// An event at or before the position.
    Repeated,
    /// A later event: those in between are missing.
    AfterHole,
}

impl Position {
    /// Returns how the event with this `seq` relates to the position.
    pub fn order_of(self, seq: u64) -> EventOrder {
        match seq {
            _ if seq <= self.seq => EventOrder::Repeated,
            _ if seq == self.seq + 1 => EventOrder::Next,
            _ => EventOrder::AfterHole,
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
