//! Names and positions of topics.

use std::sync::Arc;

/// The name of a topic: UTF-8, at most 512 bytes, without `{` and `}`.
pub type Topic = Arc<str>;

/// A position in the log of a topic. `seq` counts its events; `at` distinguishes two histories that
/// used the same `seq`.
///
/// `(0, 0)` is the position before the first event.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Position {
    /// 1, 2, 3 … without gaps.
    pub seq: u64,
    /// Time of the event with that `seq`, in milliseconds since the Unix epoch.
    pub at: u64,
}
