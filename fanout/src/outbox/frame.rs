//! The class of a frame, and why an outbox refuses frames.

/// Bytes that a queued frame counts in addition to its own: its entry in the queue.
pub const ENTRY_OVERHEAD_BYTES: usize = 64;

/// The encoding of a connection. Each record is framed once per encoding that has a subscriber.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum FrameEncoding {
    /// Binary messages.
    Binary = 0,
    /// Text messages.
    Text = 1,
}

impl FrameEncoding {
    /// All encodings, in the order of their discriminants.
    pub const ALL: [Self; 2] = [Self::Binary, Self::Text];
}

/// How a frame is treated when it has to be queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Kept in order; if there is no room, the connection ends. A buffer of several merged frames
    /// is one entry of this class.
    Durable,
    /// A reply to the connection's own request. Treated like [`Durable`](Self::Durable).
    Reply,
    /// Dropped first when there is no room. With a key: replaces a queued frame with the same key.
    Droppable(Option<u64>),
    /// A ping or pong. Overtakes all frames that are not partly written. Only the newest few are
    /// queued: another one replaces the oldest (RFC 6455, 5.5.3, allows to answer only the newest
    /// ping). It never replaces frames of other classes.
    Control,
}

/// Why an outbox accepts no more frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// The reader does not keep up.
    #[error("the reader is too slow: {0}")]
    TooSlow(Excess),
    /// The socket failed.
    #[error("the connection is broken")]
    Broken,
    /// [`Outbox::close`](super::Outbox::close) was called, with this close code.
    #[error("closed with {0}")]
    Closed(u16),
}

/// Which bound a slow reader exceeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Excess {
    /// [`OutboxLimits::bytes`](super::OutboxLimits::bytes).
    #[error("too many bytes are queued")]
    Bytes,
    /// [`OutboxLimits::age`](super::OutboxLimits::age).
    #[error("a frame waited too long")]
    Age,
    /// [`OutboxLimits::total`](super::OutboxLimits::total), and this outbox holds more than the average.
    #[error("the node has too many bytes queued, and this connection more than the average")]
    Total,
}
