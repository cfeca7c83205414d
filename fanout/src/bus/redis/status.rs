//! The part of the registry's state that other tasks can read.

use std::sync::atomic::AtomicBool;

use parking_lot::Mutex;

/// The state of the registry that is visible to [`RedisBus`](super::RedisBus).
#[derive(Debug, Default)]
pub(super) struct Status {
    pub(super) is_connected: AtomicBool,
    pub(super) is_partly_connected: AtomicBool,
    /// Whether the server's access rules refused the last subscription.
    pub(super) is_forbidden: AtomicBool,
    /// The last fault, for errors of joins.
    pub(super) fault: Mutex<Option<String>>,
}
