//! The names and the positions of topics.

use std::sync::Arc;

/// The name of a topic: UTF-8, at most 512 bytes, without `{` and `}`.
pub type Topic = Arc<str>;

/// A place in a topic's numbered events: `seq` counts them, `at` tells two histories apart that used the same `seq`.
///
/// `(0, 0)` stands before the first event.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Position {
    /// 1, 2, 3 … without a hole.
    pub seq: u64,
    /// The instant of the event with that `seq`, in milliseconds since the Unix epoch.
    pub at: u64,
}
